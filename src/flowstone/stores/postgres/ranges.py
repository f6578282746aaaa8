"""Large backfills kept as ranges of partitions: placed in a few rows, made into steps as workers begin them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.queueing import FetchedJob, LeftToOthers
from flowstone.core.ranges import NewRange, UnstartedTarget
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import Claim, NewRun, Target
from flowstone.errors import PlanOutdatedError, RunConflictError
from flowstone.protocols import RangeStore
from flowstone.stores.postgres import transport
from flowstone.stores.postgres.counting import notify_done
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.following import propagate
from flowstone.stores.postgres.placing import CurrentStep, JoinedStep, config_hashes, insert_run
from flowstone.stores.postgres.rows import MovedStep, RunCounters, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_CHUNK = 1000
_MAX_EXAMINED = 5000
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

    def waiting(self, target: Target) -> UnstartedTarget | None:
        parameters = {"asset": target[0], "partition": target[1]}
        with self._database.connection() as connection:
            return fetch_one(connection, UnstartedTarget, "ranges/find", parameters)


def _open(connection: Connection[TupleRow], run: NewRun, new: NewRange) -> int:
    if not insert_run(connection, run, driver=None).is_new:
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
            "partitions": "\n".join(keys),
            "total": len(keys),
            "queue": new.queue,
            "priority": new.priority,
            "max_attempts": new.max_attempts,
            "forced": new.forced,
            "code_version": new.code_version,
            "config_hash": new.config_hash,
            "same_config": new.same_config,
            "tags": list(new.tags) or None,
            "unique_seconds": new.unique_seconds,
        }


class OpenRun(NamedTuple):
    """A run with partitions that nobody has begun, on one queue.

    Args:
        id: the run.
        priority: the most urgent one of what is left.
        is_limited: whether it has a window.
        deps_timeout_seconds: how long a step may wait for inputs from outside the run.
        kind: the verb that asked for it.
        details: what it is about, as JSON.
        shapes: digests of the shapes of its assets, by name.
        keys: digests of what says which partitions they have, by name.
    """

    id: str
    priority: int
    is_limited: bool
    deps_timeout_seconds: float
    kind: str
    details: Mapping[str, Any] | None
    shapes: Mapping[str, str] | None
    keys: Mapping[str, str] | None


class _BegunPartition(NamedTuple):
    """A partition that was taken out of a range.

    Args:
        id: its new step; None when another run computes it just now.
        state: state of the step: it runs, or is over already.
        token: fencing token of the attempt.
        started_at: start of the attempt.
        partition: the encoded partition.
        asset: the asset of the range.
        max_attempts: attempts in all.
        forced: whether it is computed although a success exists.
        priority: priority of the range.
        config_hash: how the run computes it.
        same_config: whether only work and results with that config will do.
    """

    id: int | None
    state: State | None
    token: int | None
    started_at: datetime | None
    partition: str
    asset: str
    max_attempts: int
    forced: bool
    priority: int
    config_hash: str | None
    same_config: bool


def open_runs(connection: Connection[TupleRow], queue: str, worker_id: str, left: LeftToOthers) -> list[OpenRun]:
    """Return the runs that have something to begin on a queue, the most urgent first."""
    parameters = {"queue": queue, "worker_id": worker_id, **left.parameters()}
    return fetch_all(connection, OpenRun, "ranges/open_runs", parameters)


@dataclass(slots=True)
class RangeFetch:
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
    examined: int = 0

    def begin(self, runs: Iterable[OpenRun], demand: int) -> list[FetchedJob]:
        """Begin up to `demand` partitions of these runs and return them.

        Raises:
            PlanOutdatedError: a partition was committed or ended in this moment; the transaction must be
                rolled back, and another one sees that.
        """
        for run in runs:
            room = demand - len(self.begun)
            if room and run.is_limited:
                window = fetch_value(self.connection, int, "ranges/lock_window", {"run_id": run.id})
                room = min(room, window or 0)
            before = len(self.begun)
            while room > len(self.begun) - before and self.examined < _MAX_EXAMINED:
                if not self._begin_chunk(run, room - (len(self.begun) - before)):
                    break
            if run.is_limited and len(self.begun) > before:
                placed = {"run_id": run.id, "placed": len(self.begun) - before}
                self.connection.execute(load_sql("ledger/count_placed"), placed)
        if self.examined >= _MAX_EXAMINED and len(self.begun) < demand:
            transport.announce(self.connection, [self.queue])
        return self.begun

    def _begin_chunk(self, run: OpenRun, demand: int) -> bool:
        """Begin partitions of the first chunk that nobody else holds; return whether there was one."""
        parameters = {"run_id": run.id, "queue": self.queue, "demand": demand, "worker_id": self.worker_id}
        taken = fetch_all(self.connection, _BegunPartition, "ranges/begin", parameters)
        self.examined += len(taken)
        running = [one for one in taken if one.state is State.RUNNING]
        self._refuse_committed([one for one in running if not one.forced])
        self._join(run, [one for one in taken if one.id is None])
        over = [
            MovedStep(one.id, run.id, one.state, None)
            for one in taken
            if one.id is not None and one.state is not None and one.state is not State.RUNNING
        ]
        propagate(self.connection, over, {}, durable=True)
        info = RunInfo.from_json(run.details, id=run.id, kind=run.kind)
        self.begun += [_job(run, info, one) for one in running]
        return bool(taken)

    def _refuse_committed(self, running: Sequence[_BegunPartition]) -> None:
        """Notice what was committed between the statement's view of the tables and its insert."""
        if not running:
            return
        first = running[0]
        targets = to_json([(one.asset, one.partition) for one in running])
        found = fetch_all(self.connection, CurrentStep, "catalog/current", {"targets": targets})
        if found and first.same_config:  # only what was made with the same config would serve
            hashes = config_hashes(self.connection, [one.step_id for one in found])
            found = [one for one in found if hashes[one.step_id] == first.config_hash]
        if found:
            raise PlanOutdatedError(first.asset, first.partition)

    def _join(self, run: OpenRun, elsewhere: Sequence[_BegunPartition]) -> None:
        """Let the run wait for partitions that are under way elsewhere."""
        if not elsewhere:
            return
        parameters = {
            "assets": [one.asset for one in elsewhere],
            "partitions": [one.partition for one in elsewhere],
            "priorities": [one.priority for one in elsewhere],
        }
        active = fetch_all(self.connection, JoinedStep, "ledger/join_active", parameters)
        if len(active) < len(elsewhere):
            raise PlanOutdatedError(elsewhere[0].asset, elsewhere[0].partition)
        joined = self._refuse_conflicts(run, elsewhere, active)
        overtaking = [(one.job_id, one.priority) for one in joined if one.job_id is not None]
        transport.raise_priority(self.connection, overtaking)
        joins = {"run_id": run.id, "steps": [one.id for one in joined]}
        self.connection.execute(load_sql("ledger/insert_joins"), joins)

    def _refuse_conflicts(
        self, run: OpenRun, elsewhere: Sequence[_BegunPartition], active: list[JoinedStep]
    ) -> list[JoinedStep]:
        """Fail the partitions that are under way with another config; return what may be joined."""
        first = elsewhere[0]  # they all come of one range
        conflicts = [one for one in active if first.same_config and one.config_hash != first.config_hash]
        if not conflicts:
            return active
        errors = {}
        for one in conflicts:
            partition = elsewhere[one.position - 1].partition
            errors[partition] = str(RunConflictError(first.asset, partition, one.run_id))
        parameters = {
            "run_id": run.id,
            "asset": first.asset,
            "partitions": list(errors),
            "errors": list(errors.values()),
            "error_type": f"{RunConflictError.__module__}.{RunConflictError.__qualname__}",
            "config_hash": first.config_hash,
            "priority": first.priority,
            "queue": self.queue,
        }
        refused = fetch_column(self.connection, int, "ranges/refuse", parameters)
        ended = [MovedStep(step_id, run.id, State.FAILED, None) for step_id in refused]
        propagate(self.connection, ended, {}, durable=True)
        return [one for one in active if one not in conflicts]


