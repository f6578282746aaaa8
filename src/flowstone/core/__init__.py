"""The vocabulary of FlowStone: values and rules only, no I/O, no clock, nothing to install."""
