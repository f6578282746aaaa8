"""What the parts of the conformance suite for automations share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    NewTick,
    PreparedRun,
    TakenAutomation,
    TickState,
)
from flowstone.core.step import NewRun, NewStep
from flowstone.protocols import Store

START = datetime(2024, 1, 1, tzinfo=UTC)
NIGHTLY = AutomationId(AutomationKind.SCHEDULE, "nightly")
INBOX = AutomationId(AutomationKind.SENSOR, "inbox")


class SetClock:
    """A clock that goes when the test moves it.

    Example:
        >>> clock = SetClock()
        >>> clock.forward(60)
        >>> clock().isoformat()
        '2024-01-01T00:01:00+00:00'
    """

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


def requested(at: datetime, *run_ids: str, key: str | None = None) -> NewTick:
    """Return a tick that asks for runs of one step each."""
    runs = [
        PreparedRun(
            NewRun(id=run_id, kind="schedule", selection="a", executor="sync", created_at=at),
            [NewStep("a", run_id)],
            key,
        )
        for run_id in run_ids
    ]
    return NewTick(at=at, state=TickState.REQUESTED, runs=runs)


class AutomationCase(ABC):
    """Gives every test a new store and the clock that it goes by."""

    @abstractmethod
    def make_store(self, now: Callable[[], datetime]) -> Store:
        """Return a new, empty store that goes by this clock."""

    @pytest.fixture
    def clock(self) -> SetClock:
        """The clock of the store."""
        return SetClock()

    @pytest.fixture
    def store(self, clock: SetClock) -> Iterator[Store]:
        """A new store."""
        store = self.make_store(clock)
        try:
            yield store
        finally:
            store.close()

    def taken(self, store: Store, automation: AutomationId = NIGHTLY, *, lease: float = 60.0) -> TakenAutomation:
        """Declare and take an automation, which must be possible."""
        store.automations.declare([automation])
        taken = store.automations.take([automation], lease_seconds=lease)
        assert len(taken) == 1, f"{automation} is not due"
        return taken[0]
