"""Small facts that user code records: made fit for JSON, for a database and for a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any
from uuid import UUID

from flowstone.core.output import JsonValue, type_name
from flowstone.core.text import clean_text
from flowstone.errors import SerializationError

MAX_CHARACTERS = 64 * 1024
MAX_OF_OUTPUTS = 1024 * 1024
"""Characters of JSON that the metadata of a stored output may take."""

_MAX_VALUES = 10_000  # in so many characters
_DEEPEST = 20
_MAX_NUMBER_BITS = 1024  # what a double can hold, so that every reader of the JSON can hold it too
_REMEDY = (
    "Give text, numbers, dates, lists and dicts with text as keys: str(...), list(...), a number of it, or "
    "dataclasses.asdict(...)."
)


def clean_metadata(
    facts: Mapping[str, object], what: str = "metadata", *, max_characters: int = MAX_CHARACTERS
) -> dict[str, JsonValue]:
    """Return facts as plain JSON types, or say why they cannot be recorded.

    Text is cleaned as error texts are; NaN and the infinities, which JSON does not know, become the texts
    "NaN", "Infinity" and "-Infinity"; numbers, bools and arrays of other libraries become `int`, `float`,
    `bool` and lists; dates and times their ISO text, a timedelta its seconds, a Decimal, a path and a UUID their
    text, an enum its value, a set a sorted list, a tuple a list.

    Args:
        facts: names and values.
        what: what they are called in errors.
        max_characters: how long they may be as JSON.

    Raises:
        SerializationError: something cannot be recorded, or there is too much of it; names the place, the type and
            the remedy.

    Example:
        >>> clean_metadata({"rows": 3, "share": float("nan"), "day": date(2024, 1, 5), "names": {"b", "a"}})
        {'rows': 3, 'share': 'NaN', 'day': '2024-01-05', 'names': ['a', 'b']}
    """
    if not isinstance(facts, Mapping):
        raise _refusal("must be a dict of names to values", what, facts, "Fill the dict, do not replace it.")
    cleaned = _Cleaner(max_characters).mapping(facts, what, 0)
    size = len(json.dumps(cleaned, ensure_ascii=False))
    if size > max_characters:
        raise _too_much(f"takes {size:,} characters as JSON; {max_characters:,} is the most", what, facts)
    return cleaned


def clean_value(value: object, what: str, *, max_characters: int = MAX_CHARACTERS) -> JsonValue:
    """Return one value as `clean_metadata` does; see there.

    Example:
        >>> clean_value([Decimal("1.50")], "data")
        ['1.50']
    """
    cleaned = clean_metadata({"value": value}, what, max_characters=max_characters + len('{"value": }'))
    return cleaned["value"]


class _Cleaner:
    """Walks a document and stops as soon as there is too much of it: it may be a table by mistake."""

    def __init__(self, max_characters: int) -> None:
        self._values = 0
        self._characters = 0
        self._max_characters = max_characters
        self._max_values = max_characters * _MAX_VALUES // MAX_CHARACTERS

    def mapping(self, facts: Mapping[Any, object], place: str, depth: int) -> dict[str, JsonValue]:
        cleaned: dict[str, JsonValue] = {}
        try:
            items = list(facts.items()) if len(facts) <= self._max_values else None
        except Exception as error:
            raise _refusal(f"cannot be read ({type(error).__name__})", place, facts, _REMEDY) from error
        if items is None:
            raise _too_much(f"holds more than {self._max_values:,} values", place, facts)
        for name, value in items:
            if not isinstance(name, str):
                raise _refusal(f"has the key {_short(name)}: keys must be text", place, name, "Write str(key).")
            key = str.__str__(name)  # a subclass may do anything when it is looked at
            if len(key) >= 40 or not key.isidentifier():
                key = self._text(key, place)
            cleaned[key] = self._value(value, f"{place}[{_short(key)}]", depth + 1)
        return cleaned

    def _value(self, value: object, place: str, depth: int) -> JsonValue:
        self._values += 1
        if self._values > self._max_values:
            raise _too_much(f"holds more than {self._max_values:,} values", place, value)
        if depth > _DEEPEST:
            raise _too_much(f"is nested more than {_DEEPEST} deep (or holds itself)", place, value)
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return _integer(value, place) if kind is int else value  # type: ignore[arg-type, return-value]
        if kind is str:
            return self._text(value, place)  # type: ignore[arg-type]
        try:
            return self._other(value, place, depth)
        except SerializationError:
            raise
        except Exception as error:
            raise _refusal(f"cannot be read ({type(error).__name__})", place, value, _REMEDY) from error

    def _other(self, value: object, place: str, depth: int) -> JsonValue:
        if isinstance(value, Enum):
            return self._value(value.value, place, depth + 1)
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, Integral):
            return _integer(int(value), place)
        if isinstance(value, Real):
            return _number(float(value))
        if isinstance(value, Decimal | PurePath | UUID):
            return self._text(str(value), place)
        if isinstance(value, date | time):  # a datetime is a date
            return self._text(value.isoformat(), place)
        if isinstance(value, timedelta):
            return _number(value.total_seconds())
        if isinstance(value, Mapping):
            return self.mapping(value, place, depth)
        if type(value).__name__ == "NAType":  # of pandas
            return None
        if type(value).__module__ == "numpy":
            return self._numpy(value, place, depth)
        if isinstance(value, Set):
            listed = [self._value(one, f"{place}[...]", depth + 1) for one in value]
            return sorted(listed, key=lambda one: (type(one).__name__, one if isinstance(one, str) else repr(one)))
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            return [self._value(one, f"{place}[{index}]", depth + 1) for index, one in enumerate(value)]
        raise _refusal("cannot be recorded", place, value, _REMEDY)

    def _numpy(self, value: Any, place: str, depth: int) -> JsonValue:
        """Return a bool, a date or an array of NumPy; its numbers are numbers already."""
        if getattr(value, "size", 0) > self._max_values:
            raise _too_much(f"holds more than {self._max_values:,} values", place, value)
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if kind in "mM" and kind:
            # nanoseconds have no date of the standard library: their text is exact
            plain = value.astype(str).tolist()
        elif kind in "biufSUO" and kind and kind != "S":
            plain = value.tolist()
        else:
            raise _refusal("cannot be recorded", place, value, _REMEDY)
        if type(plain).__module__ == "numpy":
            raise _refusal("cannot be recorded", place, value, _REMEDY)
        return self._value(plain, place, depth)

    def _text(self, text: str, place: str) -> str:
        text = str.__str__(text)
        self._characters += len(text)
        if self._characters > self._max_characters:
            raise _too_much(f"holds more than {self._max_characters:,} characters of text", place, text)
        # escapes are longer than what they stand for; the limit must not cut here, as it has its own error
        return clean_text(text, limit=10 * self._max_characters)


def _integer(value: int, place: str) -> int:
    if value.bit_length() > _MAX_NUMBER_BITS:
        problem = f"is a whole number of more than {_MAX_NUMBER_BITS} bits"
        raise _refusal(problem, place, value, "Give it as text.")
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _refusal(problem: str, place: str, value: object, remedy: str) -> SerializationError:
    return SerializationError(f"A value {problem}", path=place, type_name=type_name(value), remedy=remedy)


def _too_much(why: str, place: str, value: object) -> SerializationError:
    remedy = "Metadata is for small facts, such as a number of rows: store data as an asset."
    return _refusal(why, place, value, remedy)


def _short(key: object) -> str:
    shown = repr(key[:40]) if isinstance(key, str) else type(key).__name__
    return clean_text(shown, limit=60)
