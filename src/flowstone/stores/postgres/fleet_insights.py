"""What the PostgreSQL store answers about workers, queues and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

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
from flowstone.protocols.insights import FleetInsights
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all


class PostgresFleetInsights(FleetInsights):
    """Implements `flowstone.protocols.FleetInsights` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def workers(self, *, limit: int) -> list[WorkerRecord]:
        with self._database.connection() as connection:
            return fetch_all(connection, WorkerRecord, "insights/workers", {"limit": limit})

    def running(self, *, worker: str | None = None, queue: str | None = None, limit: int) -> list[RunningStep]:
        parameters = {"worker": worker, "queue": queue, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, RunningStep, "insights/running", parameters)

    def queues(self) -> list[QueueRecord]:
        with self._database.connection() as connection:
            found = {one.name: one for one in fetch_all(connection, QueueRecord, "insights/queues")}
            if not self._database.durable:
                return list(found.values())
            parameters = {"queues": list(found), "limit": MAX_COUNTED + 1}
            for jobs in fetch_all(connection, _Jobs, "insights/jobs", parameters):
                found[jobs.queue] = _joined(found.get(jobs.queue) or QueueRecord(jobs.queue), jobs)
        return [found[name] for name in sorted(found)]

    def flow(self, queues: Sequence[str]) -> list[QueueFlow]:
        with self._database.connection() as connection:
            return fetch_all(connection, QueueFlow, "insights/flow", {"queues": list(queues)})

    def waits(self, queues: Sequence[str], *, limit: int, by_minute: bool = False) -> list[QueueWait]:
        if not self._database.durable:
            return []
        parameters = {"queues": list(queues), "limit": limit, "by_minute": by_minute}
        with self._database.connection() as connection:
            return fetch_all(connection, QueueWait, "insights/waits", parameters)

    def minutes(self, since: datetime) -> list[MinuteFlow]:
        with self._database.connection() as connection:
            return fetch_all(connection, MinuteFlow, "insights/minutes", {"since": since})

    def limits(self, *, limit: int) -> list[LimitRecord]:
        parameters = {"limit": limit, "counted": MAX_COUNTED + 1}
        with self._database.connection() as connection:
            return fetch_all(connection, LimitRecord, "insights/limits", parameters)


class _Jobs(NamedTuple):
    """What waits on one of Oban's queues."""

    queue: str
    available: int
    later: int
    oldest_seconds: float | None
    foreign_jobs: int
    paused_workers: int


def _joined(queue: QueueRecord, jobs: _Jobs) -> QueueRecord:
    ages = [age for age in (queue.oldest_seconds, jobs.oldest_seconds) if age is not None]
    paused_everywhere = 0 < queue.workers <= jobs.paused_workers
    return replace(
        queue,
        paused=queue.paused or paused_everywhere,
        paused_workers=jobs.paused_workers,
        available=jobs.available,
        later=jobs.later,
        oldest_seconds=max(ages, default=None),
        foreign=jobs.foreign_jobs,
    )
