"""Large backfills kept as ranges of partitions: placed in a few rows, made into steps as workers begin them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any

from flowstone.core.queueing import FetchedJob, LeftToOthers
from flowstone.core.ranges import NewRange, NotBegun
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import Claim, NewRun, Target
from flowstone.errors import PlanOutdatedError, RunConflictError
from flowstone.protocols import RangeStore
from flowstone.stores.postgres import transport
from flowstone.stores.postgres.counting import Follow, notify_done
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.following import follow_up
from flowstone.stores.postgres.placing import config_hashes, insert_run
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_CHUNK = 1000
_MOST_LOOKED_AT = 5000
"""Partitions read in one transaction: when most of them are there already, others get their turn."""


class PostgresRanges(RangeStore):
    """Implements `flowstone.protocols.RangeStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_run(self, run: NewRun, new: NewRange) -> int:
        # the partitions can be read only once, so this transaction is not tried again; it only inserts
        with self._database.transaction() as connection:
            return _open(connection, run, new)

    def waiting(self, target: Target) -> NotBegun | None:
        parameters = {"asset": target[0], "partition": target[1]}
        with self._database.connection() as connection:
            row = connection.execute(load_sql("ranges/find"), parameters).fetchone()
        return NotBegun(row[0], row[1], row[2], int(row[3])) if row else None


def _open(connection: Connection[TupleRow], run: NewRun, new: NewRange) -> int:
    is_new, _durable, _limit = insert_run(connection, run, driver=None)
    if not is_new:
        return 0
    totals: list[int] = []
    with connection.cursor() as cursor:
        cursor.executemany(load_sql("ranges/insert"), _chunks(run, new, totals))
    total = sum(totals)
    connection.execute(
        load_sql("ledger/count_opened"), {"run_id": run.id, "opened": total, "active": 0, "failures": 0}
    )
    transport.announce(connection, [new.queue])
    return total


def _chunks(run: NewRun, new: NewRange, totals: list[int]) -> Iterator[dict[str, object]]:
    for keys in batched(new.partitions, _CHUNK):
        totals.append(len(keys))
        yield {
            "run_id": run.id,
            "asset": new.asset,
            "partitions": list(keys),
            "total": len(keys),
            "queue": new.queue,
            "priority": new.priority,
            "max_attempts": new.max_attempts,
            "forced": new.forced,
            "code_version": new.code_version,
            "config_hash": new.config_hash,
            "exact": new.exact,
            "tags": list(new.tags) or None,
            "unique_seconds": new.unique_seconds,
        }


@dataclass(slots=True)
class OpenRun:
    """A run with partitions that nobody has begun, on one queue."""

    id: str
    priority: int
    is_limited: bool
    deps_timeout_seconds: float
    info: RunInfo
    shapes: Mapping[str, str] | None
    keys: Mapping[str, str] | None


def open_runs(connection: Connection[TupleRow], queue: str, worker_id: str, left: LeftToOthers) -> list[OpenRun]:
    """Return the runs that have something to begin on a queue, the most urgent first."""
    parameters = {"queue": queue, "worker_id": worker_id, **left.parameters()}
    return [
        OpenRun(run_id, priority, limited, timeout, RunInfo.from_json(details, id=run_id, kind=kind), shapes, keys)
        for run_id, priority, limited, timeout, kind, details, shapes, keys in connection.execute(
            load_sql("ranges/open_runs"), parameters
        )
    ]


@dataclass(slots=True)
class Beginning:
    """Begins partitions of ranges for one worker, within one transaction.

    Args:
        connection: with the transaction open.
        queue: the queue that has room.
        worker_id: the lease under which the attempts run.
    """

    connection: Connection[TupleRow]
    queue: str
    worker_id: str
    begun: list[FetchedJob] = field(default_factory=list)
    looked_at: int = 0

    def begin(self, runs: Iterable[OpenRun], demand: int) -> list[FetchedJob]:
        """Begin up to `demand` partitions of these runs and return them.

        Raises:
            PlanOutdatedError: a partition was committed or ended in this moment; the transaction must be
                rolled back, and another one sees that.
        """
        for run in runs:
            room = demand - len(self.begun)
            if room and run.is_limited:
                row = self.connection.execute(load_sql("ranges/lock_window"), {"run_id": run.id}).fetchone()
                room = min(room, row[0]) if row else 0
            before = len(self.begun)
            while room > len(self.begun) - before and self.looked_at < _MOST_LOOKED_AT:
                if not self._begin_chunk(run, room - (len(self.begun) - before)):
                    break
            if run.is_limited and len(self.begun) > before:
                placed = {"run_id": run.id, "placed": len(self.begun) - before}
                self.connection.execute(load_sql("ledger/count_placed"), placed)
        if self.looked_at >= _MOST_LOOKED_AT and len(self.begun) < demand:
            transport.announce(self.connection, [self.queue])
        return self.begun

    def _begin_chunk(self, run: OpenRun, demand: int) -> bool:
        """Begin partitions of the first chunk that nobody else holds; return whether there was one."""
        parameters = {"run_id": run.id, "queue": self.queue, "demand": demand, "worker_id": self.worker_id}
        rows = self.connection.execute(load_sql("ranges/begin"), parameters).fetchall()
        self.looked_at += len(rows)
        running = [row for row in rows if row[1] == State.RUNNING]
        self._refuse_committed([row for row in running if not row[7]])
        self._join(run, [row for row in rows if row[0] is None])
        over = [Follow(row[0], run.id, State(row[1]), None) for row in rows if row[1] not in (None, State.RUNNING)]
        follow_up(self.connection, over, {}, durable=True)
        self.begun += [_job(run, row) for row in running]
        return bool(rows)

    def _refuse_committed(self, running: Sequence[Sequence[Any]]) -> None:
        """Notice what was committed between the statement's view of the tables and its insert."""
        if not running:
            return
        targets = to_json([(row[5], row[4]) for row in running])
        found = self.connection.execute(load_sql("catalog/current"), {"targets": targets}).fetchall()
        if found and running[0][10]:  # only what was made with the same config would serve
            hashes = config_hashes(self.connection, [step_id for _, step_id in found])
            found = [one for one in found if hashes[one[1]] == running[0][9]]
        if found:
            raise PlanOutdatedError(running[0][5], running[0][4])

    def _join(self, run: OpenRun, rows: Sequence[Sequence[Any]]) -> None:
        """Let the run wait for partitions that are under way elsewhere."""
        if not rows:
            return
        parameters = {
            "assets": [row[5] for row in rows],
            "partitions": [row[4] for row in rows],
            "priorities": [row[8] for row in rows],
        }
        found = self.connection.execute(load_sql("ledger/join_active"), parameters).fetchall()
        if len(found) < len(rows):
            raise PlanOutdatedError(rows[0][5], rows[0][4])
        found = self._refuse_conflicts(run, rows, found)
        transport.raise_priority(self.connection, [(row[4], row[5]) for row in found if row[4] is not None])
        joins = {"run_id": run.id, "steps": [row[1] for row in found]}
        self.connection.execute(load_sql("ledger/insert_joins"), joins)

    def _refuse_conflicts(
        self, run: OpenRun, rows: Sequence[Sequence[Any]], found: list[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Fail the partitions that are under way with another config; return what may be joined."""
        conflicts = {row[0]: row[2] for row in found if rows[0][10] and row[6] != rows[0][9]}
        if not conflicts:
            return found
        errors = {
            rows[position - 1][4]: str(RunConflictError(rows[0][5], rows[position - 1][4], other))
            for position, other in conflicts.items()
        }
        parameters = {
            "run_id": run.id,
            "asset": rows[0][5],
            "partitions": list(errors),
            "errors": list(errors.values()),
            "error_type": f"{RunConflictError.__module__}.{RunConflictError.__qualname__}",
            "config_hash": rows[0][9],
            "priority": rows[0][8],
            "queue": self.queue,
        }
        refused = self.connection.execute(load_sql("ranges/refuse"), parameters).fetchall()
        ended = [Follow(row[0], run.id, State.FAILED, None) for row in refused]
        follow_up(self.connection, ended, {}, durable=True)
        return [row for row in found if row[0] not in conflicts]


def _job(run: OpenRun, row: Sequence[Any]) -> FetchedJob:
    step_id, _state, token, started_at, partition, asset, max_attempts, forced, *_ = row
    claim = Claim(step_id, run.id, asset, partition, 1, max_attempts, token, started_at, forced, run=run.info)
    return FetchedJob(
        job_id=-step_id,
        claim=claim,
        snoozes=0,
        age_seconds=0.0,
        deps_timeout_seconds=run.deps_timeout_seconds,
        shape=(run.shapes or {}).get(asset),
        keys=(run.keys or {}).get(asset),
    )


def cancel(connection: Connection[TupleRow], run_id: str) -> None:
    """Make cancelled steps of what nobody has begun, and count them."""
    ended = connection.execute(load_sql("ranges/cancel"), {"run_id": run_id}).rowcount
    if ended:
        counts = {"run_id": run_id, "finished": ended, "placed": 0, "failures": 0, "cancellations": ended}
        rows = connection.execute(load_sql("ledger/count_finished"), {"runs": to_json([counts])})
        notify_done(connection, [f"r:{one}" for one, left, watched, *_ in rows if not left and watched])
