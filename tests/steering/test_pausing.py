"""Pause, resume, resize and retry, with real workers."""

from __future__ import annotations

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew, max_at_once

from flowstone.core.state import State


@pytest.mark.parametrize("width", [None, 3])
def test_a_paused_run_starts_nothing_and_goes_on(whole: Crew, width: int | None) -> None:
    whole.start(queues={"backfill": 3})
    run = whole.place_many("gated", 8, max_concurrency=width)
    whole.wait_event("start", "gated", count=3)
    assert whole.flow.runs.pause(run).paused
    whole.open_gate(*ITEMS[:8])
    whole.wait_event("end", "gated", count=3)
    whole.keep_out([run])
    assert len(whole.events("start", "gated")) == 3
    assert whole.flow.runs.pause(run).paused  # twice is fine
    assert whole.flow.why("gated", ITEMS[7])[0].startswith(f"its run {run} is paused")

    assert not whole.flow.runs.resume(run).paused
    whole.wait_over([run])
    assert sorted(event.key for event in whole.events("end", "gated")) == ITEMS[:8]
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 8}
    assert whole.rows("SELECT active_steps FROM flowstone.runs WHERE id = %s", run) == [(0,)]


def test_what_is_released_while_a_run_is_paused_waits_for_its_end(whole: Crew) -> None:
    whole.start(queues={"backfill": 4})
    (whole.directory / "hold-i0000").touch()
    run = whole.place_many("fragile or after", 1)
    whole.wait_event("start", "fragile")
    whole.flow.runs.pause(run)
    whole.open_gate("i0000")
    whole.wait_event("end", "fragile")
    whole.wait(lambda: whole.states("after") == ["pending"], "the release")
    whole.keep_out([run])
    assert whole.events("start", "after") == []
    whole.flow.runs.resume(run)
    whole.wait_over([run])
    assert whole.flow.load("after", partition="i0000") == "I0000"


def test_cancelling_a_paused_run_ends_it(whole: Crew) -> None:
    run = whole.place_many("gated", 5, max_concurrency=2)
    whole.flow.runs.pause(run)
    assert whole.flow.runs.cancel(run).state is State.CANCELLED
    assert whole.flow.runs.resume(run).state is State.CANCELLED


def test_a_paused_queue_holds_for_workers_that_start_later(whole: Crew) -> None:
    whole.start(queues={"assets": 2, "backfill": 2})
    whole.flow.queues.pause("assets")
    run = whole.place_step("gated", ITEMS[0])
    whole.open_gate(ITEMS[0])
    whole.keep_out([run])
    whole.start(queues={"assets": 2, "elsewhere": 2})
    whole.flow.materialize("elsewhere", partition=ITEMS[0])
    assert whole.events("start", "gated") == []
    assert "the queue 'assets' is paused" in whole.flow.why("gated", ITEMS[0])[0]
    listed = {queue.name: queue for queue in whole.flow.queues.list()}
    assert (listed["assets"].paused, listed["assets"].available) == (True, 1)
    whole.flow.queues.resume("assets")
    whole.wait_over([run])


def limits_of_producers(crew: Crew) -> set[int]:
    rows = crew.rows("SELECT meta ->> 'local_limit' FROM oban_producers WHERE queue = 'backfill'")
    return {int(row[0] or 0) for row in rows}


def test_a_queue_is_resized(whole: Crew) -> None:
    whole.start(queues={"backfill": 2})
    run = whole.place_many("gated", 8)
    whole.wait_event("start", "gated", count=2)
    whole.flow.queues.scale("backfill", 4)
    whole.wait_event("start", "gated", count=4)
    whole.flow.queues.scale("backfill", 1)
    whole.wait(lambda: limits_of_producers(whole) == {1}, "the smaller limit")
    whole.open_gate(*ITEMS[:4])
    whole.wait_event("end", "gated", count=4)
    whole.open_gate(*ITEMS[4:8])
    whole.wait_over([run])
    later = [event for event in whole.events(asset="gated") if event.key >= ITEMS[4]]
    assert max_at_once(later) == 1
    (later_worker,) = whole.start(queues={"backfill": 2})
    whole.wait(lambda: limits_of_producers(whole) == {1}, "a new worker to follow")
    assert later_worker.alive
    (queue,) = [one for one in whole.flow.queues.list() if one.name == "backfill"]
    assert (queue.node_limit, queue.is_scaled, queue.declared_limits) == (1, True, (2,))
    whole.flow.queues.scale("backfill", None)
    whole.wait(lambda: limits_of_producers(whole) == {2}, "what the workers declare")
    assert not any(one.is_scaled for one in whole.flow.queues.list())


def test_retry_runs_what_was_not_done_and_only_that(whole: Crew) -> None:
    whole.start(queues={"backfill": 4, "assets": 4})
    for name in ("break-i0000", "break-i0001", "hold-i0002"):
        (whole.directory / name).touch()
    run = whole.place_many("fragile or after", 4)
    whole.wait(lambda: "i0002" in {one.key for one in whole.events("start", "fragile")}, "the one to cancel")
    step = next(
        one for one in whole.flow.runs.steps(run) if (one.asset, one.partition_key[-5:]) == ("fragile", "i0002")
    )
    assert whole.flow.cancel_job(step.id) is State.CANCELLING
    whole.wait_over([run])
    old = whole.flow.runs.get(run)
    assert old.counts == {State.COMPLETED: 2, State.FAILED: 2, State.CANCELLED: 1, State.UPSTREAM_FAILED: 3}

    for name in ("break-i0000", "break-i0001", "hold-i0002"):
        (whole.directory / name).unlink()
    seen = len(whole.events())
    again = whole.flow.runs.retry(run)
    assert again.ok
    assert (again.total, again.succeeded, again.record.retry_of) == (6, 6, run)
    ran = {(one.asset, one.key) for one in whole.events()[seen:]}
    assert ran == {(name, key) for name in ("fragile", "after") for key in ITEMS[:3]}
    assert {one.queue for one in whole.flow.runs.steps(again.run_id)} == {"backfill"}
    assert whole.flow.runs.get(run).state is State.FAILED
    assert whole.flow.runs.retry(again.run_id).total == 0


def test_a_retry_forces_what_was_forced(crew: Crew) -> None:
    flow = crew.flow
    keys = ITEMS[:2]
    assert flow.backfill("fragile", partitions=keys, executor="sync").ok
    (crew.directory / "break-i0001").touch()
    failed = flow.backfill("fragile", partitions=keys, executor="sync", force=True)
    assert (failed.succeeded, failed.failed) == (1, 1)
    (crew.directory / "break-i0001").unlink()
    again = flow.runs.retry(failed.run_id, executor="sync")
    assert (again.total, again.succeeded, again.reused) == (1, 1, 0)
