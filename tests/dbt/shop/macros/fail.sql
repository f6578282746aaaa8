{% macro fail_on_request() %}{% if env_var('SHOP_BREAK', '') == this.name %} where no_such_column > 0 {% endif %}{% endmacro %}
