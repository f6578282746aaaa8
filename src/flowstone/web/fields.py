"""What may arrive in a request, and what leaves as JSON: both are dataclasses, and nothing else.

`parse_pairs` (the query of a URL, a form) and `parse_document` (a body of JSON) make the declared dataclass: its
fields are a closed set, numbers are clamped to their bounds, texts and lists are bounded. `plain` is the way back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from flowstone.core.declaring import is_storable
from flowstone.errors import did_you_mean
from flowstone.web.problems import Problem

MAX_TEXT = 2_000
MAX_ITEMS = 1_000
MAX_NUMBER = 2**63 - 1
_YES = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True)
class NoFields:
    """What a page without a query, or an action without a form, takes: nothing."""


def number(default: float | None = 0, *, minimum: float = 0, maximum: float = MAX_NUMBER) -> Any:
    """Return a field of numbers that are moved into their bounds.

    Example:
        >>> @dataclass(frozen=True)
        ... class Query:
        ...     limit: int = number(50, minimum=1, maximum=500)
        >>> parse_pairs(Query, [("limit", "100000")])
        Query(limit=500)
    """
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


def text(default: str | None = "", *, maximum: int = MAX_TEXT) -> Any:
    """Return a field of text that is longer than others may be.

    Example:
        >>> @dataclass(frozen=True)
        ... class Form:
        ...     config: str = text(maximum=20_000)
        >>> Form().config
        ''
    """
    return field(default=default, metadata={"maximum_text": maximum})


def parse_pairs[T](kind: type[T], pairs: Iterable[tuple[str, str]]) -> T:
    """Make a dataclass of the names and values of a URL or a form.

    Args:
        kind: the dataclass; its fields are all that may occur.
        pairs: as they came; a name may occur again only where the field is a tuple.

    Raises:
        Problem: 400; names the field.

    Example:
        >>> @dataclass(frozen=True)
        ... class Query:
        ...     state: tuple[str, ...] = ()
        ...     asset: str | None = None
        >>> parse_pairs(Query, [("state", "failed"), ("state", "running"), ("asset", "")])
        Query(state=('failed', 'running'), asset=None)
    """
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    _refuse_unknown(kind, given)
    found: dict[str, object] = {}
    for one, hint in declared(kind):
        values = given.get(one.name)
        if values is None:
            continue
        if _item_of(hint) is not None:
            # an empty choice of a form is no choice
            found[one.name] = _sequence(one, hint, [value for value in values if value])
        elif len(values) > 1:
            raise _bad(one.name, f"was given {len(values)} times; give it once")
        elif not (values[0] == "" and _empty_is_nothing(one, hint)):
            found[one.name] = _value(one, hint, values[0])
    return _made(kind, found)


def parse_document[T](kind: type[T], document: object) -> T:
    """Make a dataclass of a JSON object; the same rules as for a form.

    Raises:
        Problem: 400; names the field.

    Example:
        >>> @dataclass(frozen=True)
        ... class Form:
        ...     id: str
        ...     force: bool = False
        >>> parse_document(Form, {"id": "r1", "force": True})
        Form(id='r1', force=True)
    """
    if not isinstance(document, Mapping):
        raise Problem(400, "The body must be a JSON object.", 'Send {"field": value, ...}.')
    _refuse_unknown(kind, document)
    found: dict[str, object] = {}
    for one, hint in declared(kind):
        value = document.get(one.name)
        if value is None:
            continue
        if _item_of(hint) is not None:
            if not isinstance(value, list):
                raise _bad(one.name, "must be a list")
            found[one.name] = _sequence(one, hint, value)
        else:
            found[one.name] = _value(one, hint, value)
    return _made(kind, found)


def pairs_of(value: object) -> list[tuple[str, str]]:
    """Return a query or a form as the names and values that make it again, without what is as by default.

    Example:
        >>> @dataclass(frozen=True)
        ... class Query:
        ...     state: tuple[str, ...] = ()
        ...     limit: int = 50
        >>> pairs_of(Query(state=("failed",)))
        [('state', 'failed')]
    """
    found: list[tuple[str, str]] = []
    for one in fields(cast("Any", value)):
        given = getattr(value, one.name)
        if given is None or given == one.default or given == ():
            continue
        found += [(one.name, as_text(item)) for item in (given if isinstance(given, tuple) else (given,))]
    return found


def as_text(value: object) -> str:
    """Return one value as a URL and a form have it.

    Example:
        >>> as_text(True), as_text(1.5), as_text({"a": 1})
        ('true', '1.5', '{"a": 1}')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return json.dumps(plain(value))
    return str(value)


