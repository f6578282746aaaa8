"""FlowStone: asset-first data orchestration for Python, on PostgreSQL."""
