"""The in-memory store as a whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flowstone.stores.memory.automations import MemoryAutomations
from flowstone.stores.memory.catalog import MemoryCatalog
from flowstone.stores.memory.ledger import MemoryLedger
from flowstone.stores.memory.tables import Tables


class MemoryStore:
    """Keeps everything in this process; gone with it.

    Args:
        now: clock of the automations; for tests.

    Example:
        >>> MemoryStore().shared
        False
    """

    name = "memory"
    shared = False
    durable = False
    control = None

    def __init__(self, *, now: Callable[[], datetime] | None = None) -> None:
        tables = Tables()
        self.ledger = MemoryLedger(tables)
        self.catalog = MemoryCatalog(tables)
        self.automations = MemoryAutomations(tables, self.ledger, now=now)

    def close(self) -> None:
        """Nothing to release."""
