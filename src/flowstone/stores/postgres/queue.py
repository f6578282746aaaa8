"""What worker nodes ask of the store: work, leases, and the rescue of what lost workers held.

`QueueFetch` is one fetch: jobs are acquired and the attempts of their steps started, in one transaction. Rescue,
at the end, ends or releases the attempts of those whose lease is over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone import telemetry
from flowstone.core.approval import Approval
from flowstone.core.limits import parse_limits
from flowstone.core.outcome import PROCESS_LOST, WORKER_LOST, Failed
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import Attempt, KnownAssets, LeftToOthers
from flowstone.protocols import DurableQueue
from flowstone.sql import load_sql
from flowstone.stores.postgres import approvals, control, counters, limits, oban_jobs
from flowstone.stores.postgres.commit import propagate
from flowstone.stores.postgres.counters import refill
from flowstone.stores.postgres.database import Database, in_transaction, note_ended
from flowstone.stores.postgres.direct import DirectFetch, open_runs
from flowstone.stores.postgres.rows import CancelledStep, MovedStep, StartedStep, to_json
from flowstone.stores.postgres.scatters import stop_left
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


_ANY_PRIORITY = 32767


@dataclass(slots=True)
class _FetchedRow(StartedStep):
    """A job that was taken, with the attempt that it started, if it did.

    Args:
        is_started: whether it started one; else nothing of the step is known.
        run_id: the run of the step.
        snoozes: how often the step gave its attempt back.
        age_seconds: time since the step was placed.
        limits: its fleet-wide limits.
        has_approvals: whether the step has had requests for approval.
        deps_timeout_seconds: see `Attempt`.
        kind: kind of its run.
        details: details of its run, as JSON.
        shape: digest of the shape of its asset where it was placed.
        keys: digest of what said there which partitions the asset has.
        queued_seconds: how long it was due.
        job_id: the job.
        worker: the Oban worker that it names.
        named_step: the step that it names.
        has_ranges: whether backfills have something to begin on this queue that needs no job.
    """

    is_started: bool
    run_id: str
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
    job_id: int
    worker: str
    named_step: int | None
    has_ranges: bool


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
    """Whether backfills have something to begin on the queue without jobs; None while no job said so."""

    def take(self, demand: int, *, below: int = _ANY_PRIORITY) -> list[Attempt]:
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
            "worker": oban_jobs.WORKER,
            "attempted_by": list(self.attempted_by),
            **self.left.parameters(),
        }
        rows = fetch_all(self.connection, _FetchedRow, "fetch", parameters)
        if rows:
            self.has_ranges = rows[0].has_ranges
        expiries = [row.job_id for row in rows if row.worker == oban_jobs.EXPIRY_WORKER]
        stale = [
            (row.job_id, row.named_step) for row in rows if not row.is_started and row.worker == oban_jobs.WORKER
        ]
        if stale:
            self._set_right(stale)
        if expiries:
            approvals.expire_jobs(self.connection, expiries)
        started = {row.step_id: row for row in rows if row.is_started}
        limited = [
            limits.LimitedStep(row.job_id, step_id, parse_limits(row.limits))
            for step_id, row in started.items()
            if row.limits
        ]
        parked = limits.admit(self.connection, limited)
        if parked and telemetry.listening():
            note_ended([_parked_event(started[step_id]) for step_id in parked])
        if parked or stale or expiries:
            # this node has room left, and there may be more behind them; its next poll is up to a second away
            oban_jobs.announce(self.connection, [self.queue])
        gates = approvals.open_gates(
            self.connection, [step_id for step_id, row in started.items() if row.has_approvals]
        )
        return [_fetched(row, gates.get(step_id, ())) for step_id, row in started.items() if step_id not in parked]

    def _set_right(self, stale: Sequence[tuple[int, int | None]]) -> None:
        """Put jobs back that started nothing: (job, step). Runs may be paused, and people may have moved jobs."""
        jobs = {"jobs": [job for job, _ in stale], "steps": [step for _, step in stale]}
        for run in fetch_all(self.connection, _PausedRun, "queue/withhold", jobs):
            self.connection.execute(load_sql("control/take_off"), run._asdict())
        control.reconcile(self.connection, stale)


def _parked_event(row: _FetchedRow) -> telemetry.Event:
    """Return `step.parked` of a step that its limits do not let start."""
    about = {"asset": row.asset, "partition": row.partition_key, "run_id": row.run_id}
    return telemetry.Event(
        "step.parked", {}, about | {"step_id": str(row.step_id), "limits": sorted(row.limits or {})}
    )


def _fetched(row: _FetchedRow, approvals: tuple[Approval, ...]) -> Attempt:
    return row.started(
        RunInfo.from_json(row.details, id=row.run_id, kind=row.kind),
        approvals=approvals,
        queued_seconds=row.queued_seconds,
        job_id=row.job_id,
        snoozes=row.snoozes,
        age_seconds=row.age_seconds,
        deps_timeout_seconds=row.deps_timeout_seconds,
        shape=row.shape,
        keys=row.keys,
    )


_BATCH = 1000
_COUNTED_RUNS = 20
"""Runs of an older version whose steps are counted in one pass."""
_APART_SECONDS = 2.0
_STAGED = 20_000
_PRUNED = 10_000
_EVER_SECONDS = 100 * 365 * 24 * 3600.0
_OVERLAP_SECONDS = 60.0


class WorkerAssets(NamedTuple):
    """A living worker or application, and the assets that it knows."""

    id: str
    kind: str
    assets: KnownAssets


class _WorkerRow(NamedTuple):
    """A worker with a valid lease."""

    id: str
    kind: str
    host: str
    pid: int
    queues: dict[str, int]
    started_at: datetime
    beat_at: datetime


class _Orphan(NamedTuple):
    """An attempt that a lost process held.

    Args:
        id: the step.
        token: its fencing token.
        attempt: its number.
        max_attempts: attempts in all.
        asset: the asset.
        worker: the lease under which it was held.
        durable: whether its run is on the queue, so that it can run again.
        unstarted: whether it had only waited for a thread.
        run_id: the run.
        partition_key: the partition.
        started_at: when the attempt began.
        traceparent: the span that placed the run, when traces are made.
        run_kind: which verb requested the run.
    """

    id: int
    token: int
    attempt: int
    max_attempts: int
    asset: str
    worker: str
    durable: bool
    unstarted: bool
    run_id: str
    partition_key: PartitionKey
    started_at: datetime | None
    traceparent: str | None
    run_kind: str


class _IdleWindow(NamedTuple):
    """A limited run whose window has room for steps that wait for it."""

    run_id: str
    room: int
    placed: int


class PostgresQueue(DurableQueue):
    """Implements `flowstone.protocols.DurableQueue` over `oban_jobs` and our tables.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._fetches = 0
        self._with_ranges: set[str] = set()
        self._pruned_at: float | None = None
        self._cancels_at: float | None = None

    def fetch(
        self,
        queue: str,
        *,
        demand: int,
        worker_id: str,
        attempted_by: Sequence[str],
        left: LeftToOthers | None = None,
    ) -> list[Attempt]:
        without = left or LeftToOthers()
        return in_transaction(
            self._database,
            lambda connection: self._take(QueueFetch(connection, queue, worker_id, attempted_by, without), demand),
        )

    def has_open_runs(self, queue: str) -> bool:
        return queue in self._with_ranges

    def known_assets(self, *, but: str) -> list[KnownAssets]:
        return [one.assets for one in shapes_at_work(self._database, but=but) if one.kind == "node"]

    def cancelling(self, worker_id: str) -> list[int]:
        with self._database.connection() as connection:
            return fetch_column(connection, int, "queue/cancelling", {"worker": worker_id})

    def node_limits(self) -> dict[str, int]:
        with self._database.connection() as connection:
            return dict(connection.execute(load_sql("queue/limits")).fetchall())

    def held(self, worker_id: str) -> list[Attempt]:
        with self._database.connection() as connection:
            return fetch_all(connection, Attempt, "queue/held", {"worker": worker_id})

    def nudge(self, queues: Sequence[str]) -> None:
        with self._database.connection() as connection:
            oban_jobs.announce(connection, fetch_column(connection, str, "ranges/nudge", {"queues": list(queues)}))

    def stage(self, queues: Sequence[str]) -> list[str]:
        parameters = {"queues": list(queues), "limit": _STAGED}
        with self._database.connection() as connection:
            return fetch_column(connection, str, "queue/stage", parameters)

    def follow_cancels(self, signalled: Sequence[int]) -> int:
        now = time.monotonic()
        # the first time everything, then what happened since, and a little more: commits take their time
        within = _EVER_SECONDS if self._cancels_at is None else now - self._cancels_at + _OVERLAP_SECONDS
        found = control.follow_cancels(self._database, within_seconds=within, signalled=signalled)
        self._cancels_at = now
        return found

    def prune_jobs(self, older_than_seconds: float) -> int:
        now = time.monotonic()
        since = None if self._pruned_at is None else older_than_seconds + now - self._pruned_at + _OVERLAP_SECONDS
        parameters = {
            "older_than_seconds": older_than_seconds,
            "examined_before_seconds": since,
            "limit": _PRUNED,
        }
        pruned = 0
        while True:
            with self._database.transaction() as connection:
                connection.execute(load_sql("queue/forget_producers"))
                number = connection.execute(load_sql("queue/prune_jobs"), parameters).rowcount
            pruned += number
            if number < _PRUNED:
                self._pruned_at = now
                return pruned

    def rescue(self) -> int:
        return rescue(self._database)

    def sweep(self) -> int:
        found = 0
        with self._database.transaction() as connection:
            if self._database.durable:
                unplaced = fetch_column(connection, int, "queue/unplaced", {"limit": _BATCH})
                oban_jobs.place(connection, unplaced)
                found += len(unplaced) + _refill_idle(connection) + limits.repair(connection)
            counters.count_uncounted(connection, limit=_COUNTED_RUNS)
        found += end_driverless(self._database)
        if self._database.durable:
            found += control.follow_cancels_left(self._database, limit=_BATCH)
        return found + stop_left(self._database) + in_transaction(self._database, self._expire)

    def _expire(self, connection: Connection[TupleRow]) -> int:
        """End the time of requests for approval whose job was lost."""
        return approvals.expire_due(connection, durable=self._database.durable, limit=_BATCH)

    def _directly(self, fetch: QueueFetch) -> DirectFetch:
        return DirectFetch(fetch.connection, fetch.queue, fetch.worker_id, fetch.left)

    def _take(self, fetch: QueueFetch, demand: int) -> list[Attempt]:
        """Take jobs, and begin what needs none; a lone job costs one statement."""
        if fetch.queue not in self._with_ranges:
            taken = fetch.take(demand)
            if fetch.has_ranges is False:
                return taken
            runs = open_runs(fetch.connection, fetch.queue, fetch.worker_id, fetch.left)
            if runs:
                self._with_ranges.add(fetch.queue)
            return taken + self._directly(fetch).begin(runs, demand - len(taken))
        runs = open_runs(fetch.connection, fetch.queue, fetch.worker_id, fetch.left)
        if not runs:
            self._with_ranges.discard(fetch.queue)
            return fetch.take(demand)
        # of backfills as urgent as each other, those kept as ranges come first every other time, else those whose
        # steps are on the queue
        self._fetches += 1
        ranges_first = self._fetches % 2 == 0
        taken = fetch.take(demand, below=runs[0].priority) if ranges_first else fetch.take(demand)
        taken += self._directly(fetch).begin(runs, demand - len(taken))
        if ranges_first and len(taken) < demand:
            taken += fetch.take(demand - len(taken))
        return taken


