select id, name from {{ ref('customers') }} {{ fail_if_asked() }}
