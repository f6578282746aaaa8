"""Workers, queues and limits, as people see them: is work moving, and if not, why?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flowstone.core.definition import write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.fleet import (
    MAX_COUNTED,
    LimitRecord,
    MinuteFlow,
    QueueFlow,
    QueueRecord,
    QueueWait,
    RunningStep,
    WorkerRecord,
)
from flowstone.core.limits import Breaker, Limit, Rate
from flowstone.core.partitions import PartitionKey
from flowstone.errors import command
from flowstone.protocols import Store

_MAX_WORKERS = 500
_MAX_RUNNING = 500
_SHOWN_RUNNING = 5
_MEASURED = 200
_MEASURED_OF_ONE = 2_000
_MAX_LIMITS = 500
MINUTES = 60
"""How far back throughput goes."""


@dataclass(frozen=True, slots=True)
class RunningWork:
    """A step at work.

    Args:
        step_id: the step.
        run_id: its run.
        asset: its asset.
        partition: its partition, as people write it; empty without.
        partition_key: the same, encoded.
        queue: the queue from which it was started; empty when its process runs it by itself.
        worker: the process that runs it; empty when it is this one.
        attempt: which attempt it is.
        cancelling: whether it is to be stopped.
        seconds: for how long; never negative.
    """

    step_id: int
    run_id: str
    asset: str
    partition: str
    partition_key: PartitionKey
    queue: str
    worker: str
    attempt: int
    cancelling: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Worker:
    """A process with a lease, or one that lost it.

    Args:
        id: its name.
        kind: `node` for workers, `inline` for processes that run assets themselves.
        host: where it runs.
        pid: its process id there.
        state: `alive`, `late` when its lease ran out and nobody has declared it lost yet, or `lost`.
        version: the version of the package that it runs; None when it did not say.
        queues: the queues that it serves, and how many steps of each at once.
        capacity: steps at once over its queues.
        running: how many steps it runs.
        work: some of them, those that have run longest first.
        started_at: when it registered.
        beat_at: when it renewed its lease last.
        beat_age_seconds: how long ago that is; never negative.
        lost_at: when it was declared lost, if it was.
    """

    id: str
    kind: str
    host: str
    pid: int
    state: str
    version: str | None
    queues: Mapping[str, int]
    capacity: int
    running: int
    work: tuple[RunningWork, ...]
    started_at: datetime | None
    beat_at: datetime | None
    beat_age_seconds: float
    lost_at: datetime | None


@dataclass(frozen=True, slots=True)
class Workers:
    """All workers.

    Args:
        items: the workers, those that are lost last.
        alive: how many have a valid lease.
        lost: how many lost theirs within the last day.
        versions: the different versions that living ones run.
        is_first: whether there are more than are listed.
    """

    items: tuple[Worker, ...]
    alive: int
    lost: int
    versions: tuple[str, ...]
    is_first: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue: what waits, what runs, who serves it, and whether that moves.

    Args:
        name: the queue.
        state: `moving`, `idle`, `full` when all its room is taken, `paused`, or `unserved` when work waits and no
            worker serves it.
        alarm: what is wrong and what to do, when something is.
        paused: whether nothing of it is started.
        waiting: steps that could start now, unstarted partitions of large backfills included.
        waiting_is_at_least: whether there are more: counting stopped at 10,000 jobs.
        available: jobs among them.
        unstarted: partitions of large backfills among them.
        later: steps with a later time, the next attempts of failed ones included.
        running: steps at work.
        capacity: steps at once over all living workers.
        workers: living workers that serve it.
        paused_workers: those of them on which it was paused with Oban's own tools.
        node_limit: steps at once per worker when that was changed at run time.
        declared_limits: the different limits that living workers declare, the smallest first.
        oldest_seconds: for how long the oldest of `waiting` has waited; None when nothing does.
        started_per_minute: attempts that started, by the last ten minutes or less.
        ended_per_minute: attempts that ended.
        failed_per_minute: attempts that failed.
        wait_p50: seconds that half of the last steps had waited at most; None when that is not known.
        wait_p95: seconds that all but one in twenty had waited at most.
        foreign: jobs of other applications that wait in a queue of the same name.
        seconds_left: in how many seconds what waits is done, at the pace of the last minutes; None without one.
    """

    name: str
    state: str
    alarm: str
    paused: bool
    waiting: int
    waiting_is_at_least: bool
    available: int
    unstarted: int
    later: int
    running: int
    capacity: int
    workers: int
    paused_workers: int
    node_limit: int | None
    declared_limits: tuple[int, ...]
    oldest_seconds: float | None
    started_per_minute: float
    ended_per_minute: float
    failed_per_minute: float
    wait_p50: float | None
    wait_p95: float | None
    foreign: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class NamedLimit:
    """A limit of the whole fleet.

    Args:
        name: the limit.
        kind: `slots`, `rate` or `breaker`; `unknown` when no asset declares it any more.
        declared: what is declared, such as `4` or `10/minute`.
        assets: the assets that declare it.
        taken: slots that are taken, starts within the window of a rate, or failures in a row of a breaker.
        maximum: how many there may be; None when it is not known.
        waiting: steps that wait for it.
        waiting_is_at_least: whether there are more.
        open_until: until when nothing starts, of a breaker that is open.
        is_full: whether nothing can start under it now.
    """

    name: str
    kind: str
    declared: str
    assets: tuple[str, ...]
    taken: int
    maximum: int | None
    waiting: int
    waiting_is_at_least: bool
    open_until: datetime | None
    is_full: bool


