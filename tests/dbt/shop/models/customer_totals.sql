select c.id as customer_id, c.name, coalesce(t.total, 0) as total
from {{ ref('stg_customers') }} c left join {{ ref('ephemeral_totals') }} t on t.customer_id = c.id {{ fail_on_request() }}
