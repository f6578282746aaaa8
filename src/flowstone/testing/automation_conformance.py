"""What every store must mean by an automation, as tests to run on yours."""

from __future__ import annotations

from flowstone.testing.automation_case import INBOX, NIGHTLY, START, SetClock, requested
from flowstone.testing.automation_evaluating import EvaluatingTests
from flowstone.testing.automation_steering import SteeringTests

__all__ = ["INBOX", "NIGHTLY", "START", "AutomationConformance", "SetClock", "requested"]


class AutomationConformance(EvaluatingTests, SteeringTests):
    """Tests of the automations of a store; make a subclass whose name starts with `Test`.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(AutomationConformance):
        ...     def make_store(self, now):
        ...         return MemoryStore(now=now)
    """