@dataclass(frozen=True, slots=True)
class Minute:
    """What ended in a minute.

    Args:
        at: its beginning.
        ended: attempts that ended.
        failed: those of them that failed.
    """

    at: datetime
    ended: int
    failed: int


@dataclass(frozen=True, slots=True)
class WaitingMinute:
    """How long the steps had waited that ended in a minute.

    Args:
        at: its beginning.
        number: how many were measured.
        p50: seconds that half of them waited at most.
        p95: seconds that all but one in twenty waited at most.
    """

    at: datetime
    number: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Queues:
    """All queues and limits.

    Args:
        items: the queues, by name.
        limits: the limits, by name.
        durable: whether work can be placed on queues here at all.
        problem: why not, when it cannot.
    """

    items: tuple[Queue, ...]
    limits: tuple[NamedLimit, ...]
    durable: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class QueueDetails:
    """One queue.

    Args:
        queue: what stands in the list.
        minutes: what ended in each minute of the last hour, the oldest first, none left out.
        waits: how long steps had waited, by minute, as far as there were any.
        running: steps at work, those that have run longest first.
        running_is_first: whether there are more.
        workers: the workers that serve it.
        assets: the assets that use it.
    """

    queue: Queue
    minutes: tuple[Minute, ...]
    waits: tuple[WaitingMinute, ...]
    running: tuple[RunningWork, ...]
    running_is_first: bool
    workers: tuple[Worker, ...]
    assets: tuple[str, ...]


