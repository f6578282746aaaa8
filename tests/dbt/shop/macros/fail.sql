{% macro fail_if_asked() %}{% if env_var('SHOP_BREAK', '') == this.name %} where no_such_column > 0 {% endif %}{% endmacro %}
