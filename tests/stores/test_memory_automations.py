from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore
from flowstone.testing.automation_conformance import AutomationConformance


class TestMemoryAutomations(AutomationConformance):
    def make_store(self, now: Callable[[], datetime]) -> Store:
        return MemoryStore(now=now)
