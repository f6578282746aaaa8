"""Automations in every store: evaluating them, steering them, conclusions of sensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Concluded,
    Conclusion,
    NewTick,
    PartitionChange,
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


class EvaluatingTests(AutomationCase):
    """Who may evaluate, and what a conclusion moves."""

    # --- declaring and taking -----------------------------------------------------------------------------

    def test_a_declared_automation_is_due_at_once(self, store: Store, clock: SetClock) -> None:
        """Declaring makes a row once; declaring again changes nothing."""
        store.automations.declare([NIGHTLY, INBOX, NIGHTLY])
        record = store.automations.record(NIGHTLY)
        assert record is not None
        assert (record.since, record.due_at, record.cursor, record.paused) == (START, START, None, False)
        assert [one.id for one in store.automations.records()] == sorted([NIGHTLY, INBOX])
        clock.forward(5)
        store.automations.declare([NIGHTLY])
        assert store.automations.record(NIGHTLY) == record

    def test_one_can_begin_paused(self, store: Store) -> None:
        """What begins paused is not taken."""
        store.automations.declare([NIGHTLY, INBOX], paused=[INBOX])
        assert [one.record.id for one in store.automations.take([NIGHTLY, INBOX], lease_seconds=9, limit=9)] == [
            NIGHTLY
        ]

    def test_nothing_is_known_of_what_was_never_declared(self, store: Store) -> None:
        """There is no record, nothing to take and no tick."""
        assert store.automations.record(NIGHTLY) is None
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        assert store.automations.ticks(NIGHTLY) == []

    def test_one_evaluates_at_a_time(self, store: Store, clock: SetClock) -> None:
        """A lease keeps others away until it runs out; then the first one's token is worthless."""
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
        """Of several that are due, the one that waits longest is taken first."""
        first = self.taken(store, INBOX)
        store.automations.conclude(first, Conclusion(cursor=None, due_at=START + timedelta(seconds=20)))
        second = self.taken(store, NIGHTLY)
        store.automations.conclude(second, Conclusion(cursor=None, due_at=START + timedelta(seconds=10)))
        assert store.automations.take([INBOX, NIGHTLY], lease_seconds=9, limit=2) == []
        clock.forward(30)
        taken = store.automations.take([INBOX, NIGHTLY], lease_seconds=9, limit=2)
        assert [one.record.id for one in taken] == [NIGHTLY, INBOX]

    def test_only_what_people_ask_for(self, store: Store) -> None:
        """A node without automation takes what was asked for by hand and nothing that is due by itself."""
        store.automations.declare([INBOX, NIGHTLY])
        assert store.automations.take([INBOX, NIGHTLY], lease_seconds=9, limit=2, by_hand_only=True) == []
        store.automations.request(NIGHTLY)
        (taken,) = store.automations.take([INBOX, NIGHTLY], lease_seconds=9, limit=2, by_hand_only=True)
        assert (taken.record.id, taken.by_hand) == (NIGHTLY, True)

    def test_a_renewed_lease_lasts_and_a_lost_one_stays_lost(self, store: Store, clock: SetClock) -> None:
        """Renewing prolongs a lease that is held, and no other."""
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

    def test_what_is_released_is_due_as_before(self, store: Store) -> None:
        """Giving back ends the right and moves nothing."""
        taken = self.taken(store)
        store.automations.release(taken)
        assert not store.automations.conclude(taken, Conclusion(cursor=None, due_at=None)).accepted
        assert len(store.automations.take([NIGHTLY], lease_seconds=9)) == 1

    def test_giving_back_too_late_takes_nothing_from_others(self, store: Store, clock: SetClock) -> None:
        """An old token gives nothing back."""
        late = self.taken(store, lease=1)
        clock.forward(2)
        (taken,) = store.automations.take([NIGHTLY], lease_seconds=9)
        store.automations.release(late)
        assert store.automations.conclude(taken, Conclusion(cursor=None, due_at=None)).accepted

    # --- concluding ---------------------------------------------------------------------------------------

    def test_a_conclusion_moves_everything_at_once(self, store: Store, clock: SetClock) -> None:
        """Tick, runs, cursor and due time are committed together."""
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
        """A conclusion that goes on keeps the right, the last one ends it."""
        taken = self.taken(store)
        going = Conclusion(ticks=[requested(START, "r1")], cursor="1", due_at=START, goes_on=True)
        assert store.automations.conclude(taken, going).accepted
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        last = Conclusion(cursor="2", due_at=START)
        assert store.automations.conclude(taken, last).accepted
        assert not store.automations.conclude(taken, last).accepted

    def test_going_on_prolongs_the_lease(self, store: Store, clock: SetClock) -> None:
        """Every part of an evaluation is a sign of life."""
        taken = self.taken(store, lease=60)
        clock.forward(50)
        store.automations.conclude(taken, Conclusion(cursor=None, due_at=START, goes_on=True))
        clock.forward(50)
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []

    def test_an_instant_happens_once(self, store: Store) -> None:
        """A second tick at an instant is left out with the runs it asks for; the cursor moves."""
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
        """A key that was used is left out and reported; another automation may use it."""
        for automation, run_id in ((INBOX, "r1"), (INBOX, "r2"), (NIGHTLY, "r3")):
            clock.forward(1)
            taken = self.taken(store, automation)
            done = store.automations.conclude(
                taken, Conclusion(ticks=[requested(clock.at, run_id, key="file")], cursor=None, due_at=clock.at)
            )
            assert done.known_keys == (("file",) if run_id == "r2" else ())
        assert [run.id for run in store.catalog.runs()] in (["r1", "r3"], ["r3", "r1"])
        assert [tick.state for tick in store.automations.ticks(INBOX)] == [TickState.SKIPPED, TickState.REQUESTED]

    def test_a_forgotten_run_key_triggers_again_with_a_run_of_its_own(self, store: Store, clock: SetClock) -> None:
        """What was used is listed, newest first; after it was forgotten it triggers once more."""

        def ask(key: str) -> tuple[str, ...]:
            clock.forward(1)
            ticks = [requested(clock.at, f"run of {key}", key=key)]
            taken = self.taken(store, INBOX)
            return store.automations.conclude(taken, Conclusion(ticks=ticks, cursor=None, due_at=clock.at)).run_ids

        automations = store.automations
        assert (ask("a"), ask("b"), ask("a")) == (("run of a",), ("run of b",), ())
        assert [(one.run_key, one.run_id) for one in automations.run_keys(INBOX)] == [
            ("b", "run of b"),
            ("a", "run of a"),
        ]
        assert [one.run_key for one in automations.run_keys(INBOX, limit=1)] == ["b"]
        assert [one.run_key for one in automations.run_keys(INBOX, key="a")] == ["a"]
        assert automations.run_keys(NIGHTLY) == []
        assert automations.forget_run_keys(NIGHTLY, ["a"]) == []
        assert automations.forget_run_keys(INBOX, ["never", "a", "a"]) == ["a"]
        assert [one.run_key for one in automations.run_keys(INBOX)] == ["b"]
        assert (ask("a"), ask("a"), ask("b")) == (("run of a-2",), (), ())
        assert automations.forget_run_keys(INBOX, ["a"]) == ["a"]
        assert ask("a") == ("run of a-3",)
        assert {run.id for run in store.catalog.runs()} == {"run of a", "run of b", "run of a-2", "run of a-3"}

    def test_a_key_twice_in_one_conclusion_triggers_once(self, store: Store) -> None:
        """The same holds within one conclusion."""
        taken = self.taken(store)
        done = store.automations.conclude(
            taken, Conclusion(ticks=[requested(START, "r1", "r2", key="file")], cursor=None, due_at=None)
        )
        assert done == (True, ("r1",), ("file",))

    def test_failures_and_their_errors_are_kept(self, store: Store) -> None:
        """A failed tick keeps its error, and the automation its number of failures."""
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


