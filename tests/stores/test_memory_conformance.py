from __future__ import annotations

from tests.stores.conformance.store import StoreConformance

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore


class TestMemoryStore(StoreConformance):
    def make_store(self) -> Store:
        return MemoryStore()
