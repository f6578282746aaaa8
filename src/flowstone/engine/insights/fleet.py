"""Workers and queues, as people see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from flowstone.core.insights.fleet import WorkerRecord
from flowstone.protocols import Store

_MAX_WORKERS = 500


@dataclass(frozen=True, slots=True)
class Worker:
    """A process with a lease, or one that lost it.

    Args:
        id: its name.
        kind: `node` for workers, `inline` for processes that run assets themselves.
        host: where it runs.
        pid: its process id there.
        state: `alive`, `late` when its lease ran out and nobody has declared it lost yet, or `lost`.
        queues: the queues that it serves, and how many steps of each at once.
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
    queues: Mapping[str, int]
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
        is_first: whether there are more than are listed.
    """

    items: tuple[Worker, ...]
    alive: int
    lost: int
    is_first: bool


def workers(store: Store) -> Workers:
    """Return the processes that have a lease, or lost it lately."""
    found = store.insights.fleet.workers(limit=_MAX_WORKERS + 1)
    items = tuple(map(_worker, found[:_MAX_WORKERS]))
    alive = sum(one.state == "alive" for one in items)
    return Workers(items, alive, len(items) - alive, len(found) > _MAX_WORKERS)


def _worker(record: WorkerRecord) -> Worker:
    late = record.beat_age_seconds > record.lease_seconds
    return Worker(
        id=record.id,
        kind=record.kind,
        host=record.host,
        pid=record.pid,
        state="lost" if record.lost_at is not None else "late" if late else "alive",
        queues=dict(record.queues),
        started_at=record.started_at,
        beat_at=record.beat_at,
        beat_age_seconds=record.beat_age_seconds,
        lost_at=record.lost_at,
    )
