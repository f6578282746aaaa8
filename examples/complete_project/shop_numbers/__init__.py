"""A shop's numbers: a complete project on FlowStone."""
