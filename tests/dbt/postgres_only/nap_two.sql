{{ config(materialized='table') }}
select pg_sleep(4)::text as slept
