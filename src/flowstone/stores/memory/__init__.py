"""The in-memory store: the twin of the PostgreSQL one, for tests, notebooks and inline work."""

from flowstone.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
