"""Circuit breakers over the fleet: by hand, step for step, and with real workers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew

from flowstone import CircuitBreaker
from flowstone.core.outcome import Failed, Skipped, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult

HOUR = 3600.0


def fail(crew: Crew, *jobs: Attempt, retry_in: float | None = None) -> None:
    failed = Failed("down", "builtins.ConnectionError", retryable=True)
    crew.store.ledger.commit([AttemptResult(one, failed, (), datetime.now(UTC), retry_in) for one in jobs])


def succeed(crew: Crew, *jobs: Attempt) -> None:
    for job in jobs:
        stored = StoredOutput("memory", "none", f"memory://{job.token}", size_bytes=1)
        crew.store.ledger.commit([AttemptResult(job, Succeeded(stored, None), (), datetime.now(UTC))])


def circuit(crew: Crew) -> tuple[int, bool]:
    """Return the failures in a row, and whether the breaker is not closed."""
    rows = crew.rows("SELECT failures, open_until IS NOT NULL FROM flowstone.breakers")
    return rows[0] if rows else (0, False)


def let_time_pass(crew: Crew) -> None:
    """As if the time in which nothing starts were over; nobody stages scheduled jobs here."""
    crew.execute("UPDATE flowstone.breakers SET open_until = clock_timestamp() WHERE open_until IS NOT NULL")


def opened(crew: Crew, number: int = 8) -> str:
    """Let three attempts on two workers fail."""
    for worker in ("hand", "one", "two"):
        crew.lease(worker)
    run = crew.place_many("phoned", number)
    fail(crew, *crew.take(demand=2, worker="one"))
    assert circuit(crew) == (2, False)
    fail(crew, *crew.take(demand=1, worker="two"))
    assert circuit(crew) == (3, True)
    return run


def test_it_opens_after_failures_in_a_row_on_two_workers_and_parks_the_rest(crew: Crew) -> None:
    opened(crew)
    assert crew.take(worker="one") == crew.take(worker="two") == []
    assert crew.states("phoned") == ["failed"] * 3 + ["scheduled"] + ["pending"] * 4
    assert crew.rows("SELECT sum(attempt) FROM flowstone.steps WHERE state <> 'failed'") == [(0,)]
    assert crew.rows(
        "SELECT state::text, count(*) FROM oban_jobs WHERE state <> 'discarded' GROUP BY 1 ORDER BY 1"
    ) == [
        ("scheduled", 1),
        ("suspended", 4),
    ]
    (early,) = crew.rows(
        "SELECT count(*) FROM flowstone.steps, flowstone.breakers WHERE scheduled_at < open_until"
    )
    assert early == (0,)


def test_a_success_between_failures_starts_the_count_again(crew: Crew) -> None:
    crew.lease()
    crew.place_many("phoned", 6)
    one, two, three, four, five, six = crew.take()
    fail(crew, one, two)
    succeed(crew, three)
    fail(crew, four, five)
    assert circuit(crew) == (2, False)
    fail(crew, six)
    assert circuit(crew) == (3, True)


def test_what_had_started_before_it_opened_does_not_count(crew: Crew) -> None:
    crew.lease()
    crew.place_many("phoned", 6)
    jobs = crew.take(demand=5)
    fail(crew, *jobs[:3])
    fail(crew, jobs[3])
    succeed(crew, jobs[4])
    assert circuit(crew) == (3, True)
    assert crew.take() == []


def test_one_step_is_tried_and_its_success_wakes_the_rest(crew: Crew) -> None:
    opened(crew)
    assert crew.take() == []
    let_time_pass(crew)
    assert crew.store.queue.sweep() == 1
    (tried,) = crew.take(worker="one")
    crew.place_step("phoned", ITEMS[20])
    assert crew.take("assets", worker="two") == crew.take(worker="two") == []
    succeed(crew, tried)
    assert circuit(crew) == (0, False)
    assert crew.rows("SELECT count(*) FROM flowstone.slots") == [(0,)]
    # the one that got a time is staged by Oban when that has come
    assert len(crew.take()) == 3
    assert len(crew.take("assets")) == 1


def test_a_failed_trial_opens_it_again_and_another_step_learns_the_time(crew: Crew) -> None:
    opened(crew)
    assert crew.take() == []
    let_time_pass(crew)
    crew.store.queue.sweep()
    (tried,) = crew.take()
    fail(crew, tried)
    assert circuit(crew) == (4, True)
    assert crew.take() == []
    assert crew.rows("SELECT open_until > clock_timestamp(), next_step IS NOT NULL FROM flowstone.breakers") == [
        (True, True)
    ]
    assert crew.store.queue.sweep() == 0


def test_a_trial_that_says_nothing_gives_way_to_the_next(crew: Crew) -> None:
    opened(crew)
    assert crew.take() == []
    let_time_pass(crew)
    crew.store.queue.sweep()
    (skipped,) = crew.take()
    skip = Skipped("nothing new")
    crew.store.ledger.commit([AttemptResult(skipped, skip, (), datetime.now(UTC))])
    assert circuit(crew) == (3, True)
    (released,) = crew.take()
    crew.store.ledger.release([released], reason="for others")
    assert len(crew.take()) == 1
    assert crew.rows("SELECT count(*) FROM flowstone.slots") == [(1,)]


def test_the_step_that_was_reported_a_time_may_be_cancelled(crew: Crew) -> None:
    opened(crew)
    assert crew.take() == []
    (scheduled,) = crew.rows("SELECT id FROM flowstone.steps WHERE state = 'scheduled'")
    crew.flow.cancel_job(str(scheduled[0]))
    assert crew.take() == []
    let_time_pass(crew)
    assert crew.store.queue.sweep() == 1
    assert len(crew.take()) == 1


def test_retries_count_and_wait_without_using_up_attempts(crew: Crew) -> None:
    crew.lease()
    crew.place_many("hoisted", 3)
    jobs = crew.take()
    assert len(jobs) == 2  # the crane has two hooks
    fail(crew, *jobs, retry_in=0.0)
    assert circuit(crew) == (1, True)
    assert crew.take() == []
    assert crew.rows("SELECT attempt FROM flowstone.steps ORDER BY id") == [(1,), (1,), (0,)]
    let_time_pass(crew)
    crew.store.queue.sweep()
    assert len(crew.take()) == 1


def test_steps_that_a_process_drives_itself_are_not_counted(crew: Crew) -> None:
    result = crew.flow.backfill("phoned", partitions=ITEMS[:4], executor="sync")
    assert len(result.errors) == 4
    assert circuit(crew) == (0, False)


def test_why(crew: Crew) -> None:
    run = opened(crew, 5)
    assert crew.take() == []
    ((until,),) = crew.rows("SELECT open_until FROM flowstone.breakers")
    moment = f"{until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    is_open = f"the breaker 'line' is open until {moment} after 3 failures in a row"
    reported, when = crew.flow.why("phoned", ITEMS[3])
    assert reported == is_open
    assert when.startswith("it is scheduled at 20")
    assert crew.flow.why("phoned", ITEMS[4]) == [is_open]
    let_time_pass(crew)
    assert crew.flow.why("phoned", ITEMS[4]) == [
        "the breaker 'line' tries one step at a time after 3 failures in a row"
    ]
    crew.flow.runs.cancel(run)
    assert crew.flow.why("phoned", ITEMS[4]) == ["it is over: cancelled (cancelled before it started)"]


def test_around_the_durable_executor(crew: Crew) -> None:
    crew.lease()
    careful = CircuitBreaker(crew.flow.parts.executors.get("oban"), failures=2, reset_seconds=HOUR, name="site")
    crew.place_many("fragile", 4, executor=careful)
    one, two = crew.take(demand=2)
    fail(crew, one, two)
    assert crew.take() == []
    assert crew.flow.why("fragile", ITEMS[3])[0].startswith("the breaker 'site' is open until 20")


def test_it_opens_and_closes_over_two_workers(whole: Crew) -> None:
    down = whole.directory / "down"
    down.touch()
    whole.start(2, queues={"backfill": 2})
    early = whole.place_many("called", 3)
    at_rest = """SELECT 1 FROM flowstone.breakers WHERE open_until > clock_timestamp()
        AND NOT EXISTS (SELECT FROM flowstone.steps WHERE state = 'running')"""
    whole.wait(lambda: whole.rows(at_rest), "an open breaker")
    down.unlink()
    run = whole.flow.backfill("called", partitions=ITEMS[3:16], executor_opts={"wait_timeout": 0.001}).run_id
    whole.wait_over([early, run])
    assert whole.flow.runs.get(early).counts == {State.FAILED: 3}
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 13}
    third = whole.events("start", "called")[2]
    first_success = min(whole.events("end", "called"), key=lambda event: event.at)
    (started,) = [one for one in whole.events("start", "called") if one.token == first_success.token]
    assert started.at - third.at >= 0.95  # the clocks of processes and database may drift apart by a little
    assert circuit(whole) == (0, False)
    assert whole.rows("SELECT count(*) FROM flowstone.slots") == [(0,)]


@pytest.mark.faults
def test_a_killed_trial_counts_as_a_failure_and_another_one_is_made(whole: Crew) -> None:
    (whole.directory / "down").touch()
    whole.start(2, queues={"backfill": 4})
    run = whole.place_many("called", 3)
    whole.wait_over([run])
    (whole.directory / "down").unlink()
    for item in ITEMS[3:9]:
        (whole.directory / f"hold-{item}").touch()
    options = {"wait_timeout": 0.001}
    run = whole.flow.backfill("called", partitions=ITEMS[3:9], executor_opts=options).run_id
    tried = whole.wait_event("start", "called", count=4)[3]
    whole.keep_out([run])
    assert len(whole.events("start", "called")) == 4
    next(worker for worker in whole.workers if worker.pid == tried.pid).kill()
    again = whole.wait_event("start", "called", count=5)[4]
    assert again.at - tried.at >= 1.0
    whole.open_gate(*ITEMS[3:9])
    whole.wait_over([run])
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 5, State.FAILED: 1}
    assert ("WorkerLost",) in [row[2:] for row in whole.attempts("called")]
