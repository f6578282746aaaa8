from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tests.stores.conformance.automations import AutomationConformance

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore


class TestMemoryAutomations(AutomationConformance):
    def make_store(self, now: Callable[[], datetime]) -> Store:
        return MemoryStore(now=now)
