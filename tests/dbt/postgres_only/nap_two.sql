{{ config(materialized='table') }}
select pg_advisory_xact_lock_shared(4)::text as waited
