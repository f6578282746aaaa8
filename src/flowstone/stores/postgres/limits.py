"""Fleet-wide limits: who may start, who waits, and who is woken when a slot becomes free.

The row of a limit is locked by whoever takes or frees a slot, so that the count is exact and no wake-up is
lost between a step that is about to wait and another one that is about to end. Steps without limits never
come here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowstone.core.limits import Rate, parse_limit
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

type Limited = tuple[int, int, Mapping[str, int | str]]
"""Job id, step id, limits."""


@dataclass(slots=True)
class _Desk:
    """The limits that a batch of steps asks for, locked."""

    taken: dict[str, int] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    now: float = 0.0
    slots: list[tuple[str, int]] = field(default_factory=list)
    filled: set[str] = field(default_factory=set)

    def admit(self, step_id: int, limits: Mapping[str, int | str]) -> tuple[str, float | None] | None:
        """Let a step start, or say which limit does not, and for how long when that is a matter of time."""
        parsed = {name: parse_limit(value) for name, value in limits.items()}
        slots = [name for name, limit in parsed.items() if not isinstance(limit, Rate)]
        for name in slots:
            limit = parsed[name]
            if not isinstance(limit, Rate) and self.taken[name] >= limit:
                return name, None
        # limits in time come last, because taking from one cannot be undone
        for name, limit in parsed.items():
            if isinstance(limit, Rate):
                wait = limit.take(self.starts[name], now=self.now)
                self.filled.add(name)
                if wait:
                    return name, wait
        for name in slots:
            self.taken[name] += 1
            self.slots.append((name, step_id))
        return None


def admit(connection: Connection[TupleRow], steps: Sequence[Limited]) -> set[int]:
    """Take slots for steps that are about to start; park those that may not. Returns the parked ones."""
    if not steps:
        return set()
    desk = _open_desk(connection, [name for _, _, limits in steps for name in limits])
    parked = []
    for job_id, step_id, limits in steps:
        refused = desk.admit(step_id, limits)
        if refused is not None:
            parked.append((job_id, step_id, *refused))
    _take(connection, desk)
    if parked:
        _park(connection, parked)
    return {step_id for _, step_id, _, _ in parked}


def release(connection: Connection[TupleRow], steps: Sequence[int]) -> set[str]:
    """Free the slots of steps that ended and wake who waits for them; return the queues with new work."""
    if not steps:
        return set()
    held = [row[0] for row in connection.execute(load_sql("limits/held"), {"steps": list(steps)})]
    if not held:
        return set()
    _open_desk(connection, held)
    freed = Counter(row[0] for row in connection.execute(load_sql("limits/free"), {"steps": list(steps)}))
    return _wake(connection, freed)


def repair(connection: Connection[TupleRow]) -> int:
    """Free slots that nobody uses and wake who waits for them; return how much there was to do."""
    stale = Counter(row[0] for row in connection.execute(load_sql("limits/stale")))
    overdue = Counter({row[0]: row[1] for row in connection.execute(load_sql("limits/overdue"))})
    if stale or overdue:
        _wake(connection, stale | overdue)
    return stale.total() + overdue.total()


def _open_desk(connection: Connection[TupleRow], names: Sequence[str]) -> _Desk:
    desk = _Desk()
    desk.starts = dict(connection.execute(load_sql("limits/lock"), {"names": list(names)}).fetchall())
    counts = connection.execute(load_sql("limits/count"), {"names": list(desk.starts)})
    for name, taken, now in counts:
        desk.taken[name], desk.now = taken, now
    return desk


def _take(connection: Connection[TupleRow], desk: _Desk) -> None:
    if desk.slots:
        names, steps = [name for name, _ in desk.slots], [step for _, step in desk.slots]
        connection.execute(load_sql("limits/take"), {"names": names, "steps": steps})
    for name in sorted(desk.filled):
        connection.execute(load_sql("limits/fill"), {"name": name, "starts": desk.starts[name]})


def _park(connection: Connection[TupleRow], parked: Sequence[tuple[int, int, str, float | None]]) -> None:
    delays = [delay for _, _, _, delay in parked]
    steps = {"steps": [step for _, step, _, _ in parked], "names": [name for _, _, name, _ in parked]}
    connection.execute(load_sql("limits/park"), steps | {"delays": delays})
    connection.execute(load_sql("limits/park_jobs"), {"jobs": [job for job, _, _, _ in parked], "delays": delays})


def _wake(connection: Connection[TupleRow], freed: Mapping[str, int]) -> set[str]:
    jobs: list[int] = []
    queues: set[str] = set()
    for name in sorted(freed):
        for job_id, queue in connection.execute(load_sql("limits/wake"), {"name": name, "number": freed[name]}):
            jobs.append(job_id)
            queues.add(queue)
    if jobs:
        connection.execute(load_sql("limits/wake_jobs"), {"jobs": jobs})
    return queues
