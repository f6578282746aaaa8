"""The read model: what pages, `--json` and the JSON API show, made of what a store answers and the graph.

One module for each subject. Each has frozen dataclasses of plain values, which are turned into JSON as they are,
and functions that make them. Nothing here writes.
"""
