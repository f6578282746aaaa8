"""One fetch from Oban's queue: jobs are acquired and the attempts of their steps started, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.approval import Approval
from flowstone.core.queueing import FetchedJob, LeftToOthers
from flowstone.core.run_details import RunInfo
from flowstone.core.step import Claim
from flowstone.stores.postgres import deciding, limits, operators, transport
from flowstone.stores.postgres.sql import fetch_all, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_ANY_PRIORITY = 32767


class _FetchedRow(NamedTuple):
    """A job that was taken, with the attempt that it started.

    Args:
        job_id: the job.
        worker: the Oban worker that it names.
        named_step: the step that it names.
        has_ranges: whether large backfills have something to begin on this queue.
        step_id: the step; None when the job started nothing, and then nothing of what follows holds.
        age_seconds: time since the step was placed.
        has_approvals: whether the step has had requests for approval.
        kind: kind of its run.
        details: details of its run, as JSON.
        shape: digest of the shape of its asset where it was placed.
        keys: digest of what said there which partitions the asset has.
        queued_seconds: how long it was due.
    """

    job_id: int
    worker: str
    named_step: int | None
    has_ranges: bool
    step_id: int | None
    run_id: str
    asset: str
    partition: str
    attempt: int
    max_attempts: int
    token: int
    started_at: datetime
    forced: bool
    snoozes: int
    age_seconds: float
    limits: Mapping[str, int | str] | None
    has_approvals: bool
    deps_timeout_seconds: float
    kind: str
    details: Mapping[str, Any] | None
    shape: str | None
    keys: str | None
    queued_seconds: float


class _PausedRun(NamedTuple):
    """A paused run of which steps were taken off the queue."""

    run_id: str
    withdrawn: int


@dataclass(slots=True)
class QueueFetch:
    """One fetch of a worker from one queue.

    Args:
        connection: with a transaction open.
        queue: the queue.
        worker_id: the lease under which the attempts run.
        attempted_by: what Oban records of the node.
        left: what this worker has left to others.
    """

    connection: Connection[TupleRow]
    queue: str
    worker_id: str
    attempted_by: Sequence[str]
    left: LeftToOthers
    has_ranges: bool | None = None
    """Whether large backfills have something to begin on the queue; None while no job said so."""

    def take(self, demand: int, *, below: int = _ANY_PRIORITY) -> list[FetchedJob]:
        """Take jobs, the most urgent first.

        Args:
            demand: at most so many.
            below: only those that are more urgent than this priority.
        """
        parameters = {
            "queue": self.queue,
            "demand": demand,
            "below": below,
            "worker_id": self.worker_id,
            "worker": transport.WORKER,
            "attempted_by": list(self.attempted_by),
            **self.left.parameters(),
        }
        rows = fetch_all(self.connection, _FetchedRow, "queue/fetch", parameters)
        if rows:
            self.has_ranges = rows[0].has_ranges
        expiries = [row.job_id for row in rows if row.worker == transport.EXPIRY_WORKER]
        unstarted = [row for row in rows if row.step_id is None]
        stale = [(row.job_id, row.named_step) for row in unstarted if row.worker == transport.WORKER]
        if stale:
            self._set_right(stale)
        if expiries:
            deciding.expire_jobs(self.connection, expiries)
        started = {row.step_id: row for row in rows if row.step_id is not None}
        limited = [
            limits.LimitedStep(row.job_id, step_id, row.limits) for step_id, row in started.items() if row.limits
        ]
        parked = limits.admit(self.connection, limited)
        if parked or stale or expiries:
            # this node has room left, and there may be more behind them; its next poll is up to a second away
            transport.announce(self.connection, [self.queue])
        gates = deciding.open_gates(
            self.connection, [step_id for step_id, row in started.items() if row.has_approvals]
        )
        return [
            _fetched(step_id, row, gates.get(step_id, ()))
            for step_id, row in started.items()
            if step_id not in parked
        ]

    def _set_right(self, stale: Sequence[tuple[int, int | None]]) -> None:
        """Put jobs back that started nothing: (job, step). Runs may be paused, and people may have moved jobs."""
        jobs = {"jobs": [job for job, _ in stale], "steps": [step for _, step in stale]}
        for run in fetch_all(self.connection, _PausedRun, "queue/withhold", jobs):
            self.connection.execute(load_sql("control/take_off"), run._asdict())
        operators.reconcile(self.connection, stale)


def _fetched(step_id: int, row: _FetchedRow, approvals: tuple[Approval, ...]) -> FetchedJob:
    return FetchedJob(
        job_id=row.job_id,
        claim=Claim(
            step_id=step_id,
            run_id=row.run_id,
            asset=row.asset,
            partition=row.partition,
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            token=row.token,
            started_at=row.started_at,
            forced=row.forced,
            approvals=approvals,
            run=RunInfo.from_json(row.details, id=row.run_id, kind=row.kind),
            queued_seconds=max(0.0, row.queued_seconds),
        ),
        snoozes=row.snoozes,
        age_seconds=row.age_seconds,
        deps_timeout_seconds=row.deps_timeout_seconds,
        shape=row.shape,
        keys=row.keys,
    )