def plain(value: object) -> Any:
    """Return a view model as what JSON can hold: ids as numbers, times in UTC, durations in seconds.

    Example:
        >>> plain((timedelta(seconds=2), datetime(2024, 1, 1, tzinfo=UTC), math.inf))
        [2.0, '2024-01-01T00:00:00Z', None]
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes):
        return [plain(one) for one in value]
    return str(value)


def declared(kind: type) -> tuple[tuple[Field[Any], Any], ...]:
    """Return the fields of a dataclass with their types."""
    return _declared(cast("Hashable", kind))


@cache
def _declared(kind: Hashable) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(cast("Any", kind))
    return tuple((one, hints[one.name]) for one in fields(cast("Any", kind)))


def _made[T](kind: type[T], found: dict[str, object]) -> T:
    for one, _ in declared(kind):
        if one.name not in found and one.default is MISSING and one.default_factory is MISSING:
            raise _bad(one.name, "is missing")
    return kind(**found)


def _refuse_unknown(kind: type, given: Iterable[str]) -> None:
    known = [one.name for one, _ in declared(kind)]
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            hint = did_you_mean(name[:100], known)
            raise Problem(400, f"There is no field {name[:100]!r} here.{hint}", f"Fields: {listed}.")


def _empty_is_nothing(one: Field[Any], hint: Any) -> bool:
    """Whether an empty input of a form means that nothing was given."""
    return hint is not str or one.default is not MISSING


def _item_of(hint: Any) -> Any:
    """Return the type of the items of a tuple; None for anything else."""
    if get_origin(hint) is tuple:
        return get_args(hint)[0]
    return None


def _sequence(one: Field[Any], hint: Any, values: Sequence[object]) -> tuple[object, ...]:
    maximum = int(one.metadata.get("maximum_items", MAX_ITEMS))
    if len(values) > maximum:
        raise _bad(one.name, f"has {len(values):,} values; at most {maximum:,} are taken")
    return tuple(_value(one, _item_of(hint), value) for value in values)


def _value(one: Field[Any], hint: Any, value: object) -> object:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        return _value(one, kinds[0], value)
    if origin is Literal:
        return _choice(one, {as_text(choice): choice for choice in get_args(hint)}, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(one, {as_text(choice): choice for choice in hint}, value)
    if hint is bool:
        return value if isinstance(value, bool) else _choice(one, _YES, str(value).lower())
    if hint in (int, float):
        return _number(one, hint, value)
    if hint is datetime or hint is date:
        return _time(one, hint, value)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return _mapping(one, value)
    return _text(one, value)


def _choice(one: Field[Any], choices: Mapping[str, object], value: object) -> object:
    if isinstance(value, str | int) and as_text(value) in choices:
        return choices[as_text(value)]
    raise _bad(one.name, f"is none of {', '.join(choices)}")


def _number(one: Field[Any], kind: type, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > 40:
            raise ValueError
        found: float = int(value) if kind is int and not isinstance(value, float) else float(value)
        if not math.isfinite(found) or (kind is int and found != int(found)):
            raise ValueError
    except ValueError:
        raise _bad(one.name, f"must be a {'whole ' if kind is int else ''}number") from None
    minimum = one.metadata.get("minimum", 0)
    maximum = one.metadata.get("maximum", MAX_NUMBER)
    return cast("float", kind(min(max(found, minimum), maximum)))


def _time(one: Field[Any], kind: type, value: object) -> datetime | date:
    try:
        assert isinstance(value, str)
        if kind is date:
            return date.fromisoformat(value)
        found = datetime.fromisoformat(value)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (AssertionError, ValueError):
        example = "2024-02-29" if kind is date else "2024-02-29T12:00:00+01:00"
        raise _bad(one.name, f"must be a time such as {example}") from None


def _mapping(one: Field[Any], value: object) -> dict[str, object]:
    if isinstance(value, str):
        try:
            value = json.loads(_text(one, value))
        except (ValueError, RecursionError):
            raise _bad(one.name, 'must be a JSON object such as {"limit": 10}') from None
    if not isinstance(value, dict):
        raise _bad(one.name, "must be a JSON object")
    return value


def _text(one: Field[Any], value: object) -> str:
    if not isinstance(value, str):
        raise _bad(one.name, "must be text")
    maximum = int(one.metadata.get("maximum_text", MAX_TEXT))
    if len(value) > maximum:
        raise _bad(one.name, f"has {len(value):,} characters; at most {maximum:,} are taken")
    if not is_storable(value):
        raise _bad(one.name, "holds a character that no database can keep (NUL, half of a surrogate pair)")
    return value


def _bad(name: str, what: str) -> Problem:
    return Problem(400, f"The field {name!r} {what}.", "Correct it and send the request again.")