@dataclass(slots=True)
class Lease:
    """The lease of this process: a row that its heartbeat renews.

    Args:
        database: where.
    """

    database: Database
    id: str

    def register(
        self,
        *,
        kind: str,
        host: str,
        pid: int,
        queues: dict[str, int],
        lease_seconds: float,
        assets: KnownAssets | None = None,
    ) -> None:
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
                    "assets": to_json(assets or {}),
                    "version": _version(),
                },
            )

    def renew(self) -> None:
        """Have it last from now on; one that was taken away stays so."""
        with self.database.connection() as connection:
            connection.execute(load_sql("workers/beat"), {"id": self.id})

    def remove(self) -> None:
        """Delete the row: whatever this process still held is free at once."""
        with self.database.connection() as connection:
            connection.execute(load_sql("workers/remove"), {"id": self.id})


@cache
def _version() -> str | None:
    """Return the version of this package, as it is installed."""
    try:
        return version("flowstone")
    except PackageNotFoundError:
        return None


def rescue(database: Database) -> int:
    """End the attempts of lost processes; return how many."""
    with database.transaction() as connection:
        connection.execute(load_sql("workers/declare_lost"))
        connection.execute(load_sql("workers/forget_old"))
    rescued = 0
    while True:
        orphans = in_transaction(
            database, lambda connection: _end_some_orphans(connection, durable=database.durable)
        )
        rescued += orphans
        if orphans < _BATCH:
            return rescued


