"""Circuit breakers over the fleet: their state is a row, changed under the lock of the limit of the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from flowstone.core.circuit import Circuit
from flowstone.core.limits import Breaker, parse_limit
from flowstone.core.state import State
from flowstone.stores.postgres.counting import Follow
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

type Ended = tuple[int, str, Breaker, bool]
"""Step id, name of a breaker, the breaker, whether the attempt failed."""

_FAILED = (State.FAILED, State.RETRYING)
_COUNTED = (*_FAILED, State.COMPLETED)


def ended_attempts(steps: Iterable[Follow]) -> list[Ended]:
    """Return the attempts among steps that moved which count for a breaker.

    Attempts that were given back, cancelled or skipped say nothing. Neither do those of steps without a job: their
    process drives them itself, and no breaker of the fleet holds them up.
    """
    return [
        (step.id, name, breaker, step.state in _FAILED)
        for step in steps
        if step.limits and step.job_id is not None and step.state in _COUNTED
        for name, value in step.limits.items()
        if isinstance(breaker := parse_limit(value), Breaker)
    ]


def tripped(connection: Connection[TupleRow], names: Iterable[str]) -> set[str]:
    """Return those of some breakers that are not closed."""
    asked = sorted(set(names))
    if not asked:
        return set()
    return {row[0] for row in connection.execute(load_sql("breakers/tripped"), {"names": asked})}


def read(connection: Connection[TupleRow], names: Iterable[str]) -> dict[str, Circuit]:
    """Return the state of breakers; the caller holds the locks of their limits."""
    asked = sorted(set(names))
    if not asked:
        return {}
    rows = connection.execute(load_sql("breakers/read"), {"names": asked})
    found = {name: Circuit(*state) for name, *state in rows}
    return {name: found.get(name) or Circuit() for name in asked}


def write(connection: Connection[TupleRow], circuits: Mapping[str, Circuit]) -> None:
    """Keep the state of breakers."""
    if circuits:
        rows = [{"name": name, **asdict(circuit)} for name, circuit in circuits.items()]
        connection.execute(load_sql("breakers/write"), {"circuits": to_json(rows)})


def count(
    connection: Connection[TupleRow], ended: Sequence[Ended], slots: Iterable[tuple[str, int]], *, now: float
) -> set[str]:
    """Count attempts that ended, and return the breakers that closed by it.

    Args:
        connection: with the locks of the limits.
        ended: the attempts, of breakers that are locked.
        slots: which steps held slots of which limits: of a breaker, the step that was tried.
        now: the database's time in seconds since 1970.
    """
    circuits = read(connection, (name for _, name, _, _ in ended))
    were_open = {name for name, circuit in circuits.items() if circuit.open_until is not None}
    tried = set(slots)
    for step_id, name, breaker, failed in ended:
        circuits[name].end(breaker, failed=failed, tried=(name, step_id) in tried, now=now)
    write(connection, circuits)
    return {name for name in were_open if circuits[name].open_until is None}