class FleetWatch:
    """Answers what pages ask about workers and queues, and keeps the minutes that are over.

    Args:
        graph: the assets.
        store: the store.
        queues: names of queues that settings know.
    """

    def __init__(self, graph: AssetGraph, store: Store, *, queues: Iterable[str] = ()) -> None:
        self._graph = graph
        self._store = store
        self._named = {*queues, *(one.queue for one in graph)}
        self._minutes: dict[tuple[datetime, str], MinuteFlow] = {}
        self._minutes_until: datetime | None = None

    def workers(self) -> Workers:
        """Return the processes that have a lease, or lost it lately, with what they run."""
        fleet = self._store.insights.fleet
        found = fleet.workers(limit=_MAX_WORKERS + 1)
        work: defaultdict[str, list[RunningWork]] = defaultdict(list)
        for step in fleet.running(limit=_MAX_RUNNING):
            if len(work[step.worker or ""]) < _SHOWN_RUNNING:
                work[step.worker or ""].append(self._work(step))
        items = tuple(_worker(one, work[one.id]) for one in found[:_MAX_WORKERS])
        living = [one for one in items if one.state == "alive"]
        return Workers(
            items=items,
            alive=len(living),
            lost=sum(one.state == "lost" for one in items),
            versions=tuple(sorted({one.version for one in living if one.version})),
            is_first=len(found) > _MAX_WORKERS,
        )

    def queues(self) -> Queues:
        """Return all queues: those that are set, served, used by an asset, or have work; and the limits."""
        fleet = self._store.insights.fleet
        records = {one.name: one for one in fleet.queues()}
        records |= {name: QueueRecord(name) for name in self._named if name not in records}
        names = sorted(records)
        flows = {one.queue: one for one in fleet.flow(names)} if names else {}
        waits = {one.queue: one for one in fleet.waits(names, limit=_MEASURED)} if names else {}
        declared = self._declared_limits()
        items = tuple(
            _queue(records[name], flows.get(name), waits.get(name), declared.get(name, ())) for name in names
        )
        return Queues(items, self.limits(), self._store.durable, self._store.queue_problem)

    def queue(self, name: str) -> QueueDetails | None:
        """Return one queue; None when nobody knows it."""
        fleet = self._store.insights.fleet
        queue = next((one for one in self.queues().items if one.name == name), None)
        if queue is None:
            return None
        running = fleet.running(queue=name, limit=_MAX_RUNNING + 1)
        waits = fleet.waits([name], limit=_MEASURED_OF_ONE, by_minute=True)
        return QueueDetails(
            queue=queue,
            minutes=self.minutes([name]),
            waits=tuple(WaitingMinute(one.minute, one.number, one.p50, one.p95) for one in waits if one.minute),
            running=tuple(map(self._work, running[:_MAX_RUNNING])),
            running_is_first=len(running) > _MAX_RUNNING,
            workers=tuple(one for one in self.workers().items if name in one.queues and one.state == "alive"),
            assets=tuple(one.name for one in self._graph if one.queue == name),
        )

    def limits(self) -> tuple[NamedLimit, ...]:
        """Return the limits that assets declare, or that steps are under; by name."""
        declared: dict[str, tuple[Limit, list[str]]] = {}
        for asset in self._graph:
            for name, limit in asset.concurrency.items():
                declared.setdefault(name, (limit, []))[1].append(asset.name)
        records = {one.name: one for one in self._store.insights.fleet.limits(limit=_MAX_LIMITS)}
        names = sorted({*declared, *(name for name, one in records.items() if one.taken or one.waiting)})
        return tuple(_limit(name, declared.get(name), records.get(name)) for name in names[:_MAX_LIMITS])

    def minutes(self, queues: Collection[str] | None = None) -> tuple[Minute, ...]:
        """Return what ended in each minute of the last hour, the oldest first, none left out.

        Args:
            queues: on these queues only; None for everything, inline runs included.
        """
        now = datetime.now(UTC)
        first = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
        self._read_minutes(first, now)
        totals: defaultdict[datetime, list[int]] = defaultdict(lambda: [0, 0])
        for (at, queue), flow in list(self._minutes.items()):
            if queues is None or queue in queues:
                totals[at][0] += flow.ended
                totals[at][1] += flow.failed
        moments = [first + timedelta(minutes=number) for number in range(MINUTES)]
        return tuple(Minute(at, *totals[at]) for at in moments)

    def running(self, *, limit: int = 20) -> tuple[RunningWork, ...]:
        """Return steps at work, those that have run longest first."""
        return tuple(map(self._work, self._store.insights.fleet.running(limit=limit)))

    def _read_minutes(self, first: datetime, now: datetime) -> None:
        """Read the minutes that are not over, or were not a while ago; those before stay as they are."""
        known = self._minutes_until
        since = first if known is None else max(first, known - timedelta(minutes=2))
        found = self._store.insights.fleet.minutes(since)
        kept = {key: one for key, one in self._minutes.items() if first <= key[0] < since}
        self._minutes = kept | {(one.minute.astimezone(UTC), one.queue): one for one in found}
        self._minutes_until = now.replace(second=0, microsecond=0)

    def _declared_limits(self) -> dict[str, tuple[int, ...]]:
        found: defaultdict[str, set[int]] = defaultdict(set)
        for one in self._store.insights.fleet.workers(limit=_MAX_WORKERS):
            if one.kind == "node" and one.lost_at is None and one.beat_age_seconds <= one.lease_seconds:
                for name, limit in one.queues.items():
                    found[name].add(int(limit))
        return {name: tuple(sorted(limits)) for name, limits in found.items()}

    def _work(self, step: RunningStep) -> RunningWork:
        definition = self._graph[step.asset].partitions if step.asset in self._graph else None
        return RunningWork(
            step_id=step.step_id,
            run_id=step.run_id,
            asset=step.asset,
            partition=write_partition(definition, step.partition_key),
            partition_key=step.partition_key,
            queue=step.queue,
            worker=step.worker or "",
            attempt=step.attempt,
            cancelling=step.cancelling,
            seconds=max(0.0, step.running_seconds),
        )


