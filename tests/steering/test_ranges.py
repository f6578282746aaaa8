"""Large backfills, which are kept as ranges: the same promises as for steps that are rows from the start."""

from __future__ import annotations

import signal

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew, max_at_once

from flowstone.app import driving
from flowstone.core.state import State
from flowstone.errors import UnknownPartitionError


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """From how many partitions a backfill is kept as ranges: two, or what the test is given."""
    monkeypatch.setattr(driving, "LARGE", getattr(request, "param", 2))


of_both_kinds = pytest.mark.parametrize("large", [2, 1000], indirect=True, ids=["ranges", "steps"])
"""For promises that do not depend on how a backfill is kept."""


def steps_made(crew: Crew) -> int:
    return crew.rows("SELECT count(*) FROM flowstone.steps")[0][0]


def unstarted(crew: Crew) -> list[tuple[int, int, bool]]:
    return crew.rows("SELECT begun, total, is_open FROM flowstone.ranges ORDER BY id")


def strip_of(crew: Crew, run: str) -> list[tuple[str, int]]:
    """The states of a backfill's partitions in their order."""
    (strip,) = crew.flow.insights.run(run).strips
    return strip.pairs


def test_it_costs_no_steps_until_a_worker_begins_them(whole: Crew) -> None:
    run = whole.place_many("quick", 20)
    assert (steps_made(whole), unstarted(whole)) == (0, [(0, 20, True)])
    assert whole.flow.runs.get(run).counts == {State.PENDING: 20}
    assert whole.flow.runs.get(run).state is State.RUNNING
    whole.lease()
    taken = whole.take(demand=7)
    assert [job.partition_key for job in taken] == [f"s:{key}" for key in ITEMS[:7]]
    assert all(0 < (job.queued_seconds or 0) < 60 for job in taken)
    assert whole.flow.runs.get(run).counts == {State.PENDING: 13, State.RUNNING: 7}
    (listed,) = whole.flow.insights.runs("kind:backfill").items
    assert (listed.counts.total, listed.counts.running, listed.counts.waiting) == (20, 7, 13)
    assert listed.partitions.endswith("(20)")
    assert strip_of(whole, run) == [("running", 7), ("unstarted", 13)]
    changed = whole.flow.runs.set_window(run, 9)
    assert (changed.max_concurrency, whole.flow.runs.set_priority(run, 2).priority) == (9, 2)
    assert whole.rows("SELECT DISTINCT priority FROM flowstone.ranges") == [(2,)]
    whole.store.ledger.release(taken, reason="by hand")
    whole.start(2)
    whole.wait_over([run])
    assert sorted(event.key for event in whole.events("end", "quick")) == ITEMS[:20]
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 20}
    assert strip_of(whole, run) == [("completed", 20)]
    assert unstarted(whole) == [(20, 20, False)]


@of_both_kinds
def test_a_window_holds_over_the_fleet(whole: Crew) -> None:
    whole.start(2, queues={"backfill": 4})
    run = whole.place_many("gated", 12, max_concurrency=3)
    whole.wait_event("start", "gated", count=3)
    whole.keep_out([run])
    assert len(whole.events("start", "gated")) == 3
    whole.open_gate(*ITEMS[:12])
    whole.wait_over([run])
    assert max_at_once(whole.events(asset="gated")) == 3
    assert whole.rows("SELECT active_steps FROM flowstone.runs WHERE id = %s", run) == [(0,)]


def test_what_is_committed_is_reused_and_what_is_under_way_is_joined(whole: Crew) -> None:
    whole.start(queues={"backfill": 4, "assets": 4})
    whole.open_gate(ITEMS[0])
    whole.wait_over([whole.place_step("gated", ITEMS[0])])
    other = whole.place_step("gated", ITEMS[1])
    whole.wait_event("start", "gated", count=2)
    run = whole.place_many("gated", 4)
    whole.wait_event("start", "gated", count=4)  # two of its own
    assert whole.flow.runs.get(run).counts == {State.REUSED: 1, State.RUNNING: 3}
    whole.open_gate(*ITEMS[1:4])
    whole.wait_over([run, other])
    assert len(whole.events("start", "gated")) == 4
    assert whole.flow.runs.get(run).counts == {State.REUSED: 1, State.COMPLETED: 3}


