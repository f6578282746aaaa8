"""Oban's table belongs to others too: their rows are left alone, and what people do with its tools is followed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from tests.faults.fault_app import ITEMS
from tests.faults.fleet import check
from tests.steering.crew import Crew
from tests.steering.test_begun_at_commit import nodes_of

from flowstone.core.outcome import Failed, Skipped
from flowstone.core.state import State
from flowstone.core.step import AttemptResult
from flowstone.sql import load_sql
from flowstone.stores.postgres.oban_jobs import EXPIRY_WORKER, WORKER

FOREIGN = """INSERT INTO oban_jobs (state, queue, worker, priority, max_attempts, args, scheduled_at)
    SELECT %s::oban_job_state, %s, 'shop.Build', 0, 20, %s::jsonb, timezone('UTC', now()) - interval '1 minute'
    FROM generate_series(1, %s)"""
ROWS = (
    "SELECT state::text, attempt, max_attempts, errors, tags, meta FROM oban_jobs WHERE args ->> 'step' = %s::text"
)


def finish(crew: Crew, *, error: str | None = None, retry_in: float | None = None) -> None:
    """End the attempts that `hand` holds in the queue of backfills, or fail them."""
    outcome = Skipped("enough") if error is None else Failed(error, "ValueError", retryable=True)
    ends = [
        AttemptResult(job, outcome, (), datetime.now(UTC), retry_in_seconds=retry_in)
        for queue in ("assets", "backfill")
        for job in crew.take(queue)
    ]
    assert ends
    crew.store.ledger.commit(ends)


def jobs(crew: Crew) -> list[tuple[object, ...]]:
    return crew.rows("SELECT id, state::text FROM oban_jobs WHERE worker = %s ORDER BY id", WORKER)


def test_rows_of_others_neither_block_nor_starve_a_queue(crew: Crew) -> None:
    crew.lease()
    crew.execute(FOREIGN, "available", "assets", '{"step": "build"}', 200)
    crew.execute(FOREIGN, "scheduled", "assets", '{"step": 1}', 5)
    crew.execute(FOREIGN, "completed", "assets", "{}", 5)
    before = crew.rows("SELECT * FROM oban_jobs WHERE worker = 'shop.Build' ORDER BY id")
    crew.flow.schedule("quick", partition=ITEMS[0])
    assert crew.store.queue.stage(["assets"]) == ["assets"]
    assert [job.asset for job in crew.take("assets", demand=10)] == ["quick"]
    assert crew.store.queue.stage(["assets"]) == []
    crew.execute("UPDATE oban_jobs SET completed_at = '2000-01-01' WHERE state = 'completed'")
    before = crew.rows("SELECT * FROM oban_jobs WHERE worker = 'shop.Build' ORDER BY id")
    crew.store.queue.prune_jobs(1.0)
    crew.store.queue.rescue()
    crew.store.queue.sweep()
    assert crew.rows("SELECT * FROM oban_jobs WHERE worker = 'shop.Build' ORDER BY id") == before
    shown = {queue.name: queue.available for queue in crew.flow.queues.list()}
    assert shown.get("assets", 0) == 0


@pytest.mark.parametrize("args", [{"step": "build"}, {"step": 1.5}, {"step": 10**30}, {}, {"step": None}])
def test_a_row_of_ours_that_names_no_step_stops_nothing(crew: Crew, args: dict[str, object]) -> None:
    crew.lease()
    for worker in (WORKER, EXPIRY_WORKER):
        crew.execute(
            "INSERT INTO oban_jobs (queue, worker, priority, args) VALUES ('assets', %s, 0, %s)",
            worker,
            json.dumps(args | {"approval": "none"}),
        )
    crew.flow.schedule("quick", partition=ITEMS[0])
    assert [job.asset for job in crew.take("assets")] == ["quick"]
    left = crew.rows("SELECT state::text FROM oban_jobs WHERE args ? 'approval'")
    assert left == [("cancelled",)]


def test_a_look_for_work_reads_only_our_rows(crew: Crew) -> None:
    """However many of others stand in the queue, and whatever the planner knows of them."""
    crew.lease()
    crew.execute(FOREIGN, "available", "assets", "{}", 20_000)
    crew.execute(FOREIGN, "scheduled", "assets", "{}", 20_000)
    crew.execute("ANALYZE oban_jobs")
    crew.flow.schedule("quick", partition=ITEMS[0])
    names = {"queue": "assets", "demand": 10, "below": 32767, "worker_id": "hand", "worker": WORKER}
    names |= {"left": False, "left_assets": [], "left_runs": [], "left_steps": []}
    for statement, parameters in (
        ("fetch", names | {"attempted_by": ["here", "x"]}),
        ("queue/stage", {"queues": ["assets"], "limit": 100}),
    ):
        with crew.store.database.transaction() as connection:
            plan = connection.execute(
                "EXPLAIN (ANALYZE, FORMAT JSON) " + load_sql(statement), parameters
            ).fetchone()
            assert plan is not None
            text = json.dumps(plan[0])
            assert "Rows Removed by Filter" not in text or '"Rows Removed by Filter": 0' in text
            assert "flowstone_" in text
            connection.execute("ROLLBACK")


@pytest.mark.parametrize("over", [0, 20_000])
def test_pages_read_the_first_jobs_of_a_queue_in_its_order(crew: Crew, over: int) -> None:
    """Of 3,000 that wait: by the estimate a sort of all costs about the same, and it takes five times as long."""
    crew.execute(FOREIGN, "completed", "assets", "{}", over)
    crew.execute(FOREIGN, "available", "assets", "{}", 1_000)
    crew.execute(FOREIGN, "available", "backfill", "{}", 2_000)
    crew.execute("VACUUM (ANALYZE) oban_jobs")
    parameters = {"queues": ["assets", "backfill", "elsewhere"], "limit": 10_001}
    with crew.store.database.connection() as connection:
        explain = "EXPLAIN (FORMAT JSON) " + load_sql("insights/jobs")
        row = connection.execute(explain, parameters).fetchone()
    assert row is not None
    plans = list(nodes_of(row[0][0]["Plan"]))
    whole = ("Seq Scan", "Bitmap Heap Scan")
    assert not [one for one in plans if one["Node Type"] in whole and one["Relation Name"] == "oban_jobs"]
    assert "oban_jobs_state_queue_priority_scheduled_at_id_index" in {one.get("Index Name") for one in plans}


def test_the_names_in_the_statements_are_those_of_our_workers() -> None:
    for name in ("fetch", "queue/stage", "queue/prune_jobs", "queue/index_available", "queue/index_due"):
        assert f"worker IN ('{WORKER}', '{EXPIRY_WORKER}')" in load_sql(name)


def test_old_jobs_of_ours_are_deleted_and_their_records_stay(crew: Crew) -> None:
    crew.lease()
    job = crew.flow.schedule("quick", partition=ITEMS[0])
    finish(crew)
    assert crew.store.queue.prune_jobs(3600.0) == 0
    crew.execute("UPDATE oban_jobs SET completed_at = completed_at - interval '2 hours'")
    # a later look starts where the first one stopped, so the row that moved under it is for a new worker to find
    assert crew.store.queue.prune_jobs(3600.0) == 0
    crew.store.queue._pruned_at = None
    assert crew.store.queue.prune_jobs(3600.0) == 1
    assert crew.flow.job_status(job) is State.SKIPPED


@pytest.mark.parametrize("state", ["available", "scheduled", "suspended", "retryable"])
def test_a_job_cancelled_there_stays_cancelled(crew: Crew, state: str) -> None:
    crew.lease()
    run_id = crew.place("fragile or after", ITEMS[0])
    crew.execute("UPDATE oban_jobs SET state = %s::oban_job_state", state)
    # as oban.cancel_job does
    crew.execute("UPDATE oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now())")
    assert crew.store.queue.follow_cancels([]) == 1
    assert crew.store.queue.sweep() == 0
    assert crew.take() == []
    steps = {one.asset: one for one in crew.flow.runs.steps(run_id)}
    assert steps["fragile"].state is State.CANCELLED
    assert steps["fragile"].reason == "its job was cancelled with Oban's tools"
    assert steps["after"].state is State.UPSTREAM_FAILED
    assert crew.flow.runs.get(run_id).state != State.RUNNING
    (line,) = crew.flow.audit.latest(subject=f"step:{steps['fragile'].id}")
    assert (line.actor, line.action) == ("oban", "job.cancelled")
    assert jobs(crew)[0][1] == "cancelled"


def test_a_job_cancelled_without_a_time_is_found_by_the_sweep(crew: Crew) -> None:
    job = crew.flow.schedule("quick", partition=ITEMS[0])
    crew.execute("UPDATE oban_jobs SET state = 'cancelled'")
    assert crew.store.queue.follow_cancels([]) == 0
    assert crew.store.queue.sweep() == 1
    assert crew.flow.job_status(job) is State.CANCELLED


def test_a_running_job_is_cancelled_by_signal_or_row(crew: Crew) -> None:
    crew.lease()
    first = crew.flow.schedule("gated", partition=ITEMS[0])
    second = crew.flow.schedule("gated", partition=ITEMS[1])
    assert len(crew.take("assets")) == 2
    (one, _), (two, _) = jobs(crew)
    assert crew.store.queue.follow_cancels([int(str(one)), 10**15]) == 1
    assert crew.flow.job_status(first) is State.CANCELLING
    # Elixir's Oban marks a running job in its row
    crew.execute(
        "UPDATE oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now()) WHERE id = %s", two
    )
    assert crew.store.queue.follow_cancels([]) == 1
    assert crew.flow.job_status(second) is State.CANCELLING
    assert crew.store.queue.follow_cancels([int(str(one))]) == 0


def test_a_deleted_row_is_placed_again(crew: Crew) -> None:
    crew.lease()
    crew.flow.schedule("quick", partition=ITEMS[0])
    crew.execute("DELETE FROM oban_jobs")
    assert crew.store.queue.sweep() == 1
    assert len(crew.take("assets")) == 1


RETRY = """UPDATE oban_jobs SET state = 'available', max_attempts = greatest(max_attempts, attempt + 1),
    scheduled_at = timezone('UTC', now()), completed_at = NULL, cancelled_at = NULL, discarded_at = NULL,
    meta = jsonb_set(meta, '{uniq_bmp}', '[]'::jsonb) WHERE state NOT IN ('available', 'executing')"""


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_retried_job_runs_again_in_place(whole: Crew, end: str) -> None:
    whole.lease()
    job = whole.flow.schedule("fragile", partition=ITEMS[0])
    if end == "failed":
        finish(whole, error="broken")
    else:
        whole.flow.cancel_job(job)
    assert whole.flow.job_status(job) == end
    whole.execute(RETRY)
    assert whole.take("assets") == []  # this look finds out, the next one takes it
    assert whole.flow.job_status(job) is State.PENDING
    assert whole.flow.runs.get(job.run_id).state is State.RUNNING
    finish(whole)
    assert whole.flow.job_status(job) is State.SKIPPED
    assert whole.flow.runs.get(job.run_id).state is State.COMPLETED
    assert jobs(whole)[0][1] == "completed"
    assert "job.retried" in [line.action for line in whole.flow.audit.latest(subject=f"step:{job.id}")]


def test_a_retry_that_cannot_be_says_why_not(crew: Crew) -> None:
    crew.lease()
    done = crew.flow.schedule("quick", partition=ITEMS[0])
    finish(crew)
    failed = crew.flow.schedule("fragile", partition=ITEMS[0])
    finish(crew, error="broken")
    crew.flow.schedule("fragile", partition=ITEMS[0])
    crew.execute(RETRY)
    crew.take("assets")
    ((state, *_, meta),) = crew.rows(ROWS, done.id)
    assert (state, meta["flowstone"].startswith("not run again: its step is skipped")) == ("completed", True)
    ((state, *_, meta),) = crew.rows(ROWS, failed.id)
    assert (state, "computes the same asset" in meta["flowstone"]) == ("discarded", True)
    assert crew.flow.job_status(done) is State.SKIPPED
    assert [line.action for line in crew.flow.audit.latest()] == ["job.retry_refused"] * 2


def test_another_obans_rescue_starts_nothing_twice(crew: Crew) -> None:
    crew.lease()
    job = crew.flow.schedule("quick", partition=ITEMS[0])
    assert len(crew.take("assets")) == 1
    crew.execute("UPDATE oban_jobs SET state = 'available'")
    assert crew.take("assets") == []
    assert crew.flow.job_status(job) is State.RUNNING
    assert crew.rows("SELECT state::text, attempt FROM oban_jobs") == [("executing", 1)]


def test_rows_report_how_it_ended_with_their_steps(crew: Crew) -> None:
    crew.lease()
    job = crew.flow.schedule("retries_late")
    ((state, attempt, maximum, errors, _, meta),) = crew.rows(ROWS, job.id)
    assert (state, attempt, maximum, errors) == ("available", 0, 3, [])
    assert meta == {"asset": "retries_late", "partition": "", "run": job.run_id}
    for number in (1, 2, 3):
        finish(crew, error=f"broken {number}", retry_in=0.0 if number < 3 else None)
    ((state, attempt, maximum, errors, *_),) = crew.rows(ROWS, job.id)
    assert (state, attempt, maximum) == ("discarded", 3, 3)
    assert [(one["attempt"], one["error"]) for one in errors] == [(n, f"broken {n}") for n in (1, 2, 3)]
    assert all(one["at"].endswith("Z") for one in errors)


@pytest.mark.parametrize("how", ["failed", "lost"])
def test_the_job_of_a_step_that_was_cancelled_while_it_ran_does_not_start_it_again(crew: Crew, how: str) -> None:
    """Its attempt would have been repeated at once, had nobody cancelled it."""
    lease = crew.lease()
    job = crew.flow.schedule("gated", partition=ITEMS[0])
    (taken,) = crew.take("assets")
    assert crew.flow.cancel_job(job) is State.CANCELLING
    if how == "failed":
        failed = Failed("broken", "ValueError", retryable=True)
        crew.store.ledger.commit([AttemptResult(taken, failed, (), datetime.now(UTC), retry_in_seconds=0.0)])
    else:
        lease.remove()
        assert crew.store.queue.rescue() == 1
        crew.lease("other")
    assert [one[1] for one in jobs(crew)] == ["cancelled"]
    assert crew.take("assets", worker="other" if how == "lost" else "hand") == []
    assert crew.flow.job_status(job) is State.CANCELLED


def test_what_is_released_does_not_count_in_the_row(crew: Crew) -> None:
    crew.lease()
    crew.flow.schedule("quick", partition=ITEMS[0])
    crew.store.ledger.release(crew.take("assets"), delay_seconds=60.0)
    assert crew.rows("SELECT state::text, attempt FROM oban_jobs") == [("scheduled", 0)]


def test_a_worker_hears_signals_and_says_what_they_did(crew: Crew) -> None:
    (worker,) = crew.start()
    garbage = ("garbage", "", "{}", "[1]", '{"queue": 1}', '{"action": 1}', "H4sIAAAA", '{"action": "pkill"}')
    for channel in ("public.oban_insert", "public.oban_signal"):
        for payload in garbage:
            crew.execute("SELECT pg_notify(%s, %s)", channel, payload)
    crew.execute('SELECT pg_notify(\'public.oban_signal\', \'{"action": "pause", "queue": "assets"}\')')
    check(lambda: any(queue.paused_nodes for queue in crew.flow.queues.list()), lambda: worker.message)
    crew.flow.schedule("quick", partition=ITEMS[0])
    (shown,) = [queue for queue in crew.flow.queues.list() if queue.name == "assets"]
    assert (shown.paused, shown.paused_nodes) == (True, 1)
    assert "paused with Oban's tools on 1 of 1 worker" in crew.flow.why("quick", ITEMS[0])[0]
    crew.flow.queues.resume("assets")
    crew.wait_over()
    check(lambda: not any(queue.paused for queue in crew.flow.queues.list()), lambda: worker.message)
    assert "Queue assets is paused here by a signal" in worker.message
    assert "cannot be read" in worker.message
    # a running job, named by the signal that oban.cancel_job sends
    job = crew.flow.schedule("gated", partition=ITEMS[0])
    crew.wait_event("start", "gated")
    ((row, _),) = [one for one in jobs(crew) if one[1] == "executing"]
    crew.execute("SELECT pg_notify('public.oban_signal', %s)", json.dumps({"action": "pkill", "job_id": row}))
    crew.wait_over()
    assert crew.flow.job_status(job) is State.CANCELLED
    assert "job.cancelled" in [line.action for line in crew.flow.audit.latest(subject=f"step:{job.id}")]
