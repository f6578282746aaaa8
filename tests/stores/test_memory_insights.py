from __future__ import annotations

from tests.stores.conformance.insights import InsightsConformance

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore


class TestMemoryInsights(InsightsConformance):
    def make_store(self) -> Store:
        return MemoryStore()
