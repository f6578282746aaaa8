from __future__ import annotations

import json
import math
import re
from collections import deque
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.clean import MAX_CHARACTERS, clean_metadata
from flowstone.errors import SerializationError

_numbers = st.integers(-(2**1000), 2**1000) | st.floats()
_leaves = st.none() | st.booleans() | _numbers | st.text(st.characters(), max_size=20)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
_facts = st.dictionaries(st.text(st.characters(), max_size=8), _values, max_size=6)


def expected(value: Any) -> Any:
    """What is left of a value: texts apart, which are cleaned, it is the value itself."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    if isinstance(value, list):
        return [expected(one) for one in value]
    if isinstance(value, dict):
        return {name: expected(one) for name, one in value.items()}
    return value


@given(_facts)
def test_what_is_cleaned_survives_json_exactly(facts: dict[str, Any]) -> None:
    cleaned = clean_metadata(facts)
    document = json.dumps(cleaned, allow_nan=False)
    assert "\\u0000" not in document
    document.encode()
    json.dumps(cleaned, ensure_ascii=False).encode()  # no lone surrogates
    assert json.loads(document) == cleaned
    assert clean_metadata(cleaned) == cleaned


@given(st.dictionaries(st.text("abc", max_size=3), st.recursive(_numbers, st.lists), max_size=4))
def test_what_is_harmless_stays_as_it_is(facts: dict[str, Any]) -> None:
    assert clean_metadata(facts) == expected(facts)


def test_texts_are_cleaned() -> None:
    facts = {"a\x00": "nul \x00", "url": "postgresql://me:hunter2@host/db", "\ud800": "<b>\x1b[31mred"}
    assert clean_metadata(facts) == {
        "a\\x00": "nul \\x00",
        "url": "postgresql://me:***@host/db",
        "\\ud800": "<b>red",
    }


def test_numbers_of_libraries_are_numbers() -> None:
    facts = {"i": np.int64(3), "f": np.float32(0.5), "n": np.float64("nan"), "h": Fraction(1, 2)}
    assert clean_metadata(facts) == {"i": 3, "f": 0.5, "n": "NaN", "h": 0.5}
    assert [type(one) for one in clean_metadata(facts).values()] == [int, float, str, float]


class Colour(Enum):
    RED = "red"


class Unreadable(list[Any]):
    def __iter__(self) -> Any:
        return iter([1 // 0])


class Text(str):
    def __len__(self) -> int:
        raise RuntimeError

    __hash__ = str.__hash__
    __eq__ = __str__ = __repr__ = encode = isidentifier = __len__  # type: ignore[assignment]


PLAIN: list[tuple[object, object]] = [
    (np.bool_(True), True),
    (np.datetime64("2024-01-05"), "2024-01-05"),
    (np.array([1, 2]), [1, 2]),
    (np.array(1.5), 1.5),
    (np.array([[np.nan, 1.0]]), [["NaN", 1.0]]),
    (np.str_("a"), "a"),
    (Text("a"), "a"),
    ({Text("a b"): 1}, {"a b": 1}),
    (date(2024, 1, 5), "2024-01-05"),
    (datetime(2024, 1, 5, tzinfo=UTC), "2024-01-05T00:00:00+00:00"),
    (time(1, 2), "01:02:00"),
    (timedelta(minutes=2), 120.0),
    (pd.Timestamp("2024-01-05"), "2024-01-05T00:00:00"),
    (pd.Timedelta(seconds=3), 3.0),
    (pd.NaT, "NaT"),
    (pd.NA, None),
    (Decimal("1.50"), "1.50"),
    (Decimal("NaN"), "NaN"),
    (Path("/data/x.csv"), "/data/x.csv"),
    (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
    (Colour.RED, "red"),
    ({"b", "a"}, ["a", "b"]),
    (frozenset({2, 1}), [1, 2]),
    ({"x": 1}.keys(), ["x"]),
    (range(2), [0, 1]),
    (deque(["z"]), ["z"]),
    (MappingProxyType({"a": (1,)}), {"a": [1]}),
]


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=lambda one: type(one).__name__)
def test_what_libraries_give_has_a_plain_form(value: object, plain: object) -> None:
    found = clean_metadata({"fact": value})["fact"]
    assert (type(found), found) == (type(plain), plain)
    assert clean_metadata({"fact": found}) == {"fact": found}


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _holding_itself() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    facts["self"] = facts
    return facts


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"when": object()}, "cannot be recorded at metadata['when'] (type builtins.object)"),
        ({"rows": [1, {b"x"}]}, "cannot be recorded at metadata['rows'][1][...] (type builtins.bytes)"),
        ({1: 2}, "has the key int: keys must be text at metadata (type builtins.int). Write str(key)."),
        ({"a": {b"x": 1}}, "has the key bytes: keys must be text at metadata['a']"),
        ([1], "must be a dict"),
        ({"big": 2**5000}, "more than 1024 bits"),
        ({"rows": list(range(20_000))}, "holds more than 10,000 values"),
        ({"text": "x" * 100_000_000}, "holds more than 65,536 characters of text"),
        ({str(number): 1.5 for number in range(9_000)}, f"{MAX_CHARACTERS:,} is the most"),
        ({"deep": _nested(30)}, "nested more than 20 deep"),
        (_holding_itself(), "or holds itself"),
        ({"array": np.zeros(20_000)}, "holds more than 10,000 values at metadata['array']"),
        ({"bytes": np.array([b"x"])}, "cannot be recorded at metadata['bytes'] (type numpy.ndarray)"),
        ({"wrong": Unreadable()}, "cannot be read (ZeroDivisionError) at metadata['wrong']"),
        ({"frame": pd.DataFrame({"a": [1]})}, "cannot be recorded at metadata['frame'] (type pandas"),
        ({"class": dict}, "cannot be recorded at metadata['class'] (type builtins.type)"),
    ],
    ids=lambda one: one[:30] if isinstance(one, str) else "",
)
def test_what_is_no_small_fact_is_refused(facts: Any, why: str) -> None:
    with pytest.raises(SerializationError, match=re.escape(why)):
        clean_metadata(facts)
