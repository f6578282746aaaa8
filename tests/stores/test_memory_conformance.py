from __future__ import annotations

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore
from flowstone.testing.store_conformance import StoreConformance


class TestMemoryStore(StoreConformance):
    def make_store(self) -> Store:
        return MemoryStore()
