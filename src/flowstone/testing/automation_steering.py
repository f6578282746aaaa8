"""Conformance of stores: what people do to automations, and what they read."""

from __future__ import annotations

from flowstone.core.automation.record import Conclusion, NewTick, TickState
from flowstone.protocols import Store
from flowstone.testing.automation_case import INBOX, NIGHTLY, START, AutomationCase, SetClock, requested


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
