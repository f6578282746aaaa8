"""Steps of backfills and retries, which workers begin without jobs: the promises of steps that have them.

What holds for large backfills too is in `test_ranges`.
"""

from __future__ import annotations

import signal

from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew
from tests.stores.conformance.case import succeeded

from flowstone.core.state import State
from flowstone.core.step import AttemptResult


def jobs(crew: Crew) -> int:
    return crew.rows("SELECT count(*) FROM public.oban_jobs WHERE worker LIKE 'flowstone%%'")[0][0]


def job_ids(crew: Crew) -> list[int]:
    return [row[0] for row in crew.rows("SELECT job_id FROM flowstone.steps ORDER BY id")]


def test_a_backfill_with_edges_writes_no_jobs(crew: Crew) -> None:
    run = crew.place_many("fragile or after", 5)
    assert set(job_ids(crew)) == {0}
    crew.start(2)
    crew.wait_over([run])
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 10}
    assert jobs(crew) == 0
    assert all(job_id < 0 for job_id in job_ids(crew))


def test_how_long_they_waited_for_a_worker_is_known(crew: Crew) -> None:
    """As it is of steps with jobs; of what waited for inputs, since the last of them was there."""
    crew.lease()
    crew.place_many("fragile or after", 2)
    crew.execute("UPDATE flowstone.steps SET placed_at = placed_at - interval '1 hour'")
    first = crew.take()
    assert [one.asset for one in first] == ["fragile"] * 2
    assert all(3600 <= (one.queued_seconds or 0) < 3700 for one in first)
    now = first[0].started_at
    crew.store.ledger.commit([AttemptResult(one, succeeded(one), (), now) for one in first])
    crew.execute("UPDATE flowstone.steps SET ready_at = ready_at - interval '1 minute' WHERE asset = 'after'")
    second = crew.take()
    assert [one.asset for one in second] == ["after"] * 2
    assert all(60 <= (one.queued_seconds or 0) < 120 for one in second)


def test_queues_count_what_waits_and_what_runs(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile", 5)
    crew.take(demand=2)
    (queue,) = [one for one in crew.flow.queues.list() if one.name == "backfill"]
    assert (queue.available, queue.executing) == (3, 2)
    (shown,) = [one for one in crew.flow.insights.queues().items if one.name == "backfill"]
    assert (shown.unstarted, shown.running) == (3, 2)


def test_a_window_can_be_given_at_any_time(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("fragile", 10)
    first = crew.take(demand=4)
    assert len(first) == 4
    assert crew.flow.runs.set_window(run, 5).max_concurrency == 5
    assert len(crew.take(demand=10)) == 1
    assert crew.take(demand=10) == []
    crew.store.ledger.release(first, reason="by hand")
    # they have jobs now, and are placed: the window stays full
    assert jobs(crew) == 4
    assert sorted(one.step_id for one in crew.take(demand=10)) == sorted(one.step_id for one in first)


def test_the_most_urgent_comes_first_and_a_request_that_joins_overtakes(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile", 6)
    joined = crew.place_step("fragile", ITEMS[4])
    assert [one.partition_key for one in crew.take(demand=2)] == [f"s:{ITEMS[4]}", f"s:{ITEMS[0]}"]
    assert crew.flow.runs.get(joined).state is State.RUNNING


def test_pausing_stops_beginning_at_once(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("fragile", 4)
    crew.flow.runs.pause(run)
    assert crew.take(demand=4) == []
    crew.flow.runs.resume(run)
    crew.flow.queues.pause("backfill")
    assert crew.take(demand=4) == []
    crew.flow.queues.resume("backfill")
    assert len(crew.take(demand=4)) == 4


def test_a_killed_worker_leaves_steps_that_others_go_on_with(crew: Crew) -> None:
    worker = crew.start(queues={"backfill": 3})[0]
    run = crew.place_many("gated", 6)
    crew.wait_event("start", "gated", count=3)
    worker.signal(signal.SIGKILL)
    worker.wait_exit()
    crew.open_gate(*ITEMS[:6])
    crew.start(queues={"backfill": 3})
    crew.wait_over([run])
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 6}


def test_two_backfills_take_turns(crew: Crew) -> None:
    crew.lease()
    first, second = crew.place_many("fragile", 40), crew.place_many("quick", 40)
    taken = {one.run_id for _ in range(40) for one in crew.take(demand=1)}
    assert taken == {first, second}, "chance chooses the run of each fetch: one alone with 2 ** -39"
