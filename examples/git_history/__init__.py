"""The history of a git repository as assets: commits and file changes by month, summaries, one HTML report.

Read in this order: `flow.py` (the assets), `analysis.py` (what they compute), `repository.py` (where the data
comes from). Everything below `flow.py` is plain Python that knows nothing of FlowStone.
"""
