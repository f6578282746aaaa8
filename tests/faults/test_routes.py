"""Workers that are killed around a decision: it is made once, by the attempt that commits."""

from __future__ import annotations

from tests.faults.fault_app import ITEMS
from tests.faults.fleet import Fleet

from flowstone.testing.injection import AFTER_STORE

LOST_ONCE = [(1, "failed", "WorkerLost"), (2, "completed", None)]


def test_a_decision_that_was_not_committed_is_made_anew(fleet: Fleet) -> None:
    """The first attempt stored its choice, and its worker died: nobody ever acted on that."""
    fleet.open_gate(ITEMS[0])
    fleet.kill_points.arm(AFTER_STORE, "fork")
    fleet.start(2)
    run = fleet.flow.materialize_all("meeting", partition=ITEMS[0])
    assert run.value == {ITEMS[0]: [2, None]}
    assert fleet.attempts("fork") == LOST_ONCE
    assert fleet.attempts("near") == fleet.attempts("meeting") == [(1, "completed", None)]
    assert (fleet.states("far"), fleet.events("start", "far")) == (["skipped"], [])
    assert len(fleet.events("start", "near")) == 1


def test_a_decision_that_was_committed_holds(fleet: Fleet) -> None:
    """The branch runs again with its worker gone, and the one that decided is not asked again."""
    (worker,) = fleet.start()
    run = fleet.place("meeting", ITEMS[1])
    fleet.wait_event("start", "far")
    worker.kill()
    fleet.start()
    fleet.wait_event("start", "far", count=2)
    fleet.open_gate(ITEMS[1])
    fleet.wait_over([run])
    assert fleet.flow.load("meeting", partition=ITEMS[1]) == [None, 1]
    assert fleet.attempts("fork") == [(1, "completed", None)]
    assert fleet.attempts("far") == LOST_ONCE
    assert (fleet.states("near"), fleet.events("start", "near")) == (["skipped"], [])
    again = fleet.flow.materialize_all("meeting", partition=ITEMS[1], force=True)
    assert (again.value, len(fleet.events("start", "fork"))) == ({ITEMS[1]: [None, 1]}, 1)


def test_a_decision_whose_transaction_was_cut_off_releases_and_skips_nobody(fleet: Fleet) -> None:
    """The worker dies inside the completing transaction, when it has inserted the job of the chosen branch."""
    fleet.open_gate(ITEMS[2])
    fleet.execute(
        """CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.args ->> 'asset' = 'far' THEN PERFORM pg_advisory_xact_lock_shared(42); END IF;
            RETURN NEW; END $$"""
    )
    fleet.execute("CREATE TRIGGER hold AFTER INSERT ON oban_jobs FOR EACH ROW EXECUTE FUNCTION hold()")
    (worker,) = fleet.start()
    with fleet.holding_lock(42):
        run = fleet.place("meeting", ITEMS[2])
        fleet.wait(fleet.waiting_for_lock, "the committing transaction to wait")
        worker.kill()
    fleet.wait(lambda: fleet.states("fork") == ["running"], "the transaction to be rolled back")
    assert (fleet.states("near"), fleet.states("far")) == (["waiting"], ["waiting"])
    fleet.start()
    fleet.wait_over([run])
    assert fleet.flow.load("meeting", partition=ITEMS[2]) == [2, None]
    assert (fleet.states("near"), fleet.states("far")) == (["completed"], ["skipped"])
    assert fleet.events("start", "far") == []
