from __future__ import annotations

import collections
import dataclasses
import enum
import io
import json
import math
import os
import struct
import subprocess
import sys
import threading
import typing
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstone.errors import SerializationError
from flowstone.io import JsonSerializer
from flowstone.io.json import _ENCODER, MAX_DEPTH, _plain_bytes, _plain_parts, _quick_bytes, _Walker

ZONES = [
    UTC,
    timezone(timedelta(hours=-3, seconds=7)),
    timezone(timedelta(hours=1), "named"),
    timezone(timedelta(0), "zero"),
    ZoneInfo("Europe/Berlin"),
    ZoneInfo("America/St_Johns"),
]


def encode(value: object) -> bytes:
    file = io.BytesIO()
    JsonSerializer().write(value, file)
    return file.getvalue()


def round_trip(value: object) -> object:
    return JsonSerializer().read(io.BytesIO(encode(value)))


def same_config(value: object) -> object:
    """A form that differs where values differ in type, sign of zero, bits of NaN, zone or order of a dict."""
    match value:
        case float():
            return ("float", struct.pack(">d", value))
        case complex():
            return ("complex", struct.pack(">dd", value.real, value.imag))
        case Decimal():
            return ("Decimal", value.as_tuple())
        case dict():
            return ("dict", [(same_config(key), same_config(item)) for key, item in value.items()])
        case list() | tuple():
            return (type(value), [same_config(item) for item in value])
        case set() | frozenset():
            return (type(value), sorted(repr(same_config(item)) for item in value))
        case datetime() | time():
            return (type(value), value.isoformat(), value.fold, repr(value.tzinfo))
        case _:
            return (type(value), value)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(1_990, 2_010).map(lambda bits: 1 - (1 << bits)),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.text(st.sampled_from("$\ud83d\ude00\udfffaü\x00"), max_size=6),
    st.sampled_from(["$date", "$dict", "$set", "$", "$tuple"]),
    st.binary(max_size=8),
    st.dates(),
    st.datetimes(timezones=st.none() | st.sampled_from(ZONES), allow_imaginary=True),
    st.times(timezones=st.none() | st.sampled_from(ZONES)),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
    st.complex_numbers(),
)
hashables = st.recursive(
    leaves.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(hashables, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
        st.dictionaries(st.sampled_from(["$date", "$dict", "$x"]), inner, max_size=2),
        st.dictionaries(hashables, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=5 * settings().max_examples)
@given(values)
def test_everything_comes_back_exactly(value: object) -> None:
    assert same_config(round_trip(value)) == same_config(value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**300), 10**300)
        | st.text(st.characters(codec="utf-8"))
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")).map("k".__add__), inner)
        ),
    )
)
def test_plain_data_is_plain_json(value: object) -> None:
    text = encode(value).decode()
    assert json.loads(text) == value
    assert text == json.dumps(value, ensure_ascii=False)


@given(values | st.lists(st.fixed_dictionaries({"$a": values, "b": values}), min_size=3))
def test_what_is_written_as_it_stands_is_what_the_walk_would_write(value: object) -> None:
    walked = _ENCODER.encode(_Walker().encode(value, 0)).encode()
    assert encode(value) == walked
    if _plain_bytes(value) is not None:  # as it stands: json itself writes the same
        assert json.dumps(value, ensure_ascii=False).encode() == walked


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1, "b": 2}, {"a": 1, "b": (2,)}, {"b": 1, "a": 2}],
        [{"a": 1}, {"a": float("nan")}, {"a": 2.5}],
        [[1, [2, [True]]], [{"$date": "x"}]],
        [{"a": True}, {1: True}],
        [{"a": 1 << 2000}],
        [{"k\ud800": 1}, {"a": "\ud800"}],
    ],
)
def test_one_part_that_is_not_plain_among_many_keeps_its_type(value: object) -> None:
    assert _plain_bytes(value) is None
    assert round_trip(value) == value or value[1]["a"] != value[1]["a"]  # type: ignore[index]  # NaN


