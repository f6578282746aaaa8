"""Programs for whoever works on FlowStone itself; nothing here is shipped."""
