"""From files into a DuckDB warehouse: loaded by day, checked, transformed, watched."""