plain_rows = st.lists(
    st.dictionaries(
        st.sampled_from(["id", "name", "amount", "a:b", "a,b", "e"]),
        st.integers(-(2**70), 2**70)
        | st.floats()
        | st.decimals(-(10**9), 10**9, places=2).map(float)
        | st.sampled_from(
            [1e16, 1e15, 1e-5, 0.0001, 5e-324, 2.0**-44, 0.1 + 0.2, -0.0, 9007199254740993.0, 2.0**60]
        )
        | st.sampled_from(["1e5", "0.0000", "null", "\x7f", 'say "hi", ok', "a\\b", "a: b, c", "line\n", "größe"])
        | st.text(max_size=5)
        | st.booleans()
        | st.lists(st.floats(-1e6, 1e6) | st.integers(-9, 9) | st.just([]) | st.just({}), max_size=3),
        max_size=4,
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=5 * settings().max_examples)
@given(plain_rows)
def test_what_orjson_writes_is_what_json_writes(value: object) -> None:
    parts = _plain_parts(value)
    assert parts is not None
    quick = _quick_bytes(value, parts)
    if quick is not None:
        assert quick == json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@settings(max_examples=5 * settings().max_examples)
@given(plain_rows)
def test_what_orjson_reads_is_what_json_reads(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "NaN" not in text and "Infinity" not in text:
        read = JsonSerializer().loads(text.encode("utf-8"))
        assert same_config(read) == same_config(json.loads(text))


def test_ordinary_rows_take_the_quick_way() -> None:
    rows = [{"id": n, "name": f"customer {n}", "amount": n * 1.25, "tags": [], "ok": n > 3} for n in range(20)]
    for value in (rows, {"rows": rows}, [1, 2.5, "x"], {}, [], [None, "x", 1]):
        parts = _plain_parts(value)
        assert parts is not None
        quick = _quick_bytes(value, parts)
        assert quick == json.dumps(value).encode()
        assert JsonSerializer().loads(quick) == value


@pytest.mark.parametrize(
    "text", ["1" * 19, "-" + "9" * 25, "1e400", "[1" + "0" * 30 + "]", '"\\ud800"', "[1.0, 2]"]
)
def test_what_orjson_reads_otherwise_is_read_by_json(text: str) -> None:
    read = JsonSerializer().loads(text.encode())
    assert same_config(read) == same_config(json.loads(text))


@pytest.mark.parametrize("text", ["", "[1,]", "NaN", "[Infinity]", "\x00", '{"a": 1} 2', "01"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        JsonSerializer().loads(text.encode())


def test_without_orjson_values_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    value = [{"id": 1, "amount": 2.5, "name": "x"}]
    written = JsonSerializer().dumps(value)
    monkeypatch.setattr("flowstone.io.json._orjson", None)
    assert JsonSerializer().dumps(value) == written
    assert JsonSerializer().loads(written) == value


def test_a_quotation_mark_and_a_dollar_in_text_are_no_tag() -> None:
    for text in ('"$date"', '{"$date": "2024-01-01"}', '"$'):
        assert round_trip([text, {"a": text}]) == [text, {"a": text}]


def test_readable_form() -> None:
    value = {"day": date(2024, 1, 1), "größe": (1, 2), 3: {"a"}}
    assert json.loads(encode(value)) == {
        "$dict": [["day", {"$date": "2024-01-01"}], ["größe", {"$tuple": [1, 2]}], [3, {"$set": ["a"]}]]
    }
    assert "größe" in encode(value).decode()


def test_a_dict_that_looks_like_a_tag_is_escaped() -> None:
    for value in ({"$date": "2024-01-01"}, {"$dict": []}, {"$unknown": 1}, {"$": {"$int": "0x1"}}):
        assert round_trip(value) == value
    assert encode({"$a": 1, "b": 2}) == b'{"$a": 1, "b": 2}'


def test_the_order_of_dicts_is_kept() -> None:
    assert list(round_trip({"z": 1, "a": 2})) == ["z", "a"]  # type: ignore[call-overload]
    assert list(round_trip({2: 1, "a": 2, 1: 3})) == [2, "a", 1]  # type: ignore[call-overload]


def test_both_sides_of_the_hour_that_repeats_in_autumn() -> None:
    for fold in (0, 1):
        value = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
        loaded = round_trip(value)
        assert isinstance(loaded, datetime)
        assert loaded.utcoffset() == value.utcoffset()
        assert loaded.tzinfo is value.tzinfo


def test_integers_beyond_the_limit_of_python() -> None:
    huge = -(10**100_000) + 1
    assert round_trip([huge, {"a": huge}]) == [huge, {"a": huge}]


def test_numpy_scalars_come_back_with_their_type() -> None:
    for value in (
        np.float64(0.1),
        np.float32(0.1),
        np.int8(-3),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.datetime64("2024-01-01T00:00:00.000000001"),
        np.timedelta64(5, "D"),
    ):
        loaded = round_trip({"mean": value})
        assert isinstance(loaded, dict)
        assert loaded["mean"] == value
        assert type(loaded["mean"]) is type(value)
        assert loaded["mean"].dtype == value.dtype
    assert math.isnan(round_trip(np.float64("nan")))  # type: ignore[arg-type]


def test_equal_sets_give_equal_bytes_in_every_process() -> None:
    program = (
        "import io; from flowstone.io import JsonSerializer as J; f = io.BytesIO();"
        "J().write({'tags': set('abcdefgh'), 'mixed': {1, 'x', (2, 'y'), None}}, f); print(f.getvalue())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Point(typing.NamedTuple):
    x: int


@dataclasses.dataclass
class Order:
    amount: int


def cyclic() -> object:
    value: list[object] = [1]
    value.append({"self": value})
    return value


@pytest.mark.parametrize(
    ("value", "path", "kind", "remedy"),
    [
        ({"rows": [0, 1, 2, threading.Lock()]}, '$["rows"][3]', "_thread.lock", "io='memory'"),
        ((number for number in range(3)), "$", "builtins.generator", "list(value)"),
        ({"a": (1, {"b": Color.RED})}, '$["a"][1]["b"]', "Color", "value.name"),
        ([Level.LOW], "$[0]", "Level", "value.value"),
        ([Point(1)], "$[0]", "Point", "_asdict"),
        ([Order(1)], "$[0]", "Order", "asdict"),
        ({"p": Path("a")}, '$["p"]', "Path", "str(value)"),
        (cyclic(), '$[1]["self"]', "builtins.list", "key"),
        ({(1, 2): object()}, "$[(1, 2)]", "builtins.object", "plain data"),
        ({"a": {Color.RED: 1}}, '$["a"].keys()[0]', "Color", "value.name"),
        ({frozenset({Point(1)}): 1}, "$.keys()[0]{element}", "Point", "_asdict"),
        (collections.OrderedDict(a=1), "$", "collections.OrderedDict", "dict(value)"),
        (collections.defaultdict(list), "$", "collections.defaultdict", "dict(value)"),
        ([bytearray(b"x")], "$[0]", "builtins.bytearray", "bytes(value)"),
        ({"w": np.arange(3)}, '$["w"]', "numpy.ndarray", "tolist"),
        (object, "$", "builtins.type", "plain data"),
    ],
)
def test_refusals_name_path_type_and_remedy(value: object, path: str, kind: str, remedy: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(value)
    assert caught.value.path == path
    assert caught.value.type_name.endswith(kind)
    assert remedy in caught.value.remedy
    assert path in str(caught.value)


def test_a_foreign_time_zone_is_refused() -> None:
    from dateutil import tz

    with pytest.raises(SerializationError, match="ZoneInfo"):
        encode([datetime(2024, 1, 1, tzinfo=tz.gettz("Europe/Berlin"))])


def nested(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_deep_nesting_is_refused_clearly() -> None:
    with pytest.raises(SerializationError, match=f"deeper than {MAX_DEPTH}") as caught:
        encode(nested(10_000))
    assert len(str(caught.value)) < 1000
    wrapped: object = 1
    for _ in range(10_000):
        wrapped = {(1, 2): wrapped}
    with pytest.raises(SerializationError, match="deeper"):
        encode(wrapped)


def test_the_deepest_value_that_is_written_comes_back() -> None:
    assert round_trip(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    wrapped: object = 1
    for _ in range(MAX_DEPTH):
        wrapped = {1: wrapped}
    assert round_trip(wrapped) == wrapped


def test_a_nearly_exhausted_stack_is_no_recursion_error() -> None:
    def descend() -> None:
        try:
            descend()
        except RecursionError:
            encode(
                [nested(MAX_DEPTH - 1), date(2024, 1, 1)]
            )  # a date is no plain JSON, so that it is walked through

    with pytest.raises(SerializationError, match="call stack"):
        descend()


def test_shared_parts_are_no_circle() -> None:
    part = [1]
    assert round_trip([part, part, {"a": part}]) == [[1], [1], {"a": [1]}]


@pytest.mark.parametrize("data", [b"", b"{", b'{"$new": 1}', b"NaN", b"\xff", b'{"$date": 3}'])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        JsonSerializer().read(io.BytesIO(data))


def test_optional_packages_are_not_imported() -> None:
    program = (
        "import io, sys; from flowstone.io import choose_serializer; before = set(sys.modules);"
        "[choose_serializer(v).write(v, io.BytesIO()) for v in (b'', '', [1], {'a': 2})];"
        "found = {'numpy', 'pandas', 'polars', 'pyarrow', 'psycopg'} & (set(sys.modules) - before);"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_accepts_what_it_knows() -> None:
    serializer = JsonSerializer()
    assert all(map(serializer.accepts, [None, 1, [], {}, (), set(), uuid.uuid4(), np.float64(1)]))
    assert not serializer.accepts(threading.Lock())


@pytest.mark.parametrize("width", [2, 50])
def test_what_contains_itself_more_than_once_is_refused_at_once(width: int) -> None:
    """Looked at level by level, it doubles at each."""
    loop: list[object] = []
    loop.extend([loop] * width)
    tree: dict[str, object] = {}
    tree.update({f"k{number}": tree for number in range(width)})
    for value in (loop, tree):
        with pytest.raises(SerializationError, match="contains itself"):
            JsonSerializer().dumps(value)


def test_the_same_row_many_times_is_no_circle() -> None:
    row = {"a": [1]}
    value = [row] * 5_000
    assert JsonSerializer().read(io.BytesIO(JsonSerializer().dumps(value))) == value


@pytest.mark.parametrize("digits", [600, 602, 603, 604, 700, 5000])
def test_long_runs_of_digits_are_looked_at_closely(digits: int) -> None:
    """Text of digits stays text, and integers are plain up to the limit."""
    text = "1" * digits
    data = JsonSerializer().dumps([text, {"n": 1}])
    assert data == json.dumps([text, {"n": 1}]).encode()
    number = int("9" * min(digits, 4000))
    data = JsonSerializer().dumps([number])
    assert (b"$int" in data) == (number >= 1 << 2000)
    assert JsonSerializer().read(io.BytesIO(data)) == [number]
