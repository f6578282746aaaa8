"""Benchmarks of FlowStone beside its peers: one command, one table. See `docs/benchmarks.md`."""
