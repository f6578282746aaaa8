"""Fleet-wide limits: who may start, who waits, and who is woken when a slot becomes free.

The row of a limit is locked by whoever takes or frees a slot, so that the count is exact and no wake-up is
lost between a step that is about to wait and another one that is about to end. Steps without limits never
come here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.circuit import Circuit, describe_open
from flowstone.core.limits import Breaker, Limit, Rate, parse_limit
from flowstone.stores.postgres import breakers
from flowstone.stores.postgres.counting import Follow
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

type Limited = tuple[int, int, Mapping[str, int | str]]
"""Job id, step id, limits."""


_MOST_WOKEN = 10_000
"""Steps that one transaction wakes; the sweep wakes the rest."""


class _Refusal(NamedTuple):
    """The limit that does not let a step start, for how long when that is known, and what people read."""

    name: str
    delay_seconds: float | None
    reason: str


@dataclass(slots=True)
class _Desk:
    """The limits that a batch of steps asks for, locked."""

    taken: dict[str, int] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    circuits: dict[str, Circuit] = field(default_factory=dict)
    now: float = 0.0
    slots: list[tuple[str, int]] = field(default_factory=list)
    filled: set[str] = field(default_factory=set)
    waited_for: set[str] = field(default_factory=set)

    def admit(self, step_id: int, limits: Mapping[str, Limit]) -> _Refusal | None:
        """Let a step start, or say what does not."""
        slots = []
        for name, limit in limits.items():
            if isinstance(limit, int):
                if self.taken[name] >= limit:
                    return _Refusal(name, None, f"waits for the limit {name}")
                slots.append(name)
        tried = [name for name in limits if name in self.circuits]
        for name in tried:
            if (refused := self._ask_breaker(name, step_id)) is not None:
                return refused
        # limits in time come last, because taking from one cannot be undone
        for name, limit in limits.items():
            if isinstance(limit, Rate):
                wait = limit.take(self.starts[name], now=self.now)
                self.filled.add(name)
                if wait:
                    return _Refusal(name, wait, f"waits for the limit {name}")
        for name in (*slots, *tried):
            self.taken[name] += 1
            self.slots.append((name, step_id))
        return None

    def _ask_breaker(self, name: str, step_id: int) -> _Refusal | None:
        circuit = self.circuits[name]
        wait = circuit.pause(step_id, now=self.now, trying=self.taken[name] > 0)
        if wait == 0.0:
            return None
        if wait is None or circuit.open_until is None:
            return _Refusal(name, None, f"waits for the breaker {name}")
        self.waited_for.add(name)
        until = datetime.fromtimestamp(circuit.open_until, UTC)
        return _Refusal(name, wait, describe_open(name, circuit.failures, until))


def admit(connection: Connection[TupleRow], steps: Sequence[Limited]) -> set[int]:
    """Take slots for steps that are about to start; park those that may not. Returns the parked ones."""
    if not steps:
        return set()
    asked = [
        (job, step, {name: parse_limit(value) for name, value in limits.items()}) for job, step, limits in steps
    ]
    named = {name: limit for _, _, limits in asked for name, limit in limits.items()}
    guards = {name for name, limit in named.items() if isinstance(limit, Breaker)}
    # a closed breaker stops nobody, so that nobody waits for its lock
    shut = breakers.tripped(connection, guards)
    names = named.keys() - guards | shut
    if not names:
        return set()
    desk = _open_desk(connection, sorted(names))
    circuits = breakers.read(connection, shut)
    desk.circuits = {name: one for name, one in circuits.items() if one.open_until is not None}
    parked = []
    for job_id, step_id, parsed in asked:
        refused = desk.admit(step_id, parsed)
        if refused is not None:
            parked.append((job_id, step_id, refused))
    _take(connection, desk)
    if parked:
        _park(connection, parked)
    return {step_id for _, step_id, _ in parked}


def release(connection: Connection[TupleRow], steps: Sequence[Follow]) -> set[str]:
    """Free the slots of steps that moved, count for their breakers, and wake who waits.

    Returns:
        The queues with new work.
    """
    if not steps:
        return set()
    ids = [step.id for step in steps]
    ended = breakers.ended_attempts(steps)
    asked = {"steps": ids, "breakers": sorted({name for _, name, _, _ in ended})}
    held = {row[0] for row in connection.execute(load_sql("limits/held"), asked)}
    held |= {name for _, name, _, failed in ended if failed}
    if not held:
        return set()
    desk = _open_desk(connection, sorted(held))
    slots = connection.execute(load_sql("limits/free"), {"steps": ids}).fetchall()
    freed = Counter(name for name, _ in slots)
    counted = [one for one in ended if one[1] in held]
    for name in breakers.count(connection, counted, slots, now=desk.now):
        freed[name] = _MOST_WOKEN
    return _wake(connection, freed)


def repair(connection: Connection[TupleRow]) -> int:
    """Free slots that nobody uses and wake who waits for them; return how much there was to do."""
    stale = Counter(row[0] for row in connection.execute(load_sql("limits/stale")))
    overdue = Counter({row[0]: row[1] for row in connection.execute(load_sql("limits/overdue"))})
    idle = Counter({row[0]: min(row[1], _MOST_WOKEN) for row in connection.execute(load_sql("breakers/idle"))})
    if stale or overdue or idle:
        _wake(connection, stale | overdue | idle)
    return stale.total() + overdue.total() + idle.total()


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
    breakers.write(connection, {name: desk.circuits[name] for name in desk.waited_for})


def _park(connection: Connection[TupleRow], parked: Sequence[tuple[int, int, _Refusal]]) -> None:
    delays = [refused.delay_seconds for _, _, refused in parked]
    steps = {
        "steps": [step for _, step, _ in parked],
        "names": [refused.name for _, _, refused in parked],
        "reasons": [refused.reason for _, _, refused in parked],
    }
    connection.execute(load_sql("limits/park"), steps | {"delays": delays})
    connection.execute(load_sql("limits/park_jobs"), {"jobs": [job for job, _, _ in parked], "delays": delays})


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
