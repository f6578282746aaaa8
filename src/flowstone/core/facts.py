"""Small facts that user code records: made fit for JSON, for a database and for a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real

from flowstone.core.output import JsonValue
from flowstone.core.text import clean_text

MOST_CHARACTERS = 64 * 1024
_MOST_VALUES = 10_000
_DEEPEST = 20
_LONGEST_NUMBER_BITS = 1024  # what a double can hold, so that every reader of the JSON can hold it too


def clean_facts(facts: Mapping[str, object]) -> dict[str, JsonValue]:
    """Return facts as plain JSON types, or say why they cannot be recorded.

    Text is cleaned as error texts are; NaN and the infinities, which JSON does not know, become the texts
    "NaN", "Infinity" and "-Infinity"; number types of other libraries become `int` and `float`.

    Args:
        facts: names and JSON values; tuples count as lists.

    Raises:
        TypeError: something is not JSON; names the place and the type.
        ValueError: too much, too deep, or a number that is too large.

    Example:
        >>> clean_facts({"rows": 3, "share": float("nan"), "head": ("a", "b")})
        {'rows': 3, 'share': 'NaN', 'head': ['a', 'b']}
    """
    if not isinstance(facts, Mapping):
        raise TypeError(f"metadata must be a dict of names to JSON values, not {_type(facts)}")
    cleaned = _Cleaner().mapping(facts, "metadata", 0)
    size = len(json.dumps(cleaned, ensure_ascii=False))
    if size > MOST_CHARACTERS:
        raise ValueError(_too_much(f"takes {size:,} characters as JSON; {MOST_CHARACTERS:,} is the most"))
    return cleaned


class _Cleaner:
    """Walks a document and stops as soon as there is too much of it: it may be a table by mistake."""

    def __init__(self) -> None:
        self._values = 0
        self._characters = 0

    def mapping(self, facts: Mapping[str, object], place: str, depth: int) -> dict[str, JsonValue]:
        cleaned: dict[str, JsonValue] = {}
        for name, value in facts.items():
            if not isinstance(name, str):
                raise TypeError(f"{place} has the key {_short(name)}: keys must be text, not {_type(name)}")
            key = self._text(name)
            cleaned[key] = self._value(value, f"{place}[{_short(key)}]", depth + 1)
        return cleaned

    def _value(self, value: object, place: str, depth: int) -> JsonValue:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise ValueError(_too_much(f"holds more than {_MOST_VALUES:,} values"))
        if depth > _DEEPEST:
            raise ValueError(_too_much(f"is nested more than {_DEEPEST} deep (or holds itself)"))
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Integral):
            return _integer(int(value), place)
        if isinstance(value, Real):
            return _number(float(value))
        if isinstance(value, Mapping):
            return self.mapping(value, place, depth)
        if isinstance(value, list | tuple):
            return [self._value(one, f"{place}[{index}]", depth + 1) for index, one in enumerate(value)]
        raise TypeError(
            f"{place} is of type {_type(value)}, which is not JSON: give text, a number, a list or a dict"
        )

    def _text(self, text: str) -> str:
        self._characters += len(text)
        if self._characters > MOST_CHARACTERS:
            raise ValueError(_too_much(f"holds more than {MOST_CHARACTERS:,} characters of text"))
        # escapes are longer than what they stand for; the limit must not cut here, as it has its own error
        return clean_text(str.__str__(text), limit=10 * MOST_CHARACTERS)


def _integer(value: int, place: str) -> int:
    if value.bit_length() > _LONGEST_NUMBER_BITS:
        raise ValueError(f"{place} is a whole number of more than {_LONGEST_NUMBER_BITS} bits; give it as text")
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _too_much(why: str) -> str:
    return f"metadata {why}. It is for small facts, such as a number of rows: store data as an asset."


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short(key: object) -> str:
    shown = repr(key[:40]) if isinstance(key, str) else type(key).__name__
    return clean_text(shown, limit=60)
