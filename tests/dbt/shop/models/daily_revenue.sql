{{ config(materialized='incremental', unique_key='day', incremental_strategy='delete+insert', tags=['nightly', 'gold']) }}
select cast(ordered_at as date) as day, sum(amount) as revenue
from {{ ref('stg_orders') }}
{% if var('partition_start', none) %}
where ordered_at >= cast('{{ var("partition_start") }}' as timestamp)
  and ordered_at < cast('{{ var("partition_end") }}' as timestamp)
{% endif %}
{{ fail_on_request() }}
group by 1
