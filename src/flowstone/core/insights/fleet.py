"""What a store says of workers, queues and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from flowstone.core.partitions import PartitionKey

MAX_COUNTED = 10_000
"""Counting what waits stops here: more is "more than 10,000"."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A process with a lease, or one that lost it lately.

    Args:
        id: its name.
        kind: `node` for workers, `inline` for processes that run assets themselves.
        host: where it runs.
        pid: its process id there.
        queues: the queues that it serves, and how many steps of each at once.
        started_at: when it registered.
        beat_at: when it renewed its lease last.
        beat_age_seconds: how long ago that is, by the clock of the store; never negative.
        lease_seconds: after how long without renewal it is lost.
        lost_at: when it was declared lost, if it was.
        version: the version of the package that it runs, where that is known.
        running: how many steps it runs.
    """

    id: str
    kind: str
    host: str
    pid: int
    queues: Mapping[str, int] = field(default_factory=dict)
    started_at: datetime | None = None
    beat_at: datetime | None = None
    beat_age_seconds: float = 0.0
    lease_seconds: float = 0.0
    lost_at: datetime | None = None
    version: str | None = None
    running: int = 0


class RunningStep(NamedTuple):
    """A step at work.

    Args:
        worker: the process that runs it.
        step_id: the step.
        run_id: its run.
        asset: its asset.
        partition_key: its partition, encoded.
        queue: the queue from which it was started; empty when its process runs it by itself.
        attempt: which attempt it is.
        cancelling: whether it is to be stopped.
        running_seconds: for how long, by the clock of the store; never negative.
    """

    worker: str | None
    step_id: int
    run_id: str
    asset: str
    partition_key: PartitionKey
    queue: str
    attempt: int
    cancelling: bool
    running_seconds: float


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue in the fleet. Numbers of what waits are counted to 10,001 at most.

    Args:
        name: the queue.
        paused: whether nothing of it is started anywhere.
        node_limit: steps at once per worker when that was changed at run time.
        workers: living workers that serve it.
        paused_workers: those of them on which it was paused with Oban's own tools.
        capacity: steps at once over all living workers.
        available: jobs that could start now.
        later: jobs with a later time, the next attempts of failed ones among them.
        unstarted: partitions of large backfills that no worker has begun.
        running: steps at work.
        oldest_seconds: for how long the oldest of `available`, or of the backfills in `unstarted`, has waited.
        foreign: jobs of other applications that wait in a queue of the same name.
    """

    name: str
    paused: bool = False
    node_limit: int | None = None
    workers: int = 0
    paused_workers: int = 0
    capacity: int = 0
    available: int = 0
    later: int = 0
    unstarted: int = 0
    running: int = 0
    oldest_seconds: float | None = None
    foreign: int = 0


class QueueFlow(NamedTuple):
    """What went through a queue lately.

    Args:
        queue: the queue.
        seconds: the time that this is about: 600, or less when so many ended that only the last are counted.
        ended: attempts that ended.
        failed: those of them that failed.
        started: attempts that started, those that still run included.
    """

    queue: str
    seconds: float
    ended: int
    failed: int
    started: int


class QueueWait(NamedTuple):
    """How long the last steps of a queue had waited for a worker.

    Args:
        queue: the queue.
        minute: the minute in which they ended; None for all together.
        number: how many there were.
        p50: seconds that half of them waited at most.
        p95: seconds that all but one in twenty waited at most.
    """

    queue: str
    minute: datetime | None
    number: int
    p50: float
    p95: float


class MinuteFlow(NamedTuple):
    """What ended in a minute.

    Args:
        minute: its beginning.
        queue: the queue; empty for what processes run by themselves.
        ended: attempts that ended.
        failed: those of them that failed.
    """

    minute: datetime
    queue: str
    ended: int
    failed: int


class LimitRecord(NamedTuple):
    """A named limit of the fleet.

    Args:
        name: the limit.
        taken: slots that are taken.
        starts: times of the latest starts in seconds since 1970, of a limit in time.
        waiting: steps that wait for it, counted to 10,001 at most.
        failures: failures in a row, of a breaker.
        open_until: until when nothing starts under it, of a breaker that is open.
        now: the store's time in seconds since 1970.
    """

    name: str
    taken: int
    starts: tuple[float, ...]
    waiting: int
    failures: int | None
    open_until: datetime | None
    now: float
