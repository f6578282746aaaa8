"""Models of dbt between assets of Python: Python loads, dbt transforms, Python writes the letter."""
