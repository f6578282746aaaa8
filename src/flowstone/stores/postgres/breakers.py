"""Circuit breakers over the fleet: their state is a row, changed under the lock of the limit of the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.circuit import Circuit
from flowstone.core.limits import Breaker, parse_limit
from flowstone.core.state import State
from flowstone.stores.postgres.rows import MovedStep, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

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
        for name, value in step.limits.items()
        if isinstance(breaker := parse_limit(value), Breaker)
    ]


def tripped(connection: Connection[TupleRow], names: Iterable[str]) -> set[str]:
    """Return those of some breakers that are not closed."""
    requested = sorted(set(names))
    if not requested:
        return set()
    return set(fetch_column(connection, str, "breakers/tripped", {"names": requested}))


def read(connection: Connection[TupleRow], names: Iterable[str]) -> dict[str, Circuit]:
    """Return the state of breakers; the caller holds the locks of their limits."""
    requested = sorted(set(names))
    if not requested:
        return {}
    rows = fetch_all(connection, BreakerRow, "breakers/read", {"names": requested})
    found = {row.name: Circuit(row.failures, row.open_until, row.next_step) for row in rows}
    return {name: found.get(name) or Circuit() for name in requested}


def write(connection: Connection[TupleRow], circuits: Mapping[str, Circuit]) -> None:
    """Keep the state of breakers."""
    if circuits:
        rows = [{"name": name, **asdict(circuit)} for name, circuit in circuits.items()]
        connection.execute(load_sql("breakers/write"), {"circuits": to_json(rows)})


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