class SteeringTests(AutomationCase):
    """Requests by hand, pausing, cursors, ticks."""

    # --- by hand ------------------------------------------------------------------------------------------

    def test_a_request_is_due_even_while_paused(self, store: Store) -> None:
        """A request by hand is taken while paused, and moves no regular instant."""
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
        """When the lease of its evaluation runs out, the request is still there."""
        store.automations.declare([NIGHTLY], paused=[NIGHTLY])
        store.automations.request(NIGHTLY)
        store.automations.take([NIGHTLY], lease_seconds=9)
        clock.forward(10)
        assert [one.by_hand for one in store.automations.take([NIGHTLY], lease_seconds=9)] == [True]

    def test_a_request_during_an_evaluation_comes_after_it(self, store: Store) -> None:
        """A regular evaluation at work does not answer a request."""
        taken = self.taken(store)
        store.automations.request(NIGHTLY)
        store.automations.conclude(taken, Conclusion(cursor=None, due_at=None))
        assert [one.by_hand for one in store.automations.take([NIGHTLY], lease_seconds=9)] == [True]

    def test_a_tick_by_hand_stands_beside_the_regular_one(self, store: Store) -> None:
        """A tick by hand may have the instant of a regular one."""
        taken = self.taken(store)
        store.automations.conclude(taken, Conclusion(ticks=[requested(START, "r1")], cursor=None, due_at=None))
        store.automations.request(NIGHTLY)
        (taken,) = store.automations.take([NIGHTLY], lease_seconds=9)
        store.automations.conclude(taken, Conclusion(ticks=[requested(START, "r2")], cursor=None, due_at=None))
        assert [tick.run_ids for tick in store.automations.ticks(NIGHTLY)] == [("r2",), ("r1",)]

    def test_pausing_says_whether_it_changed_anything(self, store: Store) -> None:
        """Pausing twice changes nothing the second time, nor does pausing what is unknown."""
        store.automations.declare([NIGHTLY])
        assert store.automations.set_paused(NIGHTLY, paused=True)
        assert not store.automations.set_paused(NIGHTLY, paused=True)
        assert store.automations.take([NIGHTLY], lease_seconds=9) == []
        assert store.automations.set_paused(NIGHTLY, paused=False)
        assert not store.automations.set_paused(INBOX, paused=True)
        assert len(store.automations.take([NIGHTLY], lease_seconds=9)) == 1

    def test_setting_the_cursor_ends_the_evaluation_at_work(self, store: Store) -> None:
        """What a person sets is not overwritten by an evaluation that began before."""
        taken = self.taken(store)
        store.automations.set_cursor(NIGHTLY, "by hand")
        assert not store.automations.conclude(taken, Conclusion(cursor="old", due_at=None)).accepted
        (again,) = store.automations.take([NIGHTLY], lease_seconds=9)
        assert again.record.cursor == "by hand"

    # --- reading ------------------------------------------------------------------------------------------

    def test_ticks_are_notified_newest_first_and_pruned_by_age(self, store: Store, clock: SetClock) -> None:
        """Ticks of one automation or of all, newest first; old ones can be forgotten."""
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


