"""A step that waits for approval is out of everybody's way: queue, windows, limits, pause, sweep."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.approvals.crew import Askers
from tests.faults.fault_app import ITEMS

from flowstone.core.approval import ApprovalState
from flowstone.core.state import State
from flowstone.errors import ApprovalDecidedError


def test_the_job_of_a_waiting_step_rests(whole: Askers) -> None:
    whole.lease()
    job = whole.flow.schedule("bought", partition=ITEMS[0])
    assert whole.work() == 1
    (one,) = whole.requested()
    assert (whole.jobs("assets"), whole.jobs("checkpoints")) == (["suspended"], ["scheduled"])
    assert whole.rows("SELECT job_id, attempt, finished_at FROM flowstone.steps") == [(None, 0, None)]
    assert whole.store.queue.sweep() == 0
    assert whole.store.queue.rescue() == 0
    assert whole.work() == 0
    whole.flow.approvals.approve(one.id, by="ann")
    assert (whole.jobs("assets"), whole.jobs("checkpoints")) == (["available"], [])
    assert whole.work() == 1
    assert whole.flow.load("bought", partition=ITEMS[0]) == f"{ITEMS[0]} by ann"
    assert whole.flow.job_status(job) is State.COMPLETED


@pytest.mark.parametrize("how", ["reject", "cancel"])
def test_the_end_of_the_time_is_called_off(whole: Askers, how: str) -> None:
    whole.lease()
    job = whole.flow.schedule("bought", partition=ITEMS[0])
    whole.work()
    (one,) = whole.requested()
    if how == "reject":
        whole.flow.approvals.reject(one.id)
    else:
        whole.flow.cancel_job(job)
    assert whole.jobs("checkpoints") == []
    assert whole.jobs("assets") == ["discarded" if how == "reject" else "cancelled"]


def test_expiry_comes_from_the_queue(whole: Askers) -> None:
    whole.lease(queues={"assets": 10, "checkpoints": 2})
    whole.flow.schedule("bought", partition=ITEMS[0])
    whole.work()
    (one,) = whole.requested()
    # Oban's stager would do this when the time comes; too early, the job is put back
    due = "UPDATE oban_jobs SET state = 'available' WHERE queue = 'checkpoints'"
    whole.execute(due)
    assert whole.take("checkpoints") == []
    assert whole.jobs("checkpoints") == ["scheduled"]
    assert whole.flow.approvals.get(one.id).state is ApprovalState.PENDING
    whole.execute("UPDATE flowstone.checkpoints SET expires_at = clock_timestamp() - interval '1 second'")
    whole.execute(due)
    assert whole.take("checkpoints") == []
    assert whole.jobs("checkpoints") == []
    assert whole.flow.approvals.get(one.id).state is ApprovalState.EXPIRED
    (step,) = whole.flow.runs.steps(one.run_id)
    assert (step.state, step.error_type) == (State.FAILED, "ApprovalExpired")


def test_the_sweep_is_the_backstop(whole: Askers) -> None:
    whole.lease()
    whole.flow.schedule("bought", partition=ITEMS[0])
    whole.work()
    (one,) = whole.requested()
    whole.execute("DELETE FROM oban_jobs")
    whole.execute("UPDATE flowstone.checkpoints SET expires_at = clock_timestamp() - interval '1 second'")
    with pytest.raises(ApprovalDecidedError, match="expired"):
        whole.flow.approvals.approve(one.id)
    whole.flow.schedule("bought", partition=ITEMS[1])
    whole.work()
    whole.execute("UPDATE flowstone.checkpoints SET expires_at = clock_timestamp() WHERE state = 'pending'")
    assert whole.store.queue.sweep() == 1


def test_a_waiting_step_has_no_place_in_the_window(whole: Askers) -> None:
    whole.lease()
    run = whole.place_many("bought", 5, max_concurrency=2)
    for requested in (2, 4, 5):
        whole.work("backfill")
        assert len(whole.requested(requested)) == requested
    assert whole.rows("SELECT active_steps, open_steps FROM flowstone.runs") == [(0, 5)]
    for one in whole.requested(5):
        whole.flow.approvals.approve(one.id, by="ann")
    # approved steps take places again, and no more than there are
    assert whole.rows("SELECT active_steps FROM flowstone.runs") == [(2,)]
    assert [whole.work("backfill") for _ in range(4)] == [2, 2, 1, 0]
    record = whole.flow.runs.get(run)
    assert (record.state, record.counts) == (State.COMPLETED, {State.COMPLETED: 5})


def test_a_waiting_step_holds_no_slot(whole: Askers) -> None:
    whole.lease()
    for item in ITEMS[:2]:
        whole.flow.schedule("lifted", partition=item)
    assert whole.work() == 1
    assert whole.rows("SELECT * FROM flowstone.slots") == []
    assert whole.work() == 1
    for one in whole.requested(2):
        whole.flow.approvals.approve(one.id)
    assert whole.store.queue.sweep() == 0
    assert [whole.work() for _ in range(3)] == [1, 1, 0]


def test_a_paused_run_stays_paused(whole: Askers) -> None:
    whole.lease()
    job = whole.flow.schedule("bought", partition=ITEMS[0])
    whole.work()
    (one,) = whole.requested()
    whole.flow.runs.pause(job.run_id)
    whole.flow.approvals.approve(one.id, by="ann")
    assert whole.flow.job_status(job) is State.PENDING
    assert whole.work() == 0
    whole.flow.runs.resume(job.run_id)
    assert whole.work() == 1
    assert whole.flow.job_status(job) is State.COMPLETED


def test_waiting_for_a_person_is_not_waiting_for_inputs(whole: Askers) -> None:
    whole.lease()
    whole.flow.schedule("bought", partition=ITEMS[0])
    whole.work()
    (one,) = whole.requested()
    whole.execute("UPDATE flowstone.steps SET placed_at = clock_timestamp() - interval '5 days'")
    whole.flow.approvals.approve(one.id)
    (job,) = whole.take("assets")
    assert job.age_seconds < 60
    whole.store.ledger.release([job])
    assert whole.work() == 1


def test_approvals_are_pruned_with_their_steps(crew: Askers) -> None:
    crew.lease()
    job = crew.flow.schedule("bought", partition=ITEMS[0])
    crew.work()
    crew.flow.approvals.reject(crew.requested()[0].id)
    crew.execute("UPDATE flowstone.runs SET finished_at = clock_timestamp() - interval '9 days'")
    assert crew.flow.retention.prune(older_than=timedelta(days=1)).steps == 1
    assert list(crew.flow.approvals.list(state=None)) == []
    assert crew.flow.job_status(job) is State.NOT_FOUND
    assert len(crew.flow.audit.latest(action="approval")) == 2


def test_the_audit_log_only_grows(crew: Askers) -> None:
    crew.lease()
    crew.flow.schedule("bought", partition=ITEMS[0])
    crew.work()
    for statement in (
        "UPDATE flowstone.audit SET actor = 'nobody'",
        "DELETE FROM flowstone.audit",
        "TRUNCATE flowstone.audit",
    ):
        with pytest.raises(Exception, match="only grows"):
            crew.execute(statement)


def test_a_lost_worker_leaves_no_request(whole: Askers) -> None:
    whole.lease()
    whole.flow.schedule("bought", partition=ITEMS[0])
    (lost,) = whole.take("assets")
    whole.execute("DELETE FROM flowstone.workers")
    assert whole.store.queue.rescue() == 1
    assert list(whole.flow.approvals.list(state=None)) == []
    assert lost.attempt == 1
    whole.lease("other")
    whole.execute("UPDATE oban_jobs SET state = 'available' WHERE state = 'retryable'")
    (again,) = whole.take("assets", worker="other")
    whole.store.ledger.release([again])
    whole.flow.cancel_job(str(again.step_id))
