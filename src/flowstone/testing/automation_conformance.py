"""What every store must mean by an automation, as tests to run on yours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Conclusion,
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
    """A clock that goes when it is told to.

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


class AutomationConformance(ABC):
    """Tests of the automations of a store; make a subclass whose name starts with `Test`.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(AutomationConformance):
        ...     def make_store(self, now):
        ...         return MemoryStore(now=now)
    """

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

    # --- declaring and taking -----------------------------------------------------------------------------

    def test_a_declared_automation_is_due_at_once(self, store: Store, clock: SetClock) -> None:
        store.automations.declare([NIGHTLY, INBOX, NIGHTLY])
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert (record.since, record.due_at, record.cursor, record.paused) == (START, START, None, False)
        assert [one.id for one in store.automations.records()] == sorted([NIGHTLY, INBOX])
        clock.forward(5)
        store.automations.declare([NIGHTLY])
        assert store.automations.record(NIGHTLY) == record

    def test_one_can_begin_paused(self, store: Store) -> None:
        store.automations.declare([NIGHTLY, INBOX], paused=[INBOX])
        assert [one.record.id for one in store.automations.take([NIGHTLY, INBOX], lease_seconds=9, limit=9)] == [
            NIGHTLY
        ]

    def test_nothing_is_known_of_what_was_never_declared(self, store: Store) -> None:
        assert store.automations.record(NIGHTLY) is None
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        assert store.automations.ticks(NIGHTLY) == []

    def test_one_evaluates_at_a_time(self, store: Store, clock: SetClock) -> None:
        taken = self.taken(store)
        assert (taken.now, taken.by_hand) == (START, False)
        assert store.automations.take([NIGHTLY], lease_seconds=60) == []
        clock.forward(61)
        (other,) = store.automations.take([NIGHTLY], lease_seconds=60)
        assert other.token != taken.token
        late = store.automations.conclude(taken, Conclusion(cursor="late", due_at=None))
        assert not late.accepted
        assert store.automations.conclude(other, Conclusion(cursor="mine", due_at=None)).accepted
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert record.cursor == "mine"

    def test_the_longest_due_comes_first(self, store: Store, clock: SetClock) -> None:
        first = self.taken(store, INBOX)
        store.automations.conclude(first, Conclusion(cursor=None, due_at=START + timedelta(seconds=20)))
        second = self.taken(store, NIGHTLY)
        store.automations.conclude(second, Conclusion(cursor=None, due_at=START + timedelta(seconds=10)))
        assert store.automations.take([INBOX, NIGHTLY], lease_seconds=9, limit=2) == []
        clock.forward(30)
        taken = store.automations.take([INBOX, NIGHTLY], lease_seconds=9, limit=2)
        assert [one.record.id for one in taken] == [NIGHTLY, INBOX]

    def test_a_renewed_lease_lasts_and_a_lost_one_stays_lost(self, store: Store, clock: SetClock) -> None:
        taken = self.taken(store, lease=60)
        clock.forward(50)
        store.automations.renew([taken])
        clock.forward(50)
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        clock.forward(11)
        (other,) = store.automations.take([NIGHTLY], lease_seconds=9)
        store.automations.renew([taken])
        clock.forward(10)
        assert len(store.automations.take([NIGHTLY], lease_seconds=9)) == 1
        assert not store.automations.conclude(other, Conclusion(cursor=None, due_at=None)).accepted

    def test_what_is_given_back_is_due_as_before(self, store: Store) -> None:
        taken = self.taken(store)
        store.automations.give_back(taken)
        assert not store.automations.conclude(taken, Conclusion(cursor=None, due_at=None)).accepted
        assert len(store.automations.take([NIGHTLY], lease_seconds=9)) == 1

    def test_giving_back_too_late_takes_nothing_from_others(self, store: Store, clock: SetClock) -> None:
        late = self.taken(store, lease=1)
        clock.forward(2)
        (taken,) = store.automations.take([NIGHTLY], lease_seconds=9)
        store.automations.give_back(late)
        assert store.automations.conclude(taken, Conclusion(cursor=None, due_at=None)).accepted

    # --- concluding ---------------------------------------------------------------------------------------

    def test_a_conclusion_moves_everything_at_once(self, store: Store, clock: SetClock) -> None:
        taken = self.taken(store)
        due = START + timedelta(hours=1)
        done = store.automations.conclude(
            taken, Conclusion(ticks=[requested(START, "r1", "r2")], cursor="c1", due_at=due, failures=0)
        )
        assert done == (True, ("r1", "r2"), ())
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert (record.cursor, record.due_at, record.last_tick_at) == ("c1", due, START)
        (tick,) = store.automations.ticks(NIGHTLY)
        assert (tick.at, tick.state, tick.run_ids, tick.by_hand) == (
            START, TickState.REQUESTED, ("r1", "r2"), False,
        )  # fmt: skip
        assert [run.id for run in store.catalog.runs()] in (["r1", "r2"], ["r2", "r1"])
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        clock.forward(3600)
        assert len(store.automations.take([NIGHTLY], lease_seconds=9)) == 1

    def test_the_right_ends_with_the_last_conclusion(self, store: Store) -> None:
        taken = self.taken(store)
        going = Conclusion(ticks=[requested(START, "r1")], cursor="1", due_at=START, goes_on=True)
        assert store.automations.conclude(taken, going).accepted
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        last = Conclusion(cursor="2", due_at=START)
        assert store.automations.conclude(taken, last).accepted
        assert not store.automations.conclude(taken, last).accepted

    def test_going_on_prolongs_the_lease(self, store: Store, clock: SetClock) -> None:
        taken = self.taken(store, lease=60)
        clock.forward(50)
        store.automations.conclude(taken, Conclusion(cursor=None, due_at=START, goes_on=True))
        clock.forward(50)
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []

    def test_an_instant_happens_once(self, store: Store) -> None:
        for run_id in ("r1", "r2"):
            taken = self.taken(store)
            store.automations.conclude(
                taken, Conclusion(ticks=[requested(START, run_id)], cursor=run_id, due_at=START)
            )
        assert [tick.run_ids for tick in store.automations.ticks(NIGHTLY)] == [("r1",)]
        assert store.catalog.run("r2") is None
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert record.cursor == "r2"

    def test_a_run_key_triggers_once_for_each_automation(self, store: Store, clock: SetClock) -> None:
        for automation, run_id in ((INBOX, "r1"), (INBOX, "r2"), (NIGHTLY, "r3")):
            clock.forward(1)
            taken = self.taken(store, automation)
            done = store.automations.conclude(
                taken, Conclusion(ticks=[requested(clock.at, run_id, key="file")], cursor=None, due_at=clock.at)
            )
            assert done.known_keys == (("file",) if run_id == "r2" else ())
        assert [run.id for run in store.catalog.runs()] in (["r1", "r3"], ["r3", "r1"])
        assert [tick.state for tick in store.automations.ticks(INBOX)] == [TickState.SKIPPED, TickState.REQUESTED]

    def test_a_key_twice_in_one_conclusion_triggers_once(self, store: Store) -> None:
        taken = self.taken(store)
        done = store.automations.conclude(
            taken, Conclusion(ticks=[requested(START, "r1", "r2", key="file")], cursor=None, due_at=None)
        )
        assert done == (True, ("r1",), ("file",))

    def test_failures_and_their_errors_are_kept(self, store: Store) -> None:
        taken = self.taken(store)
        failed = NewTick(at=START, state=TickState.FAILED, error="boom", reason="it raised", took_seconds=1.5)
        store.automations.conclude(taken, Conclusion(ticks=[failed], cursor=None, due_at=START, failures=3))
        (tick,) = store.automations.ticks()
        assert (tick.state, tick.error, tick.reason, tick.took_seconds) == (
            TickState.FAILED, "boom", "it raised", 1.5,
        )  # fmt: skip
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert record.failures == 3

    # --- by hand ------------------------------------------------------------------------------------------

    def test_a_request_is_due_even_while_paused(self, store: Store) -> None:
        store.automations.declare([NIGHTLY], paused=[NIGHTLY])
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        store.automations.request(NIGHTLY)
        (taken,) = store.automations.take([NIGHTLY], lease_seconds=9)
        assert taken.by_hand
        store.automations.conclude(taken, Conclusion(ticks=[requested(START, "r1")], cursor=None, due_at=START))
        (tick,) = store.automations.ticks(NIGHTLY)
        assert tick.by_hand
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert record.last_tick_at is None
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []

    def test_a_request_is_not_lost_with_its_evaluation(self, store: Store, clock: SetClock) -> None:
        store.automations.declare([NIGHTLY], paused=[NIGHTLY])
        store.automations.request(NIGHTLY)
        store.automations.take([NIGHTLY], lease_seconds=9)
        clock.forward(10)
        assert [one.by_hand for one in store.automations.take([NIGHTLY], lease_seconds=9)] == [True]

    def test_a_request_during_an_evaluation_comes_after_it(self, store: Store) -> None:
        taken = self.taken(store)
        store.automations.request(NIGHTLY)
        store.automations.conclude(taken, Conclusion(cursor=None, due_at=None))
        assert [one.by_hand for one in store.automations.take([NIGHTLY], lease_seconds=9)] == [True]

    def test_a_tick_by_hand_stands_beside_the_regular_one(self, store: Store) -> None:
        taken = self.taken(store)
        store.automations.conclude(taken, Conclusion(ticks=[requested(START, "r1")], cursor=None, due_at=None))
        store.automations.request(NIGHTLY)
        (taken,) = store.automations.take([NIGHTLY], lease_seconds=9)
        store.automations.conclude(taken, Conclusion(ticks=[requested(START, "r2")], cursor=None, due_at=None))
        assert [tick.run_ids for tick in store.automations.ticks(NIGHTLY)] == [("r2",), ("r1",)]

    def test_pausing_says_whether_it_changed_anything(self, store: Store) -> None:
        store.automations.declare([NIGHTLY])
        assert store.automations.set_paused(NIGHTLY, paused=True)
        assert not store.automations.set_paused(NIGHTLY, paused=True)
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        assert store.automations.set_paused(NIGHTLY, paused=False)
        assert not store.automations.set_paused(INBOX, paused=True)
        assert len(store.automations.take([NIGHTLY], lease_seconds=9)) == 1

    def test_setting_the_cursor_ends_the_evaluation_at_work(self, store: Store) -> None:
        taken = self.taken(store)
        store.automations.set_cursor(NIGHTLY, "by hand")
        assert not store.automations.conclude(taken, Conclusion(cursor="old", due_at=None)).accepted
        (again,) = store.automations.take([NIGHTLY], lease_seconds=9)
        assert again.record.cursor == "by hand"

    # --- reading ------------------------------------------------------------------------------------------

    def test_ticks_are_told_newest_first_and_pruned_by_age(self, store: Store, clock: SetClock) -> None:
        for index in range(4):
            taken = self.taken(store, INBOX if index % 2 else NIGHTLY)
            tick = NewTick(at=clock.at, state=TickState.SKIPPED, reason=str(index))
            store.automations.conclude(taken, Conclusion(ticks=[tick], cursor=None, due_at=clock.at))
            clock.forward(10)
        assert [tick.reason for tick in store.automations.ticks()] == ["3", "2", "1", "0"]
        assert [tick.reason for tick in store.automations.ticks(INBOX)] == ["3", "1"]
        assert [tick.reason for tick in store.automations.ticks(INBOX, limit=1)] == ["3"]
        assert store.automations.prune_ticks(older_than_seconds=25, dry_run=True) == 2
        assert store.automations.prune_ticks(older_than_seconds=25) == 2
        assert [tick.reason for tick in store.automations.ticks()] == ["3", "2"]
