"""`why` for everything that can hold a step up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew


def test_nobody_asked(crew: Crew) -> None:
    assert crew.flow.why("quick", ITEMS[0]) == [
        "nobody has asked for it: nothing is planned and nothing is committed"
    ]
    assert crew.flow.why("after", ITEMS[0]) == [
        "nobody has asked for it, and its input fragile [i0000] is missing"
    ]


def test_what_waits_for_workers_inputs_and_room(crew: Crew) -> None:
    crew.place_many("fragile or after", 3, max_concurrency=2)
    no_worker = "no worker serves the queue 'backfill': start `flowstone worker --queue backfill`"
    assert crew.flow.why("fragile", ITEMS[0]) == [no_worker]
    assert crew.flow.why("after", ITEMS[0]) == [f"input fragile [i0000] is pending: {no_worker}"]
    crew.lease()
    assert crew.flow.why("fragile", ITEMS[0]) == [
        "0 jobs are ahead of it in the queue 'backfill', served by 1 worker"
    ]
    assert crew.flow.why("fragile", ITEMS[1]) == [
        "1 job is ahead of it in the queue 'backfill', served by 1 worker"
    ]
    crew.take(demand=2)
    assert crew.flow.why("fragile", ITEMS[2]) == [
        "the window of its run is full: 2 of at most 2 steps are at work"
    ]
    (running,) = crew.flow.why("fragile", ITEMS[0])
    assert running.startswith("it is running on hand since ")
    assert running.endswith(", attempt 1")
    assert crew.flow.why("after", ITEMS[0]) == ["input fragile [i0000] is running"]


def test_what_people_and_limits_hold_up(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("lifted", 4)
    assert len(crew.take()) == 2
    assert crew.flow.why("lifted", ITEMS[2]) == ["it waits for a slot of the limit 'crane'"]
    crew.flow.runs.pause(run)
    crew.flow.queues.pause("backfill")
    assert crew.flow.why("lifted", ITEMS[3]) == [
        f"its run {run} is paused: `flowstone resume {run}`",
        "the queue 'backfill' is paused: `flowstone resume --queue backfill`",
        "it waits for a slot of the limit 'crane'",
    ]
    crew.flow.runs.cancel(run)
    assert crew.flow.why("lifted", ITEMS[3]) == ["it is over: cancelled (cancelled before it started)"]


def test_a_rate_and_a_scheduled_time(crew: Crew) -> None:
    crew.lease()
    crew.place_many("requested", 4)
    crew.take()
    limit, when = crew.flow.why("requested", ITEMS[3])
    assert limit == "waits for the limit rate"
    assert when.startswith("it is scheduled at 20")
    at = datetime.now(UTC) + timedelta(days=1)
    crew.flow.schedule("quick", partition=ITEMS[0], scheduled_at=at)
    assert crew.flow.why("quick", ITEMS[0]) == [f"it is scheduled at {at:%Y-%m-%d %H:%M:%S} UTC"]


def test_with_a_worker_retrying_snoozing_and_over(crew: Crew) -> None:
    crew.start(queues={"assets": 4})
    crew.flow.schedule("retries_late")
    crew.flow.schedule("after", partition=ITEMS[0])
    crew.wait(lambda: crew.states("retries_late") == ["retrying"], "the first failure")
    due, failed = crew.flow.why("retries_late")
    assert due.startswith("its next attempt is due at 20")
    assert failed == "attempt 1 of 3 failed: ValueError: not today"
    crew.wait(lambda: crew.rows("SELECT 1 FROM flowstone.steps WHERE snoozes > 0"), "a look at the inputs")
    missing, when = crew.flow.why("after", ITEMS[0])
    assert missing == "waits for fragile [i0000], which nobody is about to make"
    assert when.startswith("it tries again at 20")
    crew.flow.materialize("quick", partition=ITEMS[0])
    assert crew.flow.why("quick", ITEMS[0]) == ["it is over: completed"]


def test_an_active_step_counts_more_than_a_newer_reused_one(crew: Crew) -> None:
    crew.lease()
    crew.flow.materialize("quick", partition=ITEMS[0], executor="sync")
    crew.place_step("quick", ITEMS[0], force=True)
    assert crew.flow.materialize("quick", partition=ITEMS[0]).state == "reused"
    (text,) = crew.flow.why("quick", ITEMS[0])
    assert text.startswith("0 jobs are ahead of it in the queue 'assets'")
