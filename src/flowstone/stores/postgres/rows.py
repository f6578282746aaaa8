"""Between Python values and rows of the tables.

No row is read by number. A statement names its columns as the fields of a class, a `NamedTuple` or a frozen
dataclass, and `fetch_rows` and `fetch_row` return instances of it; records of the core are made straight from
their rows. Statements of one column are read with `fetch_values` and `fetch_value`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, LiteralString, get_args, get_origin, get_type_hints

from flowstone.core.outcome import Failed, Scattered, Skipped, Snoozed, Stopped, Succeeded, Suspended
from flowstone.core.route import ROUTE_KEY
from flowstone.core.state import State
from flowstone.core.step import Claim, Completion

if TYPE_CHECKING:
    from psycopg import Connection, Cursor
    from psycopg.rows import RowMaker
    from psycopg.sql import Composed

_INLINE = "inline:"

JOB_STATES = {
    State.COMPLETED: "completed",
    State.REUSED: "completed",
    State.SKIPPED: "completed",
    State.FAILED: "discarded",
    State.UPSTREAM_FAILED: "discarded",
    State.CANCELLED: "cancelled",
    State.RETRYING: "retryable",
    State.SCHEDULED: "scheduled",
    State.WAITING: "scheduled",
    State.PENDING: "available",
    # it rests; whoever decides places it anew
    State.AWAITING_APPROVAL: "suspended",
}
"""Which state of Oban's row follows from the state of its step."""


def fetch_rows[T](
    connection: Connection[Any],
    kind: type[T],
    statement: LiteralString | Composed,
    parameters: Mapping[str, Any] | None = None,
) -> list[T]:
    """Run a statement and return its rows.

    Args:
        connection: where.
        kind: class with a field for each column, see `rows_of`.
        statement: its text.
        parameters: its parameters, by name.
    """
    return _execute(connection, rows_of(kind), statement, parameters).fetchall()


def fetch_row[T](
    connection: Connection[Any],
    kind: type[T],
    statement: LiteralString | Composed,
    parameters: Mapping[str, Any] | None = None,
) -> T | None:
    """Run a statement and return its first row; None when there is none."""
    return _execute(connection, rows_of(kind), statement, parameters).fetchone()


def fetch_values[T](
    connection: Connection[Any],
    kind: Callable[..., T],
    statement: LiteralString | Composed,
    parameters: Mapping[str, Any] | None = None,
) -> list[T]:
    """Run a statement of one column and return its values, which are of the type `kind` and are not converted."""
    return [value for (value,) in _execute(connection, _tuples, statement, parameters)]


def fetch_value[T](
    connection: Connection[Any],
    kind: Callable[..., T],
    statement: LiteralString | Composed,
    parameters: Mapping[str, Any] | None = None,
) -> T | None:
    """Run a statement of one column and return its first value; None when there is no row."""
    row = _execute(connection, _tuples, statement, parameters).fetchone()
    if row is None:
        return None
    (value,) = row
    return value  # type: ignore[no-any-return]


def _execute[T](
    connection: Connection[Any],
    factory: Callable[[Cursor[Any]], RowMaker[T]],
    statement: LiteralString | Composed,
    parameters: Mapping[str, Any] | None,
) -> Cursor[T]:
    return connection.cursor(row_factory=factory).execute(statement, parameters)


def _tuples(cursor: Cursor[Any]) -> RowMaker[tuple[Any, ...]]:
    return tuple


def rows_of[T](kind: type[T]) -> Callable[[Cursor[Any]], RowMaker[T]]:
    """Return a row factory that makes instances of a class, as `psycopg.rows.class_row` does.

    Columns are matched with fields by their names, and values turned into what the fields are annotated with:
    members of enums, tuples of arrays, and whatever a class makes of JSON with its `from_json`.

    Args:
        kind: a `NamedTuple` or a dataclass.
    """

    def row_factory(cursor: Cursor[Any]) -> RowMaker[T]:
        result = cursor.pgresult
        assert result is not None
        columns = tuple(result.fname(column) for column in range(result.nfields))
        return _maker(kind, columns)  # type: ignore[arg-type]

    return row_factory


