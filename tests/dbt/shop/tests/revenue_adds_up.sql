select 1 as problem
where (select sum(revenue) from {{ ref('daily_revenue') }}) > (select sum(amount) from {{ ref('stg_orders') }})
