"""Options of one call on oban: queue, attempts, priority, what is placed once, when it starts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew

from flowstone import CircuitBreaker, RateLimited
from flowstone.app import driving
from flowstone.core.outcome import Failed, Skipped
from flowstone.core.state import State
from flowstone.core.step import AttemptResult
from flowstone.errors import OptionsError, StepFailedError

ROW = "SELECT queue, priority, max_attempts, state::text FROM oban_jobs ORDER BY id DESC LIMIT 1"
OPTIONS = {"queue": "reports", "max_attempts": 7, "priority": 1}


def end(crew: Crew, queue: str, *, failed: bool = False) -> int:
    """End what a worker would take from a queue; return how many attempts that were."""
    outcome = Failed("broken", "ValueError", retryable=True) if failed else Skipped("enough")
    taken = crew.take(queue)
    crew.store.ledger.commit([AttemptResult(job, outcome, (), datetime.now(UTC)) for job in taken])
    return len(taken)


def test_the_step_and_its_row_say_what_was_asked_for(crew: Crew) -> None:
    job = crew.flow.schedule("elsewhere", partition=ITEMS[0], executor_opts=OPTIONS)
    step = crew.flow.runs.step(job)
    assert (step.queue, step.max_attempts, step.priority, job.priority) == ("reports", 7, 1, 1)
    assert crew.rows(ROW) == [("reports", 1, 7, "available")]
    assert crew.flow.runs.get(job.run_id).priority == 1


@pytest.mark.parametrize("range_from", [2, 1000])
def test_backfills_follow_them_step_by_step_and_as_ranges(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, range_from: int
) -> None:
    monkeypatch.setattr(driving, "LARGE", range_from)
    run = crew.place_many("quick", 4, executor_opts=OPTIONS | {"wait_timeout": timedelta(milliseconds=1)})
    assert (crew.rows("SELECT count(*) FROM flowstone.ranges") == [(1,)]) == (range_from == 2)
    crew.lease(queues={"reports": 10})
    assert len(crew.take("reports", demand=4)) == 4
    for step in crew.flow.runs.steps(run):
        assert (step.queue, step.max_attempts, step.priority) == ("reports", 7, 1)


def test_materialize_all_follows_them_for_everything_that_it_runs(crew: Crew) -> None:
    options = OPTIONS | {"wait_timeout": 0.001}
    run = crew.flow.materialize_all("after", partition=ITEMS[0], executor_opts=options).run_id
    assert {(step.queue, step.max_attempts) for step in crew.flow.runs.steps(run)} == {("reports", 7)}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"queue": ""}, "queue=''"),
    ({"queue": 7}, "queue=7"),
    ({"queue": " reports"}, "queue=' reports'"),
    ({"queue": "a\nb"}, "printable"),
    ({"queue": "x" * 128}, "127"),
    ({"max_attempts": 0}, "max_attempts=0: give a whole number from 1 to 1000"),
    ({"max_attempts": 1001}, "max_attempts=1001"),
    ({"max_attempts": True}, "max_attempts=True"),
    ({"max_attempts": "3"}, "max_attempts='3'"),
    ({"priority": -1}, r"priority=-1: give a whole number from 0 \(first\) to 9"),
    ({"priority": 2.0}, "priority=2.0"),
    ({"unique": 0}, "unique=0: give a number of seconds"),
    ({"unique": True}, "unique=True"),
    ({"unique": float("inf")}, "unique=inf"),
    ({"unique": timedelta(days=-1)}, "unique="),
    ({"scheduled_at": datetime(2030, 1, 1)}, "scheduled_at=.*time zone"),
    ({"scheduled_at": "tomorrow"}, "scheduled_at='tomorrow'"),
    ({"wait_timeout": "5"}, "wait_timeout='5'"),
    ({"qeue": "reports"}, "Did you mean 'queue'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda one: str(one)[:30])
def test_wrong_ones_are_refused_before_anything_is_placed(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(driving, "LARGE", 2)
    oban = crew.flow.parts.executors.get("oban")
    flow, part = crew.flow, {"partition": ITEMS[0], "executor_opts": options}
    calls = [
        lambda: flow.materialize("quick", **part),
        lambda: flow.schedule("quick", **part),
        lambda: flow.materialize_all("quick", **part),
        lambda: flow.backfill("quick", partitions=ITEMS[:3], executor_opts=options),
        lambda: flow.schedule("quick", **part, executor=RateLimited(oban, "10/second")),
        lambda: flow.schedule("quick", **part, executor=CircuitBreaker(oban)),
    ]
    for call in calls:
        with pytest.raises(OptionsError, match=message):
            call()
    assert crew.rows("SELECT count(*) FROM flowstone.runs") == [(0,)]


def test_what_the_call_says_itself_is_not_said_again(crew: Crew) -> None:
    with pytest.raises(OptionsError, match=r"priority=3 and executor_opts=.* say the same thing twice"):
        crew.flow.schedule("quick", partition=ITEMS[0], priority=3, executor_opts={"priority": 1})
    due = datetime(2100, 1, 1, tzinfo=UTC)
    with pytest.raises(OptionsError, match="scheduled_at"):
        crew.flow.schedule("quick", partition=ITEMS[0], scheduled_at=due, executor_opts={"scheduled_at": due})


@pytest.mark.parametrize("written", [True, False])
def test_a_start_time_is_taken_as_an_option_too(crew: Crew, written: bool) -> None:
    due = datetime(2100, 1, 1, tzinfo=UTC)
    option = due.isoformat() if written else due
    job = crew.flow.schedule("quick", partition=ITEMS[0], executor_opts={"scheduled_at": option})
    assert (job.scheduled_at, crew.flow.job_status(job)) == (due, State.SCHEDULED)
    assert crew.rows(ROW)[0][3] == "scheduled"


@pytest.mark.parametrize("force", [False, True])
def test_what_was_placed_lately_answers_over_or_not(crew: Crew, force: bool) -> None:
    crew.lease()
    first = crew.flow.schedule("fragile", partition=ITEMS[0], executor_opts={"unique": timedelta(minutes=5)})
    again = {"partition": ITEMS[0], "force": force, "executor_opts": {"unique": 300}}
    waiting = crew.flow.schedule("fragile", **again)
    assert (waiting.id, waiting.deduplicated) == (first.id, True)
    assert end(crew, "assets", failed=True) == 1
    over = crew.flow.schedule("fragile", **again)
    assert (over.id, over.deduplicated) == (first.id, True)
    assert (
        crew.flow.runs.get(crew.rows("SELECT id FROM flowstone.runs ORDER BY created_at DESC LIMIT 1")[0][0]).state
        == "failed"
    )
    with pytest.raises(StepFailedError):
        crew.flow.materialize("fragile", **again)
    other = crew.flow.schedule("fragile", partition=ITEMS[1], executor_opts={"unique": 300})
    assert not other.deduplicated
    crew.execute("UPDATE flowstone.steps SET placed_at = placed_at - interval '6 minutes'")
    later = crew.flow.schedule("fragile", **again)
    assert (later.id == first.id, later.deduplicated) == (False, False)


@pytest.mark.parametrize("range_from", [2, 1000])
def test_a_backfill_computes_nothing_that_was_placed_lately(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, range_from: int
) -> None:
    crew.lease()
    crew.flow.schedule("fragile", partition=ITEMS[0])
    end(crew, "assets", failed=True)
    crew.flow.schedule("fragile", partition=ITEMS[1])
    end(crew, "assets")
    under_way = crew.flow.schedule("fragile", partition=ITEMS[2])
    monkeypatch.setattr(driving, "LARGE", range_from)
    run = crew.place_many("fragile", 4, force=True, executor_opts={"unique": 300, "wait_timeout": 0.001})
    assert [job.partition_key for job in crew.take("backfill")] == [f"s:{ITEMS[3]}"]
    crew.store.ledger.release([])
    assert crew.flow.job_status(under_way) is State.PENDING
    assert crew.flow.runs.get(run).state is State.RUNNING
    assert end(crew, "assets") == 1
    crew.store.queue.rescue()
    held = crew.store.queue.held("hand")
    crew.store.ledger.commit([AttemptResult(claim, Skipped("enough"), (), datetime.now(UTC)) for claim in held])
    assert crew.flow.runs.get(run).state is State.FAILED


def test_many_at_once_get_one_job(crew: Crew) -> None:
    """Whoever comes first places it; nobody is refused, and nobody places another one."""
    crew.lease()

    def ask(number: int) -> int:
        how = {"executor_opts": {"unique": 300}, "force": number % 2 == 0}
        job = crew.flow.schedule("quick", partition=ITEMS[0], **how)
        if number % 5 == 0:
            end(crew, "assets")  # it may be over by the time when the next one asks
        return job.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(24)))) == 1


def test_rows_carry_the_tags_of_the_run(crew: Crew) -> None:
    crew.flow.schedule("quick", partition=ITEMS[0], tags=["nightly", "eu"])
    assert crew.rows("SELECT tags FROM oban_jobs") == [(["nightly", "eu"],)]


def test_the_warning_of_a_queue_that_nobody_serves_names_the_command(crew: Crew) -> None:
    crew.flow.schedule("quick", partition=ITEMS[0], executor_opts={"queue": "night shift"})
    assert "`flowstone worker --queue 'night shift'`" in crew.flow.why("quick", ITEMS[0])[0]
