from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore
from flowstone.testing.sensor_conformance import SensorConformance


class TestMemorySensors(SensorConformance):
    def make_store(self, now: Callable[[], datetime]) -> Store:
        return MemoryStore(now=now)
