from __future__ import annotations

import enum
import timeit
from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowstone.core.partitions import MAX_DEPTH, Partition, decode_partition, encode_partition, partition_label
from flowstone.errors import PartitionError

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    UTC,
    ZoneInfo("UTC"),
    BERLIN,
    ZoneInfo("Australia/Lord_Howe"),
    ZoneInfo("Pacific/Apia"),
    ZoneInfo("Etc/GMT+5"),
]
offsets = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.text(st.characters(), max_size=8),  # surrogates and controls included
    st.text("\\|()[];:x0abu\x00\n\ud800é́", max_size=8),
    st.dates(),
    st.datetimes(timezones=st.sampled_from(ZONES) | offsets),
    st.builds(datetime.combine, st.just(date(2024, 10, 27)), st.times(max_value=time(4)), st.just(BERLIN)),
)
inner = st.recursive(scalars | st.none(), lambda part: st.lists(part, max_size=3).map(tuple), max_leaves=8)
partitions = scalars | st.lists(inner, max_size=4).map(tuple)


def identity(value: Partition) -> object:
    """What makes two partitions the same one: type, value, zone and fold, which Python's == does not compare."""
    if isinstance(value, tuple):
        return tuple(identity(part) for part in value)
    if isinstance(value, datetime):
        zone = value.tzinfo
        if isinstance(zone, ZoneInfo):
            return (value.replace(tzinfo=None).isoformat(), value.fold, zone.key)
        return (value.replace(tzinfo=None).isoformat(), value.utcoffset())
    return (type(value), value)


@given(partitions)
@example("\ud83d\ude00")
@example("\\x00")
@example(10**5000)
@example(-(10**700))
@example(datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1))
@example(datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=-1))))
@example(())
@example((None,))
@example(((), (("",),)))
@example(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
def test_round_trip(value: Partition) -> None:
    text = encode_partition(value)
    back = decode_partition(text)
    assert identity(back) == identity(value)
    assert encode_partition(back) == text


@given(partitions, partitions)
def test_different_partitions_have_different_texts(one: Partition, other: Partition) -> None:
    assert (encode_partition(one) == encode_partition(other)) == (identity(one) == identity(other))


@given(partitions)
def test_the_text_is_one_safe_line(value: Partition) -> None:
    for text in (encode_partition(value), partition_label(value)):
        text.encode("utf-8")  # no lone surrogate
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
        assert len(text.splitlines()) <= 1
    assert encode_partition(value)


@given(st.text(max_size=30) | st.text("()|\\:[];snidtbx0123456789abcdefTF", max_size=20))
@example("i:05")
@example("i:٤")
@example("s:a|b")
@example("s:\\x61")
@example("d:20240101")
@example("t:2024-01-01T00:00:00")
@example("t:2024-01-01T00:00:00[Nowhere/Town]")
@example("t:2024-01-01T00:00:00[../etc/passwd]")
@example("(s:a")
@example("(" * 2000)
@example("n:")
@example("b:True")
@example("s:\\U00110000")
@example("i:0x10")
def test_any_other_text_is_refused(text: str) -> None:
    try:
        value = decode_partition(text)
    except PartitionError:
        return
    assert encode_partition(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", "s:"),
        ("abc", "s:abc"),
        ("2024-01-01", "s:2024-01-01"),
        (date(2024, 1, 1), "d:2024-01-01"),
        (date(1, 1, 1), "d:0001-01-01"),
        (42, "i:42"),
        (True, "b:true"),
        (1, "i:1"),
        (("eu", date(2024, 1, 1)), "(s:eu|d:2024-01-01)"),
        ((None, ("a|b",)), "(n:|(s:a\\|b))"),
        ("a\nb\x00\ud800", "s:a\\x0ab\\x00\\ud800"),
        (datetime(2024, 1, 1, tzinfo=UTC), "t:2024-01-01T00:00:00+00:00"),
        (datetime(2024, 10, 27, 2, tzinfo=BERLIN, fold=1), "t:2024-10-27T02:00:00[Europe/Berlin;fold=1]"),
    ],
)
def test_the_format_does_not_change(value: Partition, text: str) -> None:
    """These texts are in databases; changing one of them would rename partitions."""
    assert encode_partition(value) == text
    assert identity(decode_partition(text)) == identity(value)


def test_composed_and_decomposed_characters_stay_different() -> None:
    assert encode_partition("\u00e9") != encode_partition("e\u0301")


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [Colour.RED, Name("a"), 1.5, b"x", ["a"], {"a": 1}, time(1), object()])
def test_other_types_are_refused(value: object) -> None:
    for wrapped in (value, ("a", value)):
        with pytest.raises(PartitionError, match="cannot be a partition"):
            encode_partition(wrapped)  # type: ignore[arg-type]
    with pytest.raises(PartitionError):
        partition_label((value,))  # type: ignore[arg-type]


class Timestamp(datetime):
    """As pandas.Timestamp, which is such a subclass and takes seconds to import."""


def test_a_subclass_of_datetime_is_refused_with_the_remedy() -> None:
    with pytest.raises(PartitionError, match="to_pydatetime"):
        encode_partition(Timestamp(2024, 1, 1, tzinfo=UTC))


def test_a_naive_datetime_is_refused_with_the_remedy() -> None:
    naive = datetime(2024, 1, 1)
    for function in (encode_partition, partition_label):
        with pytest.raises(PartitionError, match=r"replace\(tzinfo=ZoneInfo"):
            function(naive)


def test_an_offset_with_a_fraction_of_a_second_is_refused() -> None:
    """datetime.fromisoformat reads an offset of -00:00:00.000001 as UTC."""
    with pytest.raises(PartitionError, match="whole seconds"):
        encode_partition(datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=-1))))


def test_too_deep_a_tuple_is_refused() -> None:
    value: Partition = ()
    for _ in range(MAX_DEPTH):
        value = (value,)
    for function in (encode_partition, partition_label):
        with pytest.raises(PartitionError, match="nests more"):
            function(value)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (None, ""),
        (date(2024, 1, 1), "2024-01-01"),
        (("eu", date(2024, 1, 1)), "eu|2024-01-01"),
        ((("a", 1), None), "(a|1)|none"),
        (datetime(2024, 1, 1, 5, tzinfo=UTC), "2024-01-01T05:00+00:00"),
        (True, "true"),
        ("a\nb", "a\\x0ab"),
    ],
)
def test_label(value: Partition, label: str) -> None:
    assert partition_label(value) == label


def test_encoding_is_cheap() -> None:
    """A ratio to a control, as the machine may be busy: a date costs little more than its isoformat."""
    day = date(2024, 1, 1)
    encoded = min(timeit.repeat(lambda: encode_partition(day), number=5000, repeat=5))
    control = min(timeit.repeat(lambda: "d:" + day.isoformat(), number=5000, repeat=5))
    assert encoded < 10 * control


def test_a_key_is_read_once() -> None:
    first = decode_partition("(d:2031-05-06|s:eu)")
    assert first == (date(2031, 5, 6), "eu")
    assert decode_partition("(d:2031-05-06|s:eu)") is first
