"""What worker nodes ask of the store: work, leases, the rescue of what lost workers held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowstone.core.outcome import Failed
from flowstone.core.queueing import FetchedJob
from flowstone.core.state import State
from flowstone.core.step import Claim
from flowstone.stores.postgres import limits, transport
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.following import Follow, follow_up, refill
from flowstone.stores.postgres.rows import claim_from, to_json
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_BATCH = 1000
_LOST = "WorkerLost"
_APART_SECONDS = 2.0


class PostgresQueue:
    """Implements `flowstone.protocols.DurableQueue` over `oban_jobs` and our tables.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def fetch(self, queue: str, *, demand: int, worker_id: str, attempted_by: Sequence[str]) -> list[FetchedJob]:
        """See `flowstone.protocols.DurableQueue`."""
        parameters = {
            "queue": queue,
            "demand": demand,
            "worker_id": worker_id,
            "worker": transport.WORKER,
            "attempted_by": list(attempted_by),
        }
        with self._database.transaction() as connection:
            rows = connection.execute(load_sql("queue/fetch"), parameters).fetchall()
            stale = [row[0] for row in rows if row[1] and row[2] is None]
            foreign = [row[0] for row in rows if not row[1]]
            if stale:
                _withhold(connection, stale)
                connection.execute(load_sql("queue/drop_jobs"), {"jobs": stale})
            if foreign:
                connection.execute(load_sql("queue/return_jobs"), {"jobs": foreign})
            started = [row for row in rows if row[1] and row[2] is not None]
            parked = limits.admit(connection, [(row[0], row[2], row[14]) for row in started if row[14]])
            if parked or stale:
                # this node has room left, and there may be more behind them; its next look is up to a second away
                transport.announce(connection, [queue])
        return [_fetched(row) for row in started if row[2] not in parked]

    def cancelling(self, worker_id: str) -> list[int]:
        """See `flowstone.protocols.DurableQueue`."""
        with self._database.connection() as connection:
            return [row[0] for row in connection.execute(load_sql("queue/cancelling"), {"worker": worker_id})]

    def node_limits(self) -> dict[str, int]:
        """See `flowstone.protocols.DurableQueue`."""
        with self._database.connection() as connection:
            return dict(connection.execute(load_sql("queues/limits")).fetchall())

    def held(self, worker_id: str) -> list[Claim]:
        """See `flowstone.protocols.DurableQueue`."""
        with self._database.connection() as connection:
            return [claim_from(row) for row in connection.execute(load_sql("queue/held"), {"worker": worker_id})]

    def rescue(self) -> int:
        """See `flowstone.protocols.DurableQueue`."""
        with self._database.transaction() as connection:
            connection.execute(load_sql("workers/declare_lost"))
            connection.execute(load_sql("workers/forget_old"))
        rescued = 0
        while True:
            with self._database.transaction() as connection:
                orphans = connection.execute(load_sql("workers/orphans"), {"limit": _BATCH}).fetchall()
                if orphans:
                    _end_orphans(connection, orphans, durable=self._database.durable)
                rescued += len(orphans)
            if len(orphans) < _BATCH:
                return rescued

    def sweep(self) -> int:
        """See `flowstone.protocols.DurableQueue`."""
        found = 0
        with self._database.transaction() as connection:
            if self._database.durable:
                unplaced = [row[0] for row in connection.execute(load_sql("queue/unplaced"), {"limit": _BATCH})]
                transport.announce(connection, transport.enqueue(connection, unplaced))
                found += len(unplaced) + _refill_idle(connection) + limits.repair(connection)
            found += _end_driverless(connection, durable=self._database.durable)
        return found


