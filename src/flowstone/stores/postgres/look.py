"""One fetch from Oban's queue: jobs are acquired and the attempts of their steps started, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstone.core.approval import Approval
from flowstone.core.queueing import FetchedJob, LeftToOthers
from flowstone.core.run_details import RunInfo
from flowstone.core.step import Claim
from flowstone.stores.postgres import deciding, limits, operators, transport
from flowstone.stores.postgres.rows import claim_from
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_ANY_PRIORITY = 32767


@dataclass(slots=True)
class Look:
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
        rows = self.connection.execute(load_sql("queue/fetch"), parameters).fetchall()
        if rows:
            self.has_ranges = rows[0][17]
        expiries = [row[0] for row in rows if row[16] == transport.EXPIRY_WORKER]
        stale = [(row[0], row[1]) for row in rows if row[2] is None and row[16] == transport.WORKER]
        if stale:
            self._set_right(stale)
        if expiries:
            deciding.expire_jobs(self.connection, expiries)
        started = [row for row in rows if row[2] is not None]
        limited = [limits.LimitedStep(row[0], row[2], row[14]) for row in started if row[14]]
        parked = limits.admit(self.connection, limited)
        if parked or stale or expiries:
            # this node has room left, and there may be more behind them; its next poll is up to a second away
            transport.announce(self.connection, [self.queue])
        gates = deciding.open_gates(self.connection, [row[2] for row in started if row[15]])
        return [_fetched(row, gates.get(row[2], ())) for row in started if row[2] not in parked]

    def _set_right(self, stale: Sequence[tuple[int, int | None]]) -> None:
        """Put jobs back that started nothing: (job, step). Runs may be paused, and people may have moved jobs."""
        jobs = {"jobs": [job for job, _ in stale], "steps": [step for _, step in stale]}
        for run_id, number in self.connection.execute(load_sql("queue/withhold"), jobs).fetchall():
            self.connection.execute(load_sql("control/take_off"), {"run_id": run_id, "withdrawn": number})
        operators.reconcile(self.connection, stale)


def _fetched(row: Sequence[Any], approvals: tuple[Approval, ...]) -> FetchedJob:
    claim: Claim = claim_from(row[2:11])
    claim.approvals = approvals
    claim.run = RunInfo.from_json(row[19], id=claim.run_id, kind=row[18])
    claim.queued_seconds = max(0.0, row[22])
    return FetchedJob(
        job_id=row[0],
        claim=claim,
        snoozes=row[11],
        age_seconds=row[12],
        deps_timeout_seconds=row[13],
        shape=row[20],
        keys=row[21],
    )