@cache
def _maker(kind: Any, columns: tuple[bytes | None, ...]) -> Callable[[Sequence[Any]], Any]:
    """Return what makes an instance of the values of a row."""
    names = tuple(column.decode() for column in columns if column)
    hints = get_type_hints(kind)
    if unknown := [name for name in names if name not in hints]:
        raise TypeError(f"{kind} has no field for the columns {', '.join(unknown)}.")
    converters = [(name, _converter(hints[name])) for name in names]
    if names == getattr(kind, "_fields", None) and not any(convert for _, convert in converters):
        return kind._make  # type: ignore[no-any-return]

    def make(values: Sequence[Any]) -> Any:
        return kind(
            **{
                name: value if convert is None else convert(value)
                for (name, convert), value in zip(converters, values, strict=True)
            }
        )

    return make


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return what turns a value of the driver into one of an annotated type; None when it is one already."""
    if isinstance(hint, UnionType) and NoneType in get_args(hint):
        (*others,) = (one for one in get_args(hint) if one is not NoneType)
        convert = _converter(others[0]) if len(others) == 1 else None
        return None if convert is None else lambda value: None if value is None else convert(value)
    if get_origin(hint) is tuple:
        return lambda value: tuple(value or ())
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return getattr(hint, "from_json", None)


def to_json(value: object) -> str:
    """Return compact JSON for a jsonb parameter."""
    return json.dumps(value, separators=(",", ":"), default=_plain, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


@dataclass(slots=True)
class EndedRows:
    """A group of completions as parameters of `ledger/finish`."""

    rows: list[dict[str, object]] = field(default_factory=list)
    payload_steps: list[int] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    deciding: set[int] = field(default_factory=set)
    asking: list[tuple[Claim, Suspended]] = field(default_factory=list)

    @classmethod
    def of(cls, completions: Sequence[Completion]) -> EndedRows:
        """Turn completions into rows."""
        ended = cls()
        for completion in completions:
            ended.rows.append(_ended(completion))
            outcome = completion.outcome
            if isinstance(outcome, Succeeded) and ROUTE_KEY in outcome.stored.metadata:
                ended.deciding.add(completion.claim.step_id)
            if isinstance(outcome, Succeeded) and outcome.stored.payload is not None:
                ended.payload_steps.append(completion.claim.step_id)
                ended.versions.append(outcome.stored.location.removeprefix(_INLINE))
                ended.payloads.append(outcome.stored.payload)
            elif isinstance(outcome, Suspended):
                ended.asking.append((completion.claim, outcome))
        return ended

    def parameters(self) -> dict[str, object]:
        """Return the parameters of the statement."""
        return {
            "rows": to_json(self.rows),
            "payload_steps": self.payload_steps,
            "versions": self.versions,
            "payloads": self.payloads,
        }

    @property
    def delays(self) -> dict[int, object]:
        """Delay of each step that goes on later, in seconds."""
        return {int(str(row["id"])): row["delay_seconds"] for row in self.rows}


def newest_of_each(completions: Sequence[Completion]) -> list[Completion]:
    """Return the completions without those of attempts that a later one in the same group has replaced."""
    newest: dict[int, int] = {}
    for one in completions:
        newest[one.claim.step_id] = max(one.claim.token, newest.get(one.claim.step_id, 0))
    return [one for one in completions if one.claim.token == newest[one.claim.step_id]]


def _ended(completion: Completion) -> dict[str, object]:
    inputs = [{"parameter": one.parameter, "step_id": one.step_id} for one in completion.inputs]
    row: dict[str, object] = {
        "id": completion.claim.step_id,
        "token": completion.claim.token,
        "inputs": inputs or None,
        "gives_back": False,
        "delay_seconds": None,
        "finished_at": completion.finished_at,
        "ran": completion.ran,
        "code_version": completion.code_version,
    }
    match completion.outcome:
        case Succeeded(stored=stored):
            row |= {"state": State.COMPLETED, "output": stored.to_json()}
        case Failed(error=error, error_type=error_type, data=data):
            delay = completion.retry_in_seconds
            state = State.FAILED if delay is None else State.RETRYING
            row |= {"state": state, "error": error, "error_type": error_type, "delay_seconds": delay}
            if data is not None:
                row["error_data"] = data
        case Scattered():
            row |= {"state": State.WAITING, "reason": completion.outcome.reason, "gives_back": True}
        case Snoozed(after_seconds=seconds, reason=reason, for_inputs=for_inputs):
            state = State.WAITING if for_inputs else State.SCHEDULED
            row |= {"state": state, "reason": reason, "delay_seconds": seconds, "gives_back": True}
        case Suspended(reason=reason):
            row |= {"state": State.AWAITING_APPROVAL, "reason": reason, "gives_back": True}
        case Skipped(reason=reason):
            row |= {"state": State.SKIPPED, "reason": reason}
        case Stopped(reason=reason):
            row |= {"state": State.CANCELLED, "reason": reason}
    return row


def claim_from(row: Sequence[Any]) -> Claim:
    """Return the claim in (id, run, asset, partition, attempt, max_attempts, token, started_at, forced)."""
    return Claim(*row[:9])
