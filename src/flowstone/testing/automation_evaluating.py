"""Conformance of stores: taking automations, and concluding their evaluations."""

from __future__ import annotations

from datetime import timedelta

from flowstone.core.automation.record import Conclusion, NewTick, TickState
from flowstone.protocols import Store
from flowstone.testing.automation_case import INBOX, NIGHTLY, START, AutomationCase, SetClock, requested


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