def _job(run: OpenRun, info: RunInfo, begun: _BegunPartition) -> FetchedJob:
    assert begun.id is not None
    assert begun.token is not None
    assert begun.started_at is not None
    return FetchedJob(
        job_id=-begun.id,
        claim=Claim(
            step_id=begun.id,
            run_id=run.id,
            asset=begun.asset,
            partition=begun.partition,
            attempt=1,
            max_attempts=begun.max_attempts,
            token=begun.token,
            started_at=begun.started_at,
            forced=begun.forced,
            run=info,
        ),
        snoozes=0,
        age_seconds=0.0,
        deps_timeout_seconds=run.deps_timeout_seconds,
        shape=(run.shapes or {}).get(begun.asset),
        keys=(run.keys or {}).get(begun.asset),
    )


def cancel(connection: Connection[TupleRow], run_id: str) -> None:
    """Make cancelled steps of what nobody has begun, and count them."""
    ended = connection.execute(load_sql("ranges/cancel"), {"run_id": run_id}).rowcount
    if ended:
        counts = {"run_id": run_id, "finished": ended, "placed": 0, "failures": 0, "cancellations": ended}
        runs = fetch_all(connection, RunCounters, "ledger/count_finished", {"runs": to_json([counts])})
        notify_done(connection, [f"r:{run.run_id}" for run in runs if not run.open_steps and run.watched])
