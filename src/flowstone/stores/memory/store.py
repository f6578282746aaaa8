"""The in-memory store as a whole."""

from __future__ import annotations

from flowstone.stores.memory.catalog import MemoryCatalog
from flowstone.stores.memory.ledger import MemoryLedger
from flowstone.stores.memory.tables import Tables


class MemoryStore:
    """Keeps everything in this process; gone with it.

    Example:
        >>> MemoryStore().shared
        False
    """

    name = "memory"
    shared = False
    durable = False
    control = None

    def __init__(self) -> None:
        tables = Tables()
        self.ledger = MemoryLedger(tables)
        self.catalog = MemoryCatalog(tables)

    def close(self) -> None:
        """Nothing to release."""
