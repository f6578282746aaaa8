"""Oban's table as this store uses it: the one place that knows the contract of `oban_jobs`.

A job is inserted, moved and closed by the transaction that does the same to its step; Oban itself is only
notified through its own channel. Ids are drawn from Oban's sequence beforehand, so that step and
job know each other without a second write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flowstone.core.state import State
from flowstone.stores.postgres.rows import JOB_STATES, MovedStep, to_json
from flowstone.stores.postgres.sql import fetch_column, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

WORKER = "flowstone.executors.oban.job.StepWorker"
"""Name of the Oban worker class in every job of ours."""

EXPIRY_WORKER = "flowstone.Expiry"
"""Name in the `worker` column of the jobs that end the time of a request for approval.

Statements that look for our rows write both names out, because only then do the partial indexes serve them.
"""

_RELEASED = frozenset({State.PENDING, State.SCHEDULED, State.WAITING, State.AWAITING_APPROVAL})
_FAILED = frozenset({State.FAILED, State.RETRYING})


def enqueue(connection: Connection[TupleRow], steps: Sequence[int]) -> set[str]:
    """Insert the jobs of steps that have a job id; return the queues with something to do now."""
    if not steps:
        return set()
    parameters = {"steps": list(steps), "worker": WORKER}
    return set(fetch_column(connection, str, "queue/enqueue", parameters))


def settle(connection: Connection[TupleRow], moved: Iterable[MovedStep], delays: Mapping[int, object]) -> set[str]:
    """Move jobs along with their steps.

    Args:
        connection: with the transaction in which the steps moved.
        moved: the steps.
        delays: seconds until those that go on later, by step.

    Returns:
        Queues that have something to do now because of it.
    """
    jobs = [
        # a retry that is due now does not wait for Oban's stager, which polls once a second
        {
            "id": step.job_id,
            "step_id": step.id,
            "state": "available" if delay == 0 and not step.state.is_terminal else JOB_STATES[step.state],
            "delay_seconds": delay,
            "releases": step.state in _RELEASED,
            "failed": step.state in _FAILED,
        }
        for step, delay in ((step, delays.get(step.id)) for step in moved)
        if step.job_id is not None and step.job_id > 0 and step.state in JOB_STATES
    ]
    if jobs:
        connection.execute(load_sql("queue/settle"), {"jobs": to_json(jobs)})
    again = [job["id"] for job in jobs if job["state"] == "available"]
    if not again:
        return set()
    return set(fetch_column(connection, str, "queue/queues_of", {"jobs": again}))


def place_again(connection: Connection[TupleRow], steps: Sequence[int]) -> set[str]:
    """Put steps that were begun from a range, and go on later, on the queue; return the queues with work now."""
    if not steps:
        return set()
    return enqueue(connection, fetch_column(connection, int, "ranges/place_again", {"steps": list(steps)}))


def range_queues(connection: Connection[TupleRow], runs: Sequence[str]) -> set[str]:
    """Return the queues on which runs have partitions that nobody has begun."""
    if not runs:
        return set()
    return set(fetch_column(connection, str, "ranges/queues", {"runs": list(runs)}))


def raise_priority(connection: Connection[TupleRow], jobs: Sequence[tuple[int, int]]) -> None:
    """Let queued jobs overtake: (job id, new priority)."""
    if jobs:
        ids, priorities = [job for job, _ in jobs], [priority for _, priority in jobs]
        connection.execute(load_sql("queue/raise_priority"), {"ids": ids, "priorities": priorities})


def advance_jobs(connection: Connection[TupleRow], jobs: Mapping[int, int]) -> None:
    """Have steps that wait for inputs poll soon: step id by job id."""
    if jobs:
        parameters = {"ids": list(jobs), "steps": list(jobs.values())}
        connection.execute(load_sql("queue/advance_jobs"), parameters)


def announce(connection: Connection[TupleRow], queues: Iterable[str]) -> None:
    """Notify Oban's nodes which queues have new jobs, in one statement."""
    payloads = [json.dumps({"queue": queue}) for queue in sorted(queues)]
    if payloads:
        connection.execute(load_sql("queue/notify_inserted"), {"payloads": payloads})
