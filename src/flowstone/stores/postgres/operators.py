"""What people do to our jobs with Oban's own tools, followed in our tables: cancel, retry, pause.

Oban's tools write into `oban_jobs` and send signals; the truth about a step lies in our tables. So whatever they
did is found in the rows, done to the steps with everything that follows from it, and written to the audit log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.state import State
from flowstone.stores.postgres import deciding
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.following import propagate
from flowstone.stores.postgres.rows import CancelledStep
from flowstone.stores.postgres.sql import fetch_all, load_sql
from flowstone.stores.postgres.stopping import stop_items
from flowstone.stores.postgres.sub_runs import Stopping
from flowstone.stores.postgres.transactions import in_transaction

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_REVIVABLE = (State.FAILED, State.CANCELLED)


def follow_cancels(database: Database, *, within_seconds: float, signalled: Sequence[int]) -> int:
    """Cancel the steps of jobs that were cancelled with Oban's tools; return how many.

    Args:
        database: where.
        within_seconds: how far to look back for rows that were cancelled.
        signalled: running jobs that a signal names.
    """
    parameters = {"within_seconds": within_seconds, "signalled": list(signalled)}
    with database.connection() as connection:
        found = fetch_all(connection, _CancelledJob, "operators/cancelled", parameters)
    return _cancel(database, found)


def follow_cancels_left(database: Database, *, limit: int) -> int:
    """Cancel the steps of jobs whose rows do not say when they were cancelled; return how many."""
    with database.connection() as connection:
        found = fetch_all(connection, _CancelledJob, "operators/cancelled_left", {"limit": limit})
    return _cancel(database, found)


def reconcile(connection: Connection[TupleRow], jobs: Sequence[tuple[int, int | None]]) -> None:
    """Put jobs that were taken, and started nothing, back to what their steps say.

    A job that was retried although its step is over has the step run once more, or says in its `meta` why not.

    Args:
        connection: with the transaction in which they were taken.
        jobs: (job, step that it names).
    """
    named = {"jobs": [job for job, _ in jobs], "steps": [step for _, step in jobs]}
    notes: dict[int, str] = {job: "the step that it names is not recorded" for job, step in jobs if step is None}
    revived = []
    refused = []
    for step in fetch_all(connection, _RetriedStep, "operators/retried", named):
        if (why := step.why_not()) is None:
            revived.append(step.step_id)
        else:
            notes[step.job_id] = f"not run again: {why}"
            refused.append((step.job_id, step.step_id))
            log.warning("Job %s of Oban was retried and does not run again: %s.", step.job_id, why)
    if revived:
        connection.execute(load_sql("operators/revive"), {"steps": revived})
        log.info("%d steps run again because their jobs were retried with Oban's tools.", len(revived))
    if refused:
        connection.execute(
            load_sql("operators/note_refused"),
            {
                "jobs": [job for job, _ in refused],
                "steps": [step for _, step in refused],
                "notes": [notes[job] for job, _ in refused],
            },
        )
    connection.execute(load_sql("operators/reconcile"), named | {"notes": [notes.get(job) for job, _ in jobs]})


def resume_producers(connection: Connection[TupleRow], queue: str) -> None:
    """Notify our nodes that a queue goes on which was paused with Oban's tools; those of others are not meant."""
    producers = fetch_all(connection, _Producer, "operators/paused_producers", {"queue": queue})
    signals = [
        json.dumps({"action": "resume", "queue": queue, "ident": f"{one.name}.{one.node}"}) for one in producers
    ]
    if signals:
        connection.execute(load_sql("operators/signal"), {"payloads": signals})


class _CancelledJob(NamedTuple):
    """A step whose job was cancelled."""

    step_id: int
    job_id: int


class _RetriedStep(NamedTuple):
    """A step that is over and whose job was made available again."""

    step_id: int
    job_id: int
    state: State
    run_id: str
    is_item: bool
    durable: bool
    active: int | None

    def why_not(self) -> str | None:
        """Return why it cannot run again, if it cannot."""
        if self.state not in _REVIVABLE:
            return f"its step is {self.state}; have it computed again with `flowstone materialize --force`"
        if self.is_item:
            return f"it is an item of a scattered step; use `flowstone retry` with the run above {self.run_id}"
        if not self.durable:
            return f"its run {self.run_id} was not placed on this queue"
        if self.active is not None:
            return f"step {self.active} computes the same asset and partition already"
        return None


class _Producer(NamedTuple):
    """What a node of Oban calls itself."""

    name: str
    node: str


def _cancel(database: Database, found: Sequence[_CancelledJob]) -> int:
    if not found:
        return 0
    stopping = Stopping()
    jobs = {one.step_id: one.job_id for one in found}
    cancelled = in_transaction(database, lambda connection: _cancel_steps(connection, jobs, stopping))
    if stopping:
        stop_items(database, stopping)
    if cancelled:
        log.info("%d steps were cancelled because their jobs were, with Oban's tools.", cancelled)
    return cancelled


def _cancel_steps(connection: Connection[TupleRow], jobs: dict[int, int], stopping: Stopping) -> int:
    steps = {"ids": sorted(jobs)}
    # workers lock the job before the step
    connection.execute(load_sql("ledger/job_of_step"), steps)
    cancelled = fetch_all(connection, CancelledStep, "ledger/cancel_steps", steps)
    over = [step for step in cancelled if step.state is State.CANCELLED]
    deciding.cancel(connection, [step.id for step in over if step.had_requested], durable=True)
    noted = {"steps": [step.id for step in cancelled], "jobs": [jobs[step.id] for step in cancelled]}
    connection.execute(load_sql("operators/note_cancelled"), noted)
    propagate(connection, [step.moved for step in over], {}, durable=True, stopping=stopping)
    return len(cancelled)
