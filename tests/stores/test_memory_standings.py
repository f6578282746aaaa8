from __future__ import annotations

from tests.stores.conformance.catalog import TargetStatusConformance

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore


class TestMemoryTargetStatuses(TargetStatusConformance):
    def make_store(self) -> Store:
        return MemoryStore()
