"""Steps that begin with the commit of their last input: what they keep of the promises of those that wait."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew
from tests.stores.conformance.case import succeeded

from flowstone.core.outcome import WORKER_LOST
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, BegunStep, WorkerRoom
from flowstone.sql import load_sql

ROOM = WorkerRoom("hand", {"backfill": 100})
IDLE = WorkerRoom("hand", {"backfill": 100}, frozenset({"backfill"}))


def commit(crew: Crew, attempts: Sequence[Attempt], room: WorkerRoom | None = ROOM) -> list[BegunStep]:
    """Commit attempts as a worker with some room does; return what began with it."""
    ended = [AttemptResult(one, succeeded(one), (), one.started_at) for one in attempts]
    committed = crew.store.ledger.commit(ended, room=room)
    assert all(one.accepted for one in committed)
    return [begun for one in committed for begun in one.begun]


def states(crew: Crew, asset: str = "after") -> list[tuple[str, int, bool]]:
    """Return state, attempts and whether it runs without a job, of each step of an asset."""
    return crew.rows("SELECT state, attempt, job_id < 0 FROM flowstone.steps WHERE asset = %s ORDER BY id", asset)


def test_what_is_released_begins_with_the_commit(crew: Crew) -> None:
    """As a fetch would have begun it: with an attempt, a token and everything that the worker has to know."""
    crew.lease()
    run = crew.place_many("fragile or after", 3)
    first = crew.take()
    begun = commit(crew, first)
    assert states(crew) == [("running", 1, True)] * 3
    assert {one.queue for one in begun} == {"backfill"}
    attempts = [one.attempt for one in begun]
    assert [one.partition_key for one in attempts] == [one.partition_key for one in first]
    known = crew.rows(
        "SELECT id, token, started_at, -job_id FROM flowstone.steps WHERE asset = 'after' ORDER BY id"
    )
    assert known == [(one.step_id, one.token, one.started_at, one.step_id) for one in attempts]
    roots = crew.rows("SELECT shapes ->> 'after', keys ->> 'after', deps_timeout_seconds FROM flowstone.runs")
    for one in attempts:
        assert (one.run, one.run_id, one.job_id) == (first[0].run, run, -one.step_id)
        assert [(one.shape, one.keys, one.deps_timeout_seconds)] == roots
    assert crew.take() == []
    assert commit(crew, attempts) == []
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 6}


def test_what_there_is_no_room_for_waits_to_be_fetched(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 4)
    begun = commit(crew, crew.take(), WorkerRoom("hand", {"backfill": 3, "assets": 9}))
    assert [one.attempt.partition_key for one in begun] == [f"s:{item}" for item in ITEMS[:3]]
    assert [one.partition_key for one in crew.take()] == [f"s:{ITEMS[3]}"]


@pytest.mark.parametrize("room", [None, WorkerRoom("hand", {"assets": 9}), WorkerRoom("nobody", {"backfill": 9})])
def test_without_room_or_lease_nothing_begins(crew: Crew, room: WorkerRoom | None) -> None:
    crew.lease()
    crew.place_many("fragile or after", 2)
    assert commit(crew, crew.take(), room) == []
    assert states(crew) == [("pending", 0, False)] * 2
    assert len(crew.take()) == 2


def test_another_run_on_the_queue_is_not_kept_waiting(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 2)
    first = crew.take()
    crew.place_many("quick", 1)
    assert commit(crew, first) == []
    assert states(crew) == [("pending", 0, False)] * 2


def test_a_job_on_the_queue_is_not_kept_waiting(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 2)
    first = crew.take()
    crew.place_step("quick", ITEMS[0], executor_opts={"queue": "backfill"})
    assert commit(crew, first) == []


def test_a_large_backfill_on_the_queue_is_not_kept_waiting(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 1)
    first = crew.take()
    crew.place_many("quick", 3)
    crew.execute("DELETE FROM flowstone.steps WHERE asset = 'quick'")
    crew.execute(
        "INSERT INTO flowstone.ranges (run_id, asset, partitions, total, queue, priority, max_attempts, forced)"
        " VALUES ('other', 'quick', '{s:a}', 1, 'backfill', 8, 1, false)"
    )
    assert commit(crew, first) == []


def test_what_is_more_urgent_in_the_same_run_comes_first(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 4)
    first = crew.take(demand=2)
    crew.execute("UPDATE flowstone.steps SET priority = 1 WHERE asset = 'fragile' AND state = 'pending'")
    assert commit(crew, first[:1]) == []
    assert [one.asset for one in crew.take(demand=2)] == ["fragile"] * 2
    assert [one.attempt.asset for one in commit(crew, first[1:])] == ["after"]


def test_beside_others_of_the_run_only_a_worker_that_takes_ahead_begins(crew: Crew) -> None:
    """Of long steps, what waits is just being fetched for the same place."""
    crew.lease()
    crew.place_many("fragile or after", 4)
    first = crew.take(demand=2)
    assert commit(crew, first[:1], IDLE) == []
    assert len(crew.take()) == 3
    assert [one.attempt.asset for one in commit(crew, first[1:], IDLE)] == ["after"]


def test_a_pause_holds(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("fragile or after", 2)
    first = crew.take()
    crew.flow.runs.pause(run)
    assert commit(crew, first[:1]) == []
    crew.flow.runs.resume(run)
    crew.flow.queues.pause("backfill")
    assert commit(crew, first[1:]) == []
    crew.flow.queues.resume("backfill")
    assert len(crew.take()) == 2


def test_a_window_holds(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 2, max_concurrency=1)
    assert commit(crew, crew.take()) == []
    assert crew.rows("SELECT active_steps FROM flowstone.runs") == [(0,)]
    assert len(crew.take()) == 1


def test_a_step_with_an_input_left_waits(crew: Crew) -> None:
    crew.lease()
    crew.place_many("fragile or after", 1)
    crew.execute("UPDATE flowstone.steps SET waiting_on = 2 WHERE asset = 'after'")
    assert commit(crew, crew.take()) == []
    assert states(crew) == [("waiting", 0, False)]


def jobs(crew: Crew, asset: str = "after") -> list[tuple[str, int, int, bool]]:
    """Return state, attempt, maximum of attempts and whether it names the worker, of the jobs of an asset."""
    return crew.rows(
        "SELECT j.state::text, j.attempt, j.max_attempts,"
        " j.attempted_by = ARRAY['here', 'hand'] AND j.attempted_at IS NOT NULL FROM oban_jobs AS j"
        " JOIN flowstone.steps AS s ON s.job_id = j.id WHERE s.asset = %s ORDER BY j.id",
        asset,
    )


JOBS_ROOM = WorkerRoom("hand", {"assets": 9}, frozenset({"assets"}))


def test_a_step_with_a_job_begins_so_too_and_oban_sees_it_at_work(crew: Crew) -> None:
    crew.lease()
    run = crew.place("after", ITEMS[0])
    (begun,) = commit(crew, crew.take("assets"), JOBS_ROOM)
    assert begun.queue == "assets"
    assert begun.attempt.job_id > 0
    assert jobs(crew) == [("executing", 1, 1, True)]
    assert crew.take("assets") == []
    assert commit(crew, [begun.attempt], JOBS_ROOM) == []
    assert jobs(crew) == [("completed", 1, 1, True)]
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 2}


def test_released_unused_its_job_waits_for_a_worker(crew: Crew) -> None:
    crew.lease()
    crew.place("after", ITEMS[0])
    (begun,) = commit(crew, crew.take("assets"), JOBS_ROOM)
    assert crew.store.ledger.release([begun.attempt], reason="its worker stopped") == [begun.attempt.step_id]
    assert jobs(crew) == [("available", 0, 1, True)]
    (again,) = crew.take("assets")
    assert (again.step_id, again.attempt, again.job_id) == (begun.attempt.step_id, 1, begun.attempt.job_id)
    assert again.token > begun.attempt.token


def test_a_cancel_by_tools_of_oban_reaches_it(crew: Crew) -> None:
    crew.lease()
    crew.place("after", ITEMS[0])
    (begun,) = commit(crew, crew.take("assets"), JOBS_ROOM)
    crew.execute("UPDATE oban_jobs SET state = 'cancelled', cancelled_at = now() WHERE state = 'executing'")
    assert crew.store.queue.follow_cancels([begun.attempt.job_id]) == 1
    assert states(crew) == [("cancelling", 1, False)]


@pytest.mark.parametrize(
    "hindrance",
    [
        "UPDATE flowstone.steps SET limits = '{\"crane\": 2}' WHERE asset = 'after'",
        "UPDATE flowstone.steps SET scheduled_at = now() + interval '1 hour' WHERE asset = 'after'",
        "UPDATE flowstone.runs SET paused = true",
        "UPDATE flowstone.runs SET max_concurrency = 5",
    ],
)
def test_what_needs_more_than_a_place_does_not_begin_so(crew: Crew, hindrance: str) -> None:
    crew.lease()
    crew.place("after", ITEMS[0])
    first = crew.take("assets")
    crew.execute(hindrance)
    assert commit(crew, first, JOBS_ROOM) == []
    assert jobs(crew) == [] or jobs(crew)[0][0] in ("available", "scheduled")


def same_transaction(crew: Crew) -> bool:
    """Whether what came after began in the very transaction that committed its input."""
    rows = crew.rows("SELECT DISTINCT xmin::text FROM flowstone.steps WHERE asset IN ('fragile', 'gated_after')")
    return len(rows) == 1


def test_a_worker_goes_on_with_what_it_committed(crew: Crew) -> None:
    crew.start()
    run = crew.place_many("fragile or gated_after", 1)
    crew.wait_event("start", "gated_after")
    assert same_transaction(crew)
    crew.open_gate(ITEMS[0])
    crew.wait_over([run])
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 2}


def test_a_worker_that_stops_lets_it_end(crew: Crew) -> None:
    """Oban waits for what it has taken itself; this it has not."""
    (worker,) = crew.start(FAULTS_GRACE="60")
    run = crew.place_many("fragile or gated_after", 1)
    crew.wait_event("start", "gated_after")
    assert same_transaction(crew)
    worker.signal(signal.SIGTERM)
    crew.wait(lambda: "Stopping" in worker.message, "the worker did not begin to stop")
    crew.open_gate(ITEMS[0])
    assert worker.wait_exit() == 0
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 2}
    assert states(crew, "gated_after") == [("completed", 1, True)]


def test_a_killed_worker_leaves_it_to_others(crew: Crew) -> None:
    (worker,) = crew.start()
    crew.place_many("fragile or gated_after", 1)
    crew.wait_event("start", "gated_after")
    assert same_transaction(crew)
    worker.signal(signal.SIGKILL)
    worker.wait_exit()
    crew.start()
    crew.open_gate(ITEMS[0])
    crew.wait(lambda: states(crew, "gated_after")[0][0] == "failed", "the lost attempt was not ended")
    lost = crew.rows("SELECT attempt, error_type FROM flowstone.attempts WHERE state = 'failed'")
    assert lost == [(1, WORKER_LOST)], "a loss uses up the attempt, as ever"


@pytest.mark.parametrize("statement", ["release", "release_here", "finish"])
def test_a_commit_reads_the_steps_that_it_writes_and_no_others(crew: Crew, statement: str) -> None:
    """However many wait, are ready or run elsewhere, and while the planner has not counted them."""
    crew.lease()
    _insert(crew, "over", 200, "'completed'")
    crew.execute("ANALYZE flowstone.steps")
    run = crew.place_many("fragile or after", 4)
    _insert(crew, run, 4500, "CASE n %% 3 WHEN 0 THEN 'pending' WHEN 1 THEN 'running' ELSE 'waiting' END")
    children = [row[0] for row in crew.rows("SELECT id FROM flowstone.steps WHERE state = 'waiting' LIMIT 600")]
    running = crew.rows("SELECT id, token FROM flowstone.steps WHERE state = 'running' LIMIT 100")
    how = {"state": "completed", "releases": False, "finished_at": "2024-01-01"}
    ended = [{"id": step, "token": token} | how for step, token in running]
    parameters = {"children": children, "inputs": [1] * len(children), "runs": [run], "queues": ["backfill"]}
    parameters |= {"rooms": [100], "idle": [True], "worker_id": "hand", "rows": json.dumps(ended)}
    parameters |= {"payload_steps": [], "versions": [], "payloads": []}
    with crew.store.database.transaction() as connection:
        plan = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + load_sql(statement), parameters).fetchone()
        connection.execute("ROLLBACK")
    assert plan is not None
    max_rows = len(ended) if statement == "finish" else len(children)
    scans = [node for node in nodes_of(plan[0][0]["Plan"]) if node.get("Relation Name") == "steps"]
    reads = [node for node in scans if "Scan" in node["Node Type"]]
    assert reads
    for scan in reads:
        assert scan["Actual Rows"] * scan["Actual Loops"] <= max_rows, scan
        assert scan.get("Rows Removed by Filter", 0) * scan["Actual Loops"] <= max_rows, scan


def _insert(crew: Crew, run: str, number: int, state: str) -> None:
    crew.execute(
        "INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, max_attempts, job_id,"
        " worker, created_at, started_at, finished_at)"
        f" SELECT nextval('flowstone.step_ids'), %s, 'quick', 's:' || n, {state}, 9, 'backfill', 1, 0,"
        f" 'other', now(), now(), CASE WHEN {state} = 'completed' THEN now() END FROM generate_series(1, %s) AS n",
        run,
        number,
    )


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes_of(part)
