"""What a worker begins without jobs: partitions of large backfills, and ready steps of backfills and retries.

`open_runs` finds who has something to begin on a queue, `DirectFetch` begins it, in the transaction in which the
worker also takes jobs (decisions 12 and 30 in docs/adr).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import Attempt, LeftToOthers
from flowstone.errors import PlanOutdatedError, RunConflictError
from flowstone.sql import load_sql
from flowstone.stores.postgres import oban_jobs
from flowstone.stores.postgres.catalog import config_hashes
from flowstone.stores.postgres.commit import propagate
from flowstone.stores.postgres.placing import CurrentStep, JoinedStep
from flowstone.stores.postgres.rows import MovedStep, StartedStep, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


_MAX_EXAMINED = 5000
"""Partitions read in one transaction: when most of them are there already, others get their turn."""


class OpenRun(NamedTuple):
    """A run with partitions that nobody has begun, on one queue.

    Args:
        id: the run.
        priority: the most urgent one of what is left.
        is_limited: whether it has a window.
        deps_timeout_seconds: how long a step may wait for inputs from outside the run.
        kind: the verb that asked for it.
        created_at: when it was placed, and its partitions with it.
        details: what it is about, as JSON.
        shapes: digests of the shapes of its assets, by name.
        keys: digests of what says which partitions they have, by name.
        is_range: whether they are partitions of a range; else steps that need no job.
    """

    id: str
    priority: int
    is_limited: bool
    deps_timeout_seconds: float
    kind: str
    created_at: datetime
    details: Mapping[str, Any] | None
    shapes: Mapping[str, str] | None
    keys: Mapping[str, str] | None
    is_range: bool

    def info(self) -> RunInfo:
        """Return what its attempts know of it."""
        return RunInfo.from_json(self.details, id=self.id, kind=self.kind)

    def started(
        self,
        info: RunInfo,
        step: StartedStep,
        *,
        queued_seconds: float,
        snoozes: int = 0,
        age_seconds: float = 0.0,
    ) -> Attempt:
        """Return the attempt of one of its steps that started without a job."""
        return step.started(
            info,
            queued_seconds=queued_seconds,
            job_id=-step.step_id,
            snoozes=snoozes,
            age_seconds=age_seconds,
            deps_timeout_seconds=self.deps_timeout_seconds,
            shape=(self.shapes or {}).get(step.asset),
            keys=(self.keys or {}).get(step.asset),
        )


@dataclass(slots=True)
class _BegunStep(StartedStep):
    """A step that was ready, and runs now."""

    priority: int
    snoozes: int
    age_seconds: float
    queued_seconds: float


@dataclass(slots=True)
class _BegunPartition(StartedStep):
    """A partition that was taken out of a range; its attempt started only if its state says so.

    Args:
        state: state of its new step: it runs, or is over already; None when another run computes it just now.
        priority: priority of the range.
        config_hash: how the run computes it.
        same_config: whether only work and results with that config will do.
    """

    state: State | None
    priority: int
    config_hash: str | None
    same_config: bool


def open_runs(connection: Connection[TupleRow], queue: str, worker_id: str, left: LeftToOthers) -> list[OpenRun]:
    """Return the runs that have something to begin on a queue without jobs, the most urgent first."""
    parameters = {"queue": queue, "worker_id": worker_id, **left.parameters()}
    return fetch_all(connection, OpenRun, "ranges/open_runs", parameters)


@dataclass(slots=True)
class DirectFetch:
    """Begins what needs no job for one worker, within one transaction: partitions of ranges, ready steps.

    Args:
        connection: with the transaction open.
        queue: the queue that has room.
        worker_id: the lease under which the attempts run.
        left: what this worker has left to others.
    """

    connection: Connection[TupleRow]
    queue: str
    worker_id: str
    left: LeftToOthers
    begun: list[Attempt] = field(default_factory=list)
    examined: int = 0

    def begin(self, runs: Iterable[OpenRun], demand: int) -> list[Attempt]:
        """Begin up to `demand` partitions and steps of these runs and return them.

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
            if not run.is_range and room:
                self.begun += self._begin_placed(run, room)
            while run.is_range and room > len(self.begun) - before and self.examined < _MAX_EXAMINED:
                if not self._begin_chunk(run, room - (len(self.begun) - before)):
                    break
            if run.is_limited and len(self.begun) > before:
                placed = {"run_id": run.id, "placed": len(self.begun) - before}
                self.connection.execute(load_sql("ledger/count_placed"), placed)
        if self.examined >= _MAX_EXAMINED and len(self.begun) < demand:
            oban_jobs.announce(self.connection, [self.queue])
        return self.begun

    def _begin_placed(self, run: OpenRun, demand: int) -> list[Attempt]:
        """Begin steps of a run that are ready."""
        parameters = {"run_id": run.id, "queue": self.queue, "demand": demand, "worker_id": self.worker_id}
        found = fetch_all(self.connection, _BegunStep, "begin_placed", parameters | self.left.parameters())
        info = run.info()
        return [
            run.started(
                info,
                one,
                queued_seconds=one.queued_seconds,
                snoozes=one.snoozes,
                age_seconds=one.age_seconds,
            )
            # as they were chosen: the statement returns them in any order
            for one in sorted(found, key=lambda one: (one.priority, one.step_id))
        ]

    def _begin_chunk(self, run: OpenRun, demand: int) -> bool:
        """Begin partitions of the first chunk that nobody else holds; return whether there was one."""
        parameters = {"run_id": run.id, "queue": self.queue, "demand": demand, "worker_id": self.worker_id}
        taken = fetch_all(self.connection, _BegunPartition, "begin", parameters)
        self.examined += len(taken)
        running = [one for one in taken if one.state is State.RUNNING]
        self._refuse_committed([one for one in running if not one.forced])
        self._join(run, [one for one in taken if one.state is None])
        over = [
            MovedStep(one.step_id, run.id, one.state, None)
            for one in taken
            if one.state is not None and one.state is not State.RUNNING
        ]
        propagate(self.connection, over, {}, durable=True)
        info = run.info()
        self.begun += [
            run.started(info, one, queued_seconds=(one.started_at - run.created_at).total_seconds())
            for one in running
        ]
        return bool(taken)

    def _refuse_committed(self, running: Sequence[_BegunPartition]) -> None:
        """Notice what was committed between the statement's view of the tables and its insert."""
        if not running:
            return
        first = running[0]
        targets = to_json([(one.asset, one.partition_key) for one in running])
        found = fetch_all(self.connection, CurrentStep, "catalog/current", {"targets": targets})
        if found and first.same_config:  # only what was made with the same config would serve
            hashes = config_hashes(self.connection, [one.step_id for one in found])
            found = [one for one in found if hashes[one.step_id] == first.config_hash]
        if found:
            raise PlanOutdatedError(first.asset, first.partition_key)

    def _join(self, run: OpenRun, elsewhere: Sequence[_BegunPartition]) -> None:
        """Let the run wait for partitions that are under way elsewhere."""
        if not elsewhere:
            return
        parameters = {
            "assets": [one.asset for one in elsewhere],
            "partitions": [one.partition_key for one in elsewhere],
            "priorities": [one.priority for one in elsewhere],
        }
        active = fetch_all(self.connection, JoinedStep, "ledger/join_active", parameters)
        if len(active) < len(elsewhere):
            raise PlanOutdatedError(elsewhere[0].asset, elsewhere[0].partition_key)
        joined = self._refuse_conflicts(run, elsewhere, active)
        overtaking = [(one.job_id, one.priority) for one in joined if one.job_id is not None]
        oban_jobs.raise_priority(self.connection, overtaking)
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
        taken = [(elsewhere[one.position - 1].partition_key, one.run_id) for one in conflicts]
        errors = {key: str(RunConflictError(first.asset, key, run_id)) for key, run_id in taken}
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
