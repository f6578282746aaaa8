"""What could slip through a pause: each test takes jobs as a worker would, so that nothing is left to timing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew

from flowstone.core.outcome import Failed, Snoozed, Stopped, Succeeded
from flowstone.core.output import OutputAddress
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult
from flowstone.errors import CapabilityError, ExecutorUnavailableError, OptionsError, RunNotFoundError


def fail(crew: Crew, job: Attempt, *, retry_in: float | None) -> None:
    failed = Failed("ValueError: no", "ValueError", retryable=True)
    crew.store.ledger.commit([AttemptResult(job, failed, (), datetime.now(UTC), retry_in_seconds=retry_in)])


def succeed(crew: Crew, job: Attempt) -> None:
    claim = job
    address = OutputAddress(
        claim.asset, claim.partition_key, claim.run_id, claim.step_id, attempt=claim.attempt, token=claim.token
    )
    stored = crew.flow.parts.managers["postgres"].store("x", address)
    crew.store.ledger.commit([AttemptResult(claim, Succeeded(stored, "x"), (), datetime.now(UTC))])


def window(crew: Crew, run: str) -> int:
    return int(crew.rows("SELECT active_steps FROM flowstone.runs WHERE id = %s", run)[0][0])


@pytest.mark.parametrize("width", [None, 2])
def test_a_retry_does_not_slip_through(crew: Crew, width: int | None) -> None:
    crew.lease()
    run = crew.place_many("gated", 3, max_concurrency=width)
    first = crew.take(demand=1)[0]
    crew.flow.runs.pause(run)
    fail(crew, first, retry_in=0)
    assert crew.take() == []
    assert crew.states("gated") == ["pending"] * 3
    assert window(crew, run) == 0
    crew.flow.runs.resume(run)
    taken = crew.take()
    assert len(taken) == (width or 3)
    assert max(job.attempt for job in taken) == 2


def test_a_step_that_is_due_while_its_run_is_paused(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("gated", 1, max_concurrency=1)
    (job,) = crew.take()
    crew.flow.runs.pause(run)
    crew.store.ledger.commit([AttemptResult(job, Snoozed(600.0, "later"), (), datetime.now(UTC))])
    assert crew.states("gated") == ["scheduled"]
    crew.execute("UPDATE oban_jobs SET state = 'available', scheduled_at = timezone('UTC', now())")
    assert crew.take() == []
    assert window(crew, run) == 0
    crew.flow.runs.resume(run)
    assert crew.states("gated") == ["pending"]


def test_a_slot_that_frees_while_the_run_of_the_next_is_paused(crew: Crew) -> None:
    """The step that was woken may not start; the sweep lets another one have the slot."""
    crew.lease()
    running = crew.place_many("lifted", 2)
    jobs = crew.take()
    paused = crew.flow.backfill("lifted", partitions=[ITEMS[2]], executor_opts={"wait_timeout": 0.001}, priority=0)
    waiting = crew.flow.backfill("lifted", partitions=[ITEMS[3]], executor_opts={"wait_timeout": 0.001})
    assert crew.take() == []
    crew.flow.runs.pause(paused.run_id)
    crew.store.ledger.commit([AttemptResult(jobs[0], Stopped("enough"), (), datetime.now(UTC))])
    assert crew.take() == []
    assert crew.store.queue.sweep() == 1
    assert [job.run_id for job in crew.take()] == [waiting.run_id]
    assert crew.flow.runs.get(running).counts[State.RUNNING] == 1


def test_a_resume_between_a_release_and_its_commit_strands_nothing(crew: Crew) -> None:
    """The releasing transaction has seen the pause, the resuming one has not seen what is released."""
    crew.lease()
    run = crew.place_many("fragile or after", 1)
    (job,) = crew.take()
    crew.flow.runs.pause(run)
    crew.execute(
        """CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.asset = 'after' AND NEW.state = 'pending' AND OLD.state = 'waiting' THEN
                PERFORM pg_advisory_xact_lock_shared(42); END IF;
            RETURN NEW; END $$"""
    )
    crew.execute("CREATE TRIGGER hold BEFORE UPDATE ON flowstone.steps FOR EACH ROW EXECUTE FUNCTION hold()")
    with ThreadPoolExecutor(1) as threads:
        with crew.holding_lock(42):
            committed = threads.submit(succeed, crew, job)
            crew.wait(crew.waiting_for_lock, "the release")
            crew.flow.runs.resume(run)
        committed.result(90)
    assert [one.asset for one in crew.take()] == ["after"]


def test_parked_steps_leave_room_for_those_behind_them(crew: Crew) -> None:
    """A node learns at once that there may be more: parking is announced like new work."""
    crew.lease()
    crew.place_many("lifted", 6)
    crew.place_many("quick", 2)
    with crew.store.database.dedicated() as listener:
        listener.execute('LISTEN "public.oban_insert"')
        taken = [job.asset for job in crew.take(demand=4)]
        reported = [note.payload for note in listener.notifies(timeout=5.0, stop_after=1)]
    assert reported == ['{"queue": "backfill"}']
    assert taken == ["lifted", "lifted", "quick", "quick"]


def test_what_cannot_be_steered_is_refused(crew: Crew) -> None:
    inline = crew.flow.materialize_all("quick", partition=ITEMS[0], executor="sync")
    for act in (crew.flow.runs.pause, crew.flow.runs.resume):
        with pytest.raises(CapabilityError, match="'sync' does not offer 'pausing a run'"):
            act(inline.run_id)
        with pytest.raises(RunNotFoundError):
            act("no-such-run")
    with pytest.raises(OptionsError, match="Did you mean 'assets'"):
        crew.flow.queues.pause("asets")
    with pytest.raises(OptionsError, match="no queue"):
        crew.flow.queues.scale("nowhere", 3)
    for limit in (0, -1, 1001, 1.5, True, "3"):
        with pytest.raises(OptionsError, match="whole number"):
            crew.flow.queues.scale("assets", limit)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="from 0 on"):
        crew.flow.retention.prune(older_than=timedelta(seconds=-1))
    with pytest.raises(ExecutorUnavailableError):
        type(crew.flow).for_testing([]).queues.list()


def test_a_queue_that_only_a_worker_serves_is_known(crew: Crew) -> None:
    crew.lease(queues={"nightly": 3})
    crew.flow.queues.pause("nightly")
    assert [(queue.name, queue.paused) for queue in crew.flow.queues.list()] == [("nightly", True)]
