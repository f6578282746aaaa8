"""What every store must mean by the conclusions of sensors, as tests to run on yours."""

from __future__ import annotations

from dataclasses import replace

from flowstone.core.automation.record import Concluded, Conclusion, NewTick, PartitionChange, TickState
from flowstone.protocols import Store
from flowstone.testing.automation_case import INBOX, AutomationCase, SetClock, requested

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
