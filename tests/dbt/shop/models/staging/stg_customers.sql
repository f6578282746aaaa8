select id, name from {{ ref('customers') }} {{ fail_on_request() }}
