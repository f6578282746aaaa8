from __future__ import annotations

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore
from flowstone.testing.standing_conformance import TargetStatusConformance


class TestMemoryTargetStatuses(TargetStatusConformance):
    def make_store(self) -> Store:
        return MemoryStore()
