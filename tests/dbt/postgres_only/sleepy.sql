{{ config(materialized='table') }}
select pg_sleep(600)::text as slept
