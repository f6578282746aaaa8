from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.control import StepDiagnosis, describe_target
from flowstone.core.state import State

NOW = datetime(2024, 1, 31, 12, 0, tzinfo=UTC)
READY = StepDiagnosis(
    step_id=1,
    state=State.PENDING,
    reason=None,
    waiting_on=0,
    scheduled_at=None,
    attempt=0,
    max_attempts=3,
    error=None,
    parked_for=None,
    job_id=5,
    queue="assets",
    worker=None,
    started_at=None,
    run_id="r1",
    run_paused=False,
    max_concurrency=None,
    active_steps=0,
    durable=True,
    job_state="available",
    queue_paused=False,
    workers=2,
    ahead=3,
)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "3 jobs are ahead of it in the queue 'assets', served by 2 workers"),
        ({"job_state": "executing"}, "it is about to start"),
        ({"durable": False, "job_id": None, "job_state": None, "workers": 0}, "it is about to start"),
        ({"workers": 0}, "no worker serves the queue 'assets': start `flowstone worker --queue assets`"),
        ({"run_paused": True}, "its run r1 is paused: `flowstone resume r1`"),
        ({"queue_paused": True}, "the queue 'assets' is paused: `flowstone resume --queue assets`"),
        (
            {"parked_for": "crane", "reason": "waits for the limit crane"},
            "it waits for a slot of the limit 'crane'",
        ),
        (
            {"max_concurrency": 4, "active_steps": 4, "job_id": None, "job_state": None},
            "the window of its run is full: 4 of at most 4 steps are placed",
        ),
        ({"state": State.SCHEDULED, "scheduled_at": NOW}, "it is scheduled at 2024-01-31 12:00:00 UTC"),
        ({"state": State.RETRYING, "scheduled_at": NOW}, "its next attempt is due at 2024-01-31 12:00:00 UTC"),
        ({"state": State.WAITING, "scheduled_at": NOW, "reason": "waits for x"}, "waits for x"),
        (
            {"state": State.FAILED, "error": "Traceback (most recent call last):\n  File x\nValueError: no\n"},
            "it is over: failed (ValueError: no)",
        ),
        ({"state": State.COMPLETED}, "it is over: completed"),
        ({"state": State.SKIPPED, "reason": "nothing new"}, "it is over: skipped (nothing new)"),
        (
            {"state": State.RUNNING, "worker": "w1", "started_at": NOW, "attempt": 2},
            "it is running on w1 since 2024-01-31 12:00:00 UTC, attempt 2",
        ),
        (
            {"state": State.WAITING, "open_inputs": (("raw", "d:2024-01-01", State.RETRYING),)},
            "input raw [2024-01-01] is retrying",
        ),
    ],
)
def test_the_first_reason(changes: dict[str, object], first: str) -> None:
    assert replace(READY, **changes).explain()[0] == first  # type: ignore[arg-type]


def test_times_are_notified_in_utc() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5)))
    diagnosis = replace(READY, state=State.SCHEDULED, scheduled_at=there)
    assert diagnosis.explain() == ["it is scheduled at 2024-01-31 12:00:00 UTC"]


@given(
    state=st.sampled_from(State),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    texts=st.tuples(*[st.none() | st.text(max_size=20)] * 3),
    job_id=st.none() | st.just(5),
    workers=st.integers(0, 2),
    limit=st.none() | st.integers(1, 3),
)
def test_there_is_always_something_to_say(
    state: State,
    flags: tuple[bool, bool, bool],
    texts: tuple[str | None, ...],
    job_id: int | None,
    workers: int,
    limit: int | None,
) -> None:
    diagnosis = replace(
        READY,
        state=state,
        run_paused=flags[0],
        queue_paused=flags[1],
        durable=flags[2],
        reason=texts[0],
        error=texts[1],
        parked_for=texts[2],
        job_id=job_id,
        workers=workers,
        max_concurrency=limit,
    )
    assert all(diagnosis.explain())


def test_targets_for_people() -> None:
    assert describe_target("orders", "") == "orders"
    assert describe_target("orders", "d:2024-01-01") == "orders [2024-01-01]"


def test_what_is_ahead_is_counted_to_a_limit() -> None:
    """oban#1140: counting a long queue exactly took longer than a person waits."""
    known = dict.fromkeys(StepDiagnosis.__dataclass_fields__)
    known |= {"state": State.PENDING, "queue": "q", "durable": True, "job_state": "available", "workers": 2}
    known |= {"waiting_on": 0, "paused_nodes": 0, "open_inputs": (), "job_id": 1}
    assert StepDiagnosis(**known | {"ahead": 10_001}).explain() == [  # type: ignore[arg-type]
        "more than 10,000 jobs are ahead of it in the queue 'q', served by 2 workers"
    ]
    assert "9,999 jobs are ahead" in StepDiagnosis(**known | {"ahead": 9_999}).explain()[0]  # type: ignore[arg-type]