def end_driverless(database: Database) -> int:
    """End what lost processes had placed for themselves and not started; return how much."""
    ended = 0
    while True:
        found = in_transaction(database, lambda connection: _end_driverless(connection, durable=database.durable))
        ended += found
        if found < _BATCH:
            return ended


def end_lost(database: Database, steps: Sequence[int] | None = None) -> bool:
    """End what lost processes held, if one of these steps is among it; return whether that was so.

    Args:
        database: where.
        steps: the steps; None ends it in any case.
    """
    if steps is not None:
        if not steps:
            return False
        with database.connection() as connection:
            held = fetch_value(connection, int, "workers/held_by_lost", {"ids": list(steps)})
        if held is None:
            return False
    rescue(database)
    end_driverless(database)
    return True


def shapes_at_work(database: Database, *, but: str = "") -> list[WorkerAssets]:
    """Return every living worker and application, but one, with the assets that it knows."""
    with database.connection() as connection:
        return fetch_all(connection, WorkerAssets, "workers/shapes", {"but": but})


def alive_workers(database: Database) -> list[dict[str, Any]]:
    """Return the workers with a valid lease."""
    with database.connection() as connection:
        return [row._asdict() for row in fetch_all(connection, _WorkerRow, "workers/alive")]


def _end_some_orphans(connection: Connection[TupleRow], *, durable: bool) -> int:
    orphans = fetch_all(connection, _Orphan, "workers/orphans", {"limit": _BATCH})
    if orphans:
        _end_orphans(connection, orphans, durable=durable)
    return len(orphans)