__all__ = ["INBOX", "NIGHTLY", "START", "AutomationConformance", "SetClock", "requested"]


class AutomationConformance(EvaluatingTests, SteeringTests):
    """Tests of the automations of a store; make a subclass whose name starts with `Test`.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(AutomationConformance):
        ...     def make_store(self, now):
        ...         return MemoryStore(now=now)
    """


OTHER = INBOX._replace(name="other")


class SensorConformance(AutomationCase):
    """Tests of run keys, cursors and ticks of sensors; make a subclass whose name starts with `Test`.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(SensorConformance):
        ...     def make_store(self, now):
        ...         return MemoryStore(now=now)
    """

    def tick(self, store: Store, clock: SetClock, tick: NewTick, cursor: str | None = None) -> Concluded:
        """Evaluate the sensor once, a second after the evaluation before."""
        clock.forward(1)
        store.automations.declare([INBOX])
        (taken,) = store.automations.take([INBOX], lease_seconds=60)
        at = replace(tick, at=clock.at)
        return store.automations.conclude(taken, Conclusion(ticks=[at], cursor=cursor, due_at=clock.at))

    def skip(self, store: Store, clock: SetClock, reason: str | None, *, repeatable: bool = True) -> Concluded:
        """Evaluate the sensor once, for nothing."""
        tick = NewTick(at=clock.at, state=TickState.SKIPPED, reason=reason, repeatable=repeatable)
        return self.tick(store, clock, tick)

    def test_skips_for_one_reason_are_counted_on_one_tick(self, store: Store, clock: SetClock) -> None:
        """A sensor that finds nothing every second must not fill the tables."""
        for reason in ("a", "a", "a", "b", None, None, "a"):
            self.skip(store, clock, reason)
        ticks = store.automations.ticks(INBOX)
        assert [(tick.reason, tick.repeats) for tick in ticks] == [("a", 0), (None, 1), ("b", 0), ("a", 2)]
        assert (ticks[-1].evaluated_at - ticks[-1].at).total_seconds() == 2
        record = store.automations.record(INBOX)
        assert record is not None
        assert record.last_tick_at == clock.at

    def test_what_is_not_to_be_counted_is_recorded(self, store: Store, clock: SetClock) -> None:
        """Schedules record each of their instants."""
        for _ in range(3):
            self.skip(store, clock, "a", repeatable=False)
        assert [tick.repeats for tick in store.automations.ticks(INBOX)] == [0, 0, 0]

    def test_other_ticks_end_a_series(self, store: Store, clock: SetClock) -> None:
        """Runs, failures and evaluations by hand stand by themselves; ticks of other sensors do not matter."""
        self.skip(store, clock, "a")
        self.tick(store, clock, requested(clock.at, "r1", key="k"))
        self.skip(store, clock, "a")
        self.tick(store, clock, NewTick(at=clock.at, state=TickState.FAILED, error="it broke", repeatable=True))
        self.skip(store, clock, "a")
        store.automations.declare([OTHER])
        (taken,) = store.automations.take([OTHER], lease_seconds=9)
        skipped = NewTick(at=clock.at, state=TickState.SKIPPED, reason="a", repeatable=True)
        store.automations.conclude(taken, Conclusion(ticks=[skipped], cursor=None, due_at=None))
        self.skip(store, clock, "a")
        store.automations.request(INBOX)
        self.skip(store, clock, "a")  # by hand
        self.skip(store, clock, "a")
        found = [(tick.state.value, tick.repeats, tick.by_hand) for tick in store.automations.ticks(INBOX)]
        assert found == [
            ("skipped", 0, False),
            ("skipped", 0, True),
            ("skipped", 1, False),
            ("failed", 0, False),
            ("skipped", 0, False),
            ("requested", 0, False),
            ("skipped", 0, False),
        ]

    def test_cursor_keys_and_runs_move_together(self, store: Store, clock: SetClock) -> None:
        """What an evaluation that lost its right asked for is not there in any part."""
        self.tick(store, clock, requested(clock.at, "r1", key="k1"), cursor="1")
        clock.forward(1)
        (lost,) = store.automations.take([INBOX], lease_seconds=60)
        store.automations.set_cursor(INBOX, "0")
        tick = replace(requested(clock.at, "r2", key="k2"), partitions=[PartitionChange("files", "s:k2")])
        late = Conclusion(ticks=[tick], cursor="2", due_at=None)
        assert not store.automations.conclude(lost, late).accepted
        record = store.automations.record(INBOX)
        assert record is not None
        assert record.cursor == "0"
        assert store.catalog.run("r2") is None
        assert store.partition_keys.keys("files") == []
        again = self.tick(store, clock, replace(tick, runs=[*tick.runs]), cursor="2")
        assert (again.run_ids, again.known_keys) == (("r2",), ())
        assert store.partition_keys.keys("files") == ["s:k2"]

    def test_a_replayed_cursor_places_only_what_is_new(self, store: Store, clock: SetClock) -> None:
        """A run key triggers once, whatever cursor a person sets."""
        self.tick(store, clock, requested(clock.at, "r1", key="k1"), cursor="1")
        store.automations.set_cursor(INBOX, None)
        both = requested(clock.at, "r1", key="k1").runs, requested(clock.at, "r2", key="k2").runs
        replay = NewTick(at=clock.at, state=TickState.REQUESTED, runs=[*both[0], *both[1]])
        concluded = self.tick(store, clock, replay, cursor="2")
        assert (concluded.run_ids, concluded.known_keys) == (("r2",), ("k1",))
        nothing = self.tick(store, clock, replay, cursor="2")
        assert (nothing.run_ids, nothing.known_keys) == ((), ("k1", "k2"))
        assert [tick.state for tick in store.automations.ticks(INBOX, limit=1)] == [TickState.SKIPPED]
        assert sorted(run.id for run in store.catalog.runs()) == ["r1", "r2"]

    def test_long_run_keys_can_be_kept(self, store: Store, clock: SetClock) -> None:
        """The longest key that requests may have fits into the index, in any script."""
        for number, key in enumerate(("x" * 1000, "\U0001f4c1" * 250, "é" * 500)):
            assert self.tick(store, clock, requested(clock.at, f"r{number}", key=key)).run_ids == (f"r{number}",)
            assert self.tick(store, clock, requested(clock.at, "no", key=key)).known_keys == (key,)
