from __future__ import annotations

from tests.stores.conformance.insights import InsightsConformance
from tests.stores.conformance.run_insights import RunInsightsTests

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore


class TestMemoryInsights(InsightsConformance, RunInsightsTests):
    def make_store(self) -> Store:
        return MemoryStore()
