"""Tools for testing pipelines and FlowStone itself."""
