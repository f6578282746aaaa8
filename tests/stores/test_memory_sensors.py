from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tests.stores.conformance.automations import SensorConformance

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore


class TestMemorySensors(SensorConformance):
    def make_store(self, now: Callable[[], datetime]) -> Store:
        return MemoryStore(now=now)
