"""Fleet-wide limits and circuit breakers: who may start, who waits, and who is woken when a slot becomes free.

The row of a limit is locked by whoever takes or frees a slot, so that the count is exact and no wake-up is lost
between a step that is about to wait and another one that is about to end. A breaker's state is a row under the
lock of the limit of the same name. Steps without limits never come here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.limits import Breaker, Circuit, Limit, Rate, describe_open, parse_limits
from flowstone.core.state import State
from flowstone.sql import load_sql
from flowstone.stores.postgres.rows import MovedStep, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


_MAX_WOKEN = 10_000
"""Steps that one transaction wakes; the sweep wakes the rest."""


class LimitedStep(NamedTuple):
    """A step that is about to start, and asks for slots of its limits."""

    job_id: int
    step_id: int
    limits: Mapping[str, Limit]


class LimitRow(NamedTuple):
    """A limit, locked: when steps started that a rate counts, in seconds since 1970."""

    name: str
    starts: list[float]


class TakenRow(NamedTuple):
    """How many slots of a limit are taken, and the time of the database in seconds since 1970."""

    name: str
    taken: int
    now: float


class WakingRow(NamedTuple):
    """How many steps that wait for a limit may try again."""

    name: str
    number: int


class WokenRow(NamedTuple):
    """A step that waited for a limit and is woken."""

    job_id: int
    queue: str


class _Refusal(NamedTuple):
    """The limit that does not let a step start, for how long when that is known, and what people read."""

    name: str
    delay_seconds: float | None
    reason: str


@dataclass(slots=True)
class AdmissionBatch:
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


def admit(connection: Connection[TupleRow], steps: Sequence[LimitedStep]) -> set[int]:
    """Take slots for steps that are about to start; park those that may not. Returns the parked ones."""
    if not steps:
        return set()
    named = {name: limit for step in steps for name, limit in step.limits.items()}
    guards = {name for name, limit in named.items() if isinstance(limit, Breaker)}
    # a closed breaker stops nobody, so that nobody waits for its lock
    shut = tripped(connection, guards)
    names = named.keys() - guards | shut
    if not names:
        return set()
    batch = _lock_batch(connection, sorted(names))
    circuits = read(connection, shut)
    batch.circuits = {name: one for name, one in circuits.items() if one.open_until is not None}
    parked = []
    for step in steps:
        refused = batch.admit(step.step_id, step.limits)
        if refused is not None:
            parked.append((step, refused))
    _take(connection, batch)
    if parked:
        _park(connection, parked)
    return {step.step_id for step, _ in parked}


def release(connection: Connection[TupleRow], steps: Sequence[MovedStep]) -> set[str]:
    """Free the slots of steps that moved, count for their breakers, and wake who waits.

    Returns:
        The queues with new work.
    """
    if not steps:
        return set()
    ids = [step.id for step in steps]
    ended = ended_attempts(steps)
    parsed = {"steps": ids, "breakers": sorted({one.name for one in ended})}
    held = set(fetch_column(connection, str, "limits/held", parsed))
    held |= {one.name for one in ended if one.failed}
    if not held:
        return set()
    batch = _lock_batch(connection, sorted(held))
    slots = fetch_all(connection, SlotRow, "limits/free", {"steps": ids})
    freed = Counter(slot.limit_name for slot in slots)
    counted = [one for one in ended if one.name in held]
    for name in count(connection, counted, slots, now=batch.now):
        freed[name] = _MAX_WOKEN
    return _wake(connection, freed)


def repair(connection: Connection[TupleRow]) -> int:
    """Free slots that nobody uses and wake who waits for them; return how much there was to do."""
    stale = Counter(fetch_column(connection, str, "limits/stale"))
    overdue = Counter({row.name: row.number for row in fetch_all(connection, WakingRow, "limits/overdue")})
    resting = fetch_all(connection, WakingRow, "limits/idle")
    idle = Counter({row.name: min(row.number, _MAX_WOKEN) for row in resting})
    if stale or overdue or idle:
        _wake(connection, stale | overdue | idle)
    return stale.total() + overdue.total() + idle.total()


def _lock_batch(connection: Connection[TupleRow], names: Sequence[str]) -> AdmissionBatch:
    batch = AdmissionBatch()
    locked = fetch_all(connection, LimitRow, "limits/lock", {"names": list(names)})
    batch.starts = {row.name: row.starts for row in locked}
    for row in fetch_all(connection, TakenRow, "limits/count", {"names": list(batch.starts)}):
        batch.taken[row.name], batch.now = row.taken, row.now
    return batch


def _take(connection: Connection[TupleRow], batch: AdmissionBatch) -> None:
    if batch.slots:
        names, steps = [name for name, _ in batch.slots], [step for _, step in batch.slots]
        connection.execute(load_sql("limits/take"), {"names": names, "steps": steps})
    for name in sorted(batch.filled):
        connection.execute(load_sql("limits/fill"), {"name": name, "starts": batch.starts[name]})
    write(connection, {name: batch.circuits[name] for name in batch.waited_for})


def _park(connection: Connection[TupleRow], parked: Sequence[tuple[LimitedStep, _Refusal]]) -> None:
    delays = [refused.delay_seconds for _, refused in parked]
    steps = {
        "steps": [step.step_id for step, _ in parked],
        "names": [refused.name for _, refused in parked],
        "reasons": [refused.reason for _, refused in parked],
    }
    connection.execute(load_sql("limits/park"), steps | {"delays": delays})
    jobs = [step.job_id for step, _ in parked]
    connection.execute(load_sql("limits/park_jobs"), {"jobs": jobs, "delays": delays})


def _wake(connection: Connection[TupleRow], freed: Mapping[str, int]) -> set[str]:
    woken: list[WokenRow] = []
    for name in sorted(freed):
        woken += fetch_all(connection, WokenRow, "limits/wake", {"name": name, "number": freed[name]})
    if woken:
        connection.execute(load_sql("limits/wake_jobs"), {"jobs": [step.job_id for step in woken]})
    return {step.queue for step in woken}


_FAILED = (State.FAILED, State.RETRYING)
_COUNTED = (*_FAILED, State.COMPLETED)


class EndedAttempt(NamedTuple):
    """An attempt that counts for a breaker.

    Args:
        step_id: its step.
        name: name of the breaker.
        breaker: its thresholds.
        failed: whether the attempt failed.
    """

    step_id: int
    name: str
    breaker: Breaker
    failed: bool


class BreakerRow(NamedTuple):
    """A breaker as the table has it; see `Circuit`."""

    name: str
    failures: int
    open_until: float | None
    next_step: int | None


class SlotRow(NamedTuple):
    """The slot of a limit that a step holds; of a breaker, the step that is tried holds one."""

    limit_name: str
    step_id: int


def ended_attempts(steps: Iterable[MovedStep]) -> list[EndedAttempt]:
    """Return the attempts among steps that moved which count for a breaker.

    Attempts that were released, cancelled or skipped say nothing. Neither do those of steps without a job: their
    process drives them itself, and no breaker of the fleet holds them up.
    """
    return [
        EndedAttempt(step.id, name, breaker, step.state in _FAILED)
        for step in steps
        if step.limits and step.job_id is not None and step.state in _COUNTED
        for name, breaker in parse_limits(step.limits).items()
        if isinstance(breaker, Breaker)
    ]


def tripped(connection: Connection[TupleRow], names: Iterable[str]) -> set[str]:
    """Return those of some breakers that are not closed."""
    requested = sorted(set(names))
    if not requested:
        return set()
    return set(fetch_column(connection, str, "limits/tripped", {"names": requested}))


def read(connection: Connection[TupleRow], names: Iterable[str]) -> dict[str, Circuit]:
    """Return the state of breakers; the caller holds the locks of their limits."""
    requested = sorted(set(names))
    if not requested:
        return {}
    rows = fetch_all(connection, BreakerRow, "limits/read", {"names": requested})
    found = {row.name: Circuit(row.failures, row.open_until, row.next_step) for row in rows}
    return {name: found.get(name) or Circuit() for name in requested}


def write(connection: Connection[TupleRow], circuits: Mapping[str, Circuit]) -> None:
    """Keep the state of breakers."""
    if circuits:
        rows = [{"name": name, **asdict(circuit)} for name, circuit in circuits.items()]
        connection.execute(load_sql("limits/write"), {"circuits": to_json(rows)})


def count(
    connection: Connection[TupleRow], ended: Sequence[EndedAttempt], slots: Iterable[SlotRow], *, now: float
) -> set[str]:
    """Count attempts that ended, and return the breakers that closed by it.

    Args:
        connection: with the locks of the limits.
        ended: the attempts, of breakers that are locked.
        slots: the slots that the steps held.
        now: the database's time in seconds since 1970.
    """
    circuits = read(connection, (one.name for one in ended))
    were_open = {name for name, circuit in circuits.items() if circuit.open_until is not None}
    held = set(slots)
    for one in ended:
        tried = SlotRow(one.name, one.step_id) in held
        circuits[one.name].end(one.breaker, failed=one.failed, tried=tried, now=now)
    write(connection, circuits)
    return {name for name in were_open if circuits[name].open_until is None}
