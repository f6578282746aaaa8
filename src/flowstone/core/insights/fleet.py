"""What a store says of workers and queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


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