def _end_orphans(connection: Connection[TupleRow], orphans: Sequence[_Orphan], *, durable: bool) -> None:
    """End the attempts of lost workers; each that had begun, or may have, has used up an attempt.

    What runs again does so at once, the first time. One of those that died together may have killed the
    others: before their last attempts they are kept apart, so that it takes nobody with it.
    """
    rows = []
    delays: dict[int, object] = {}
    turns: Counter[str] = Counter()
    _release(connection, [one for one in orphans if one.unstarted], durable=durable)
    for one in orphans:
        if one.unstarted:
            continue
        who = "worker" if one.durable else "process"
        error = Failed(
            f"The {who} {one.worker} was lost while attempt {one.attempt} of {one.asset} ran: "
            "it died or lost its lease.",
            WORKER_LOST if one.durable else PROCESS_LOST,
            retryable=True,
        )
        again = one.durable and one.attempt < one.max_attempts
        if again:
            suspected = one.attempt > 1 or one.attempt + 1 == one.max_attempts
            delays[one.id] = turns[one.worker] * _APART_SECONDS if suspected else 0
            turns[one.worker] += suspected
        rows.append(
            {
                "id": one.id,
                "token": one.token,
                "state": State.RETRYING if again else State.FAILED,
                "error": error.error,
                "error_type": error.error_type,
                "delay_seconds": delays.get(one.id),
                "releases": False,
                "finished_at": datetime.now(UTC),
            }
        )
    parameters = {"rows": to_json(rows), "payload_steps": [], "versions": [], "payloads": []}
    moved = fetch_all(connection, MovedStep, "finish", parameters)
    if telemetry.listening():
        note_ended(_lost_events(orphans, moved))
    propagate(connection, moved, delays, durable=durable)


def _lost_events(orphans: Sequence[_Orphan], moved: Sequence[MovedStep]) -> list[telemetry.Event]:
    """Return `attempt.lost` of attempts that were ended because their process is gone."""
    states = {step.id: step.state for step in moved}
    return [
        telemetry.Event(
            "attempt.lost",
            {},
            {
                "asset": one.asset,
                "partition": one.partition_key,
                "run_id": one.run_id,
                "step_id": str(one.id),
                "attempt": one.attempt,
                "token": one.token,
                "worker": one.worker,
                "state": states[one.id].value,
                "started_at": one.started_at,
                "traceparent": one.traceparent,
                "run_kind": one.run_kind,
            },
        )
        for one in orphans
        if one.id in states
    ]


def _release(connection: Connection[TupleRow], waited: Sequence[_Orphan], *, durable: bool) -> None:
    """Release what had only waited for a thread of a worker that died."""
    if not waited:
        return
    parameters = {
        "ids": [one.id for one in waited],
        "tokens": [one.token for one in waited],
        "delay_seconds": 0.0,
        "reason": "its worker was lost before it began",
    }
    moved = fetch_all(connection, MovedStep, "ledger/release_attempts", parameters)
    propagate(connection, moved, {}, durable=durable)


def _refill_idle(connection: Connection[TupleRow]) -> int:
    placed: list[int] = []
    for window in fetch_all(connection, _IdleWindow, "queue/idle_windows"):
        parameters = {"run_id": window.run_id, "placed": window.placed}
        connection.execute(load_sql("queue/set_window"), parameters)
        placed += refill(connection, window.run_id, window.room)
    oban_jobs.place(connection, placed)
    return len(placed)


def _end_driverless(connection: Connection[TupleRow], *, durable: bool) -> int:
    ids = fetch_column(connection, int, "workers/lost_drivers", {"limit": _BATCH})
    if not ids:
        return 0
    parameters = {"ids": ids, "error_type": PROCESS_LOST}
    ended = fetch_all(connection, CancelledStep, "workers/end_driverless", parameters)
    if telemetry.listening():
        note_ended([step.event() for step in ended])
    approvals.cancel(connection, [step.id for step in ended if step.had_requested], durable=durable)
    propagate(connection, [step.moved for step in ended], {}, durable=durable)
    return len(ids)
