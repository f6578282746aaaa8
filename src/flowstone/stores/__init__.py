"""Where runs, steps and lineage are recorded: in memory, or in PostgreSQL."""