def test_a_backfill_of_what_is_there_ends_at_once(whole: Crew) -> None:
    whole.start()
    whole.wait_over([whole.place_many("quick", 30)])
    again = whole.flow.backfill("quick", partitions=ITEMS[:30], executor_opts={"wait_timeout": 20.0})
    assert (again.state, again.reused, again.total) == ("completed", 30, 30)
    forced = whole.flow.backfill("quick", partitions=ITEMS[:30], force=True, executor_opts={"wait_timeout": 20.0})
    assert (forced.succeeded, len(whole.events("end", "quick"))) == (30, 60)


@of_both_kinds
def test_cancelling_ends_what_nobody_has_begun(whole: Crew) -> None:
    whole.start(queues={"backfill": 2})
    run = whole.place_many("gated", 10)
    whole.wait_event("start", "gated", count=2)
    whole.flow.runs.cancel(run)
    whole.wait_over([run])
    assert whole.flow.runs.get(run).counts == {State.CANCELLED: 10}
    assert len(whole.events("start", "gated")) == 2
    whole.open_gate(*ITEMS[:10])
    retried = whole.flow.runs.retry(run, executor_opts={"wait_timeout": 20.0})
    assert (retried.total, retried.succeeded) == (10, 10)


def test_a_paused_one_begins_nothing(whole: Crew) -> None:
    whole.start(queues={"backfill": 2})
    run = whole.place_many("gated", 6)
    whole.wait_event("start", "gated", count=2)
    whole.flow.runs.pause(run)
    whole.open_gate(*ITEMS[:6])
    whole.wait_event("end", "gated", count=2)
    whole.keep_out([run])
    assert len(whole.events("start", "gated")) == 2
    assert whole.flow.why("gated", ITEMS[5])[0].startswith(f"its run {run} is paused")
    whole.flow.runs.resume(run)
    whole.wait_over([run])
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 6}


def test_attempts_that_fail_or_are_lost_go_on_over_the_queue(whole: Crew) -> None:
    worker = whole.start(queues={"backfill": 3})[0]
    (whole.directory / f"break-{ITEMS[0]}").touch()
    run = whole.place_many("gated", 6)
    whole.wait_event("start", "gated", count=3)
    worker.signal(signal.SIGKILL)
    worker.wait_exit()
    whole.open_gate(*ITEMS[:6])
    whole.start(queues={"backfill": 3})
    whole.wait_over([run])
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 6}
    assert {event.key for event in whole.events("start", "gated") if event.attempt == 2} <= set(ITEMS[:6])


def test_urgent_work_on_the_same_queue_overtakes(whole: Crew) -> None:
    run = whole.place_many("gated", 50)
    urgent = whole.flow.backfill(
        "fragile", partitions=ITEMS[:1], priority=1, executor_opts={"wait_timeout": 0.001}
    ).run_id
    whole.lease()
    assert [job.run_id for job in whole.take(demand=3)] == [urgent, run, run]
    assert [job.run_id for job in whole.take(demand=2)] == [run, run]
    whole.flow.runs.cancel(urgent)
    whole.flow.runs.cancel(run)
    held = whole.store.queue.held("hand")
    whole.store.ledger.release(held)


def test_backfills_take_turns(whole: Crew) -> None:
    runs = [whole.place_many("gated", 50), whole.place_many("quick", 50)]
    whole.lease()
    begun = {job.run_id for _ in range(40) for job in whole.take(demand=1)}
    assert begun == set(runs)  # the chance that only one was served is 2 ** -39
    for run in runs:
        whole.flow.runs.cancel(run)
    whole.store.ledger.release(whole.store.queue.held("hand"))


def test_a_partition_that_does_not_exist_leaves_nothing_behind(whole: Crew) -> None:
    with pytest.raises(UnknownPartitionError):
        whole.flow.backfill("quick", partitions=[*ITEMS[:5], "nowhere"])
    assert whole.flow.runs.latest() == []
    assert unstarted(whole) == []


def test_the_same_run_id_again_is_the_same_run(whole: Crew) -> None:
    assert whole.place_many("quick", 5, run_id="mine") == "mine"
    assert whole.place_many("quick", 5, run_id="mine") == "mine"
    assert unstarted(whole) == [(0, 5, True)]
    whole.start()
    whole.wait_over(["mine"])
    assert whole.flow.runs.get("mine").total == 5


def test_why_names_the_run_in_which_a_partition_waits(whole: Crew) -> None:
    run = whole.place_many("quick", 5)
    message = whole.flow.why("quick", ITEMS[3])[0]
    assert run in message
    assert "3 partitions" in message
    whole.flow.runs.cancel(run)