@dataclass(slots=True)
class Lease:
    """The lease of this process: a row that its heartbeat renews.

    Args:
        database: where.
    """

    database: Database
    id: str

    def register(self, *, kind: str, host: str, pid: int, queues: dict[str, int], lease_seconds: float) -> None:
        """Insert the row."""
        with self.database.connection() as connection:
            connection.execute(
                load_sql("workers/register"),
                {
                    "id": self.id,
                    "kind": kind,
                    "host": host,
                    "pid": pid,
                    "queues": to_json(queues),
                    "lease_seconds": lease_seconds,
                },
            )

    def remove(self) -> None:
        """Delete the row: whatever this process still held is free at once."""
        with self.database.connection() as connection:
            connection.execute(load_sql("workers/remove"), {"id": self.id})


def alive_workers(database: Database) -> list[dict[str, Any]]:
    """Return the workers with a valid lease."""
    names = ("id", "kind", "host", "pid", "queues", "started_at", "beat_at")
    with database.connection() as connection:
        rows = connection.execute(load_sql("workers/alive")).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def _fetched(row: Sequence[Any]) -> FetchedJob:
    claim: Claim = claim_from(row[2:11])
    return FetchedJob(
        job_id=row[0], claim=claim, snoozes=row[11], age_seconds=row[12], deps_timeout_seconds=row[13]
    )


def _withhold(connection: Connection[TupleRow], jobs: Sequence[int]) -> None:
    """Let steps of paused runs wait without a job, and off the windows of their runs."""
    for run_id, number in connection.execute(load_sql("queue/withhold"), {"jobs": list(jobs)}).fetchall():
        connection.execute(load_sql("control/take_off"), {"run_id": run_id, "withdrawn": number})


def _end_orphans(connection: Connection[TupleRow], orphans: Sequence[Sequence[Any]], *, durable: bool) -> None:
    """End the attempts of lost workers; each has used up an attempt.

    What runs again does so at once, the first time. One of those that died together may have killed the
    others: before their last attempts they are kept apart, so that it takes nobody with it.
    """
    rows = []
    delays: dict[int, object] = {}
    turns: Counter[str] = Counter()
    for step_id, token, attempt, most, asset, _key, worker, _run, _started, placed in orphans:
        text = f"The worker {worker} was lost while attempt {attempt} of {asset} ran: its lease ran out."
        error = Failed(text, _LOST, retryable=True)
        again = placed and attempt < most
        if again:
            suspected = attempt > 1 or attempt + 1 == most
            delays[step_id] = turns[worker] * _APART_SECONDS if suspected else 0
            turns[worker] += suspected
        rows.append(
            {
                "id": step_id,
                "token": token,
                "state": State.RETRYING if again else State.FAILED,
                "error": error.error,
                "error_type": error.error_type,
                "delay_seconds": delays.get(step_id),
                "gives_back": False,
                "finished_at": datetime.now(UTC),
            }
        )
    parameters = {"rows": to_json(rows), "payload_steps": [], "versions": [], "payloads": []}
    moved = connection.execute(load_sql("ledger/finish"), parameters).fetchall()
    steps = [Follow(row[0], row[1], State(row[4]), row[5], limited=row[6]) for row in moved]
    follow_up(connection, steps, delays, durable=durable)


def _refill_idle(connection: Connection[TupleRow]) -> int:
    placed: list[int] = []
    for run_id, room, at_work in connection.execute(load_sql("queue/idle_windows")).fetchall():
        connection.execute(load_sql("queue/set_window"), {"run_id": run_id, "placed": at_work})
        placed += refill(connection, run_id, room)
    transport.announce(connection, transport.enqueue(connection, placed))
    return len(placed)


def _end_driverless(connection: Connection[TupleRow], *, durable: bool) -> int:
    ids = [row[0] for row in connection.execute(load_sql("workers/lost_drivers"), {"limit": _BATCH})]
    if not ids:
        return 0
    rows = connection.execute(load_sql("ledger/cancel_steps"), {"ids": ids}).fetchall()
    steps = [Follow(row[0], row[1], State(row[2]), row[3], limited=row[4]) for row in rows]
    follow_up(connection, steps, {}, durable=durable)
    return len(steps)