def _worker(record: WorkerRecord, work: Iterable[RunningWork]) -> Worker:
    late = record.beat_age_seconds > record.lease_seconds
    return Worker(
        id=record.id,
        kind=record.kind,
        host=record.host,
        pid=record.pid,
        state="lost" if record.lost_at is not None else "late" if late else "alive",
        version=record.version,
        queues=dict(record.queues),
        capacity=sum(record.queues.values()),
        running=record.running,
        work=tuple(work),
        started_at=record.started_at,
        beat_at=record.beat_at,
        beat_age_seconds=max(0.0, record.beat_age_seconds),
        lost_at=record.lost_at,
    )


def _queue(record: QueueRecord, flow: QueueFlow | None, wait: QueueWait | None, declared: Sequence[int]) -> Queue:
    jobs = min(record.available, MAX_COUNTED)
    waiting = jobs + record.unstarted
    per_minute = 60.0 / flow.seconds if flow is not None else 0.0
    ended = flow.ended * per_minute if flow is not None else 0.0
    return Queue(
        name=record.name,
        state=_state(record, waiting),
        alarm=_alarm(record, waiting),
        paused=record.paused,
        waiting=waiting,
        waiting_is_at_least=record.available > MAX_COUNTED,
        available=jobs,
        unstarted=record.unstarted,
        later=min(record.later, MAX_COUNTED),
        running=record.running,
        capacity=record.capacity,
        workers=record.workers,
        paused_workers=record.paused_workers,
        node_limit=record.node_limit,
        declared_limits=tuple(declared),
        oldest_seconds=max(0.0, record.oldest_seconds) if waiting and record.oldest_seconds is not None else None,
        started_per_minute=round(flow.started * per_minute, 2) if flow is not None else 0.0,
        ended_per_minute=round(ended, 2),
        failed_per_minute=round(flow.failed * per_minute, 2) if flow is not None else 0.0,
        wait_p50=round(wait.p50, 3) if wait is not None else None,
        wait_p95=round(wait.p95, 3) if wait is not None else None,
        foreign=record.foreign,
        seconds_left=waiting / ended * 60 if waiting and ended and not record.paused else None,
    )


def _state(record: QueueRecord, waiting: int) -> str:
    if record.paused:
        return "paused"
    if waiting and not record.workers:
        return "unserved"
    if record.running and record.running >= record.capacity:
        return "full"
    return "moving" if record.running or waiting else "idle"


def _alarm(record: QueueRecord, waiting: int) -> str:
    """Return what is wrong with a queue; empty when nothing is."""
    if (waiting or record.later or record.running) and not record.workers:
        return f"no worker serves the queue {record.name!r}: start `{command('worker', queue=record.name)}`"
    if record.paused and waiting:
        return f"the queue {record.name!r} is paused: `{command('resume', queue=record.name)}`"
    resume = command("resume", queue=record.name)
    if record.paused_workers:
        where = f"on {record.paused_workers} of {record.workers} workers"
        return f"the queue {record.name!r} was paused with Oban's tools {where}: `{resume}`"
    if record.foreign and record.workers:
        return f"another application has jobs in a queue of the same name, {record.name!r}: give one another name"
    return ""


def _limit(name: str, declared: tuple[Limit, list[str]] | None, record: LimitRecord | None) -> NamedLimit:
    limit, assets = declared if declared is not None else (None, [])
    taken = record.taken if record is not None else 0
    maximum: int | None = None
    kind, is_full, open_until = "unknown", False, None
    if isinstance(limit, Rate):
        kind, maximum = "rate", limit.count
        recent = record.now - limit.per_seconds if record is not None else 0.0
        taken = sum(start > recent for start in record.starts) if record is not None else 0
        is_full = taken >= limit.count
    elif isinstance(limit, Breaker):
        kind, maximum = "breaker", limit.failures
        taken = (record.failures or 0) if record is not None else 0
        open_until = record.open_until if record is not None else None
        is_full = open_until is not None
    elif limit is not None:
        kind, maximum = "slots", limit
        is_full = taken >= limit
    waiting = record.waiting if record is not None else 0
    return NamedLimit(
        name=name,
        kind=kind,
        declared="" if limit is None else str(limit),
        assets=tuple(assets),
        taken=taken,
        maximum=maximum,
        waiting=min(waiting, MAX_COUNTED),
        waiting_is_at_least=waiting > MAX_COUNTED,
        open_until=open_until,
        is_full=is_full,
    )
