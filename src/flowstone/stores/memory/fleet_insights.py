"""What the in-memory store answers about workers, queues and limits: what runs here, and what ended lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from flowstone.core.insights.fleet import (
    LimitRecord,
    MinuteFlow,
    QueueFlow,
    QueueRecord,
    QueueWait,
    RunningStep,
    WorkerRecord,
)
from flowstone.core.state import State
from flowstone.protocols.insights import FleetInsights
from flowstone.stores.memory.tables import Tables

_AT_WORK = (State.RUNNING, State.CANCELLING)


class MemoryFleetInsights(FleetInsights):
    """Implements `flowstone.protocols.FleetInsights` in memory: no process has a lease, no queue a worker."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def workers(self, *, limit: int) -> list[WorkerRecord]:
        return []

    def running(self, *, worker: str | None = None, queue: str | None = None, limit: int) -> list[RunningStep]:
        if worker is not None or queue is not None:
            return []
        now = datetime.now(UTC)
        with self._tables.changed:
            rows = [self._tables.steps[one] for one in self._tables.active.values()]
            at_work = sorted(
                (row for row in rows if row.state in _AT_WORK), key=lambda row: (row.started_at or now, row.id)
            )
            return [
                RunningStep(
                    worker=None,
                    step_id=row.id,
                    run_id=row.run_id,
                    asset=row.asset,
                    partition_key=row.partition_key,
                    queue="",
                    attempt=row.attempt,
                    cancelling=row.state is State.CANCELLING,
                    running_seconds=max(0.0, (now - (row.started_at or now)).total_seconds()),
                )
                for row in at_work[:limit]
            ]

    def queues(self) -> list[QueueRecord]:
        return []

    def flow(self, queues: Sequence[str]) -> list[QueueFlow]:
        return [QueueFlow(name, 600.0, 0, 0, 0) for name in sorted(queues)]

    def waits(self, queues: Sequence[str], *, limit: int, by_minute: bool = False) -> list[QueueWait]:
        return []

    def minutes(self, since: datetime) -> list[MinuteFlow]:
        ended: Counter[datetime] = Counter()
        failed: Counter[datetime] = Counter()
        with self._tables.changed:
            for row in reversed(self._tables.steps.values()):
                if row.attempts is None and row.started_at and row.finished_at and row.finished_at >= since:
                    ended[_minute(row.finished_at)] += 1
                for attempt in row.attempts or ():
                    if attempt.finished_at >= since:
                        ended[_minute(attempt.finished_at)] += 1
                        failed[_minute(attempt.finished_at)] += attempt.state is State.FAILED
        return [MinuteFlow(minute, "", ended[minute], failed[minute]) for minute in sorted(ended)]

    def limits(self, *, limit: int) -> list[LimitRecord]:
        return []


def _minute(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(second=0, microsecond=0)
