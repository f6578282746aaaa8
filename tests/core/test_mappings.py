"""Partition mappings: what each reads, that the inverse agrees, and which combinations are refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstone.core.definition import PartitionsDefinition, StaticPartitions
from flowstone.core.mappings import (
    AllPartitions,
    FunctionMapping,
    LastN,
    PartitionMapping,
    SameDimension,
    SameKey,
    TimeWindowOverlap,
    default_mapping,
)
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.partitions_by_key import MultiPartitions
from flowstone.core.partitions_by_time import (
    DailyPartitions,
    HourlyPartitions,
    MonthlyPartitions,
    WeeklyPartitions,
)
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

NOW = datetime(2024, 11, 10, 12, tzinfo=UTC)
HOURS = HourlyPartitions("2024-10-24T00:00", timezone="Europe/Berlin")
DAYS = DailyPartitions("2024-10-20", timezone="Europe/Berlin")
LATER_DAYS = DailyPartitions("2024-10-28", "2024-11-05", timezone="Europe/Berlin")
UTC_DAYS = DailyPartitions("2024-10-20")
WEEKS = WeeklyPartitions("2024-10-14", timezone="Europe/Berlin")
MONTHS = MonthlyPartitions("2024-09")
REGIONS = StaticPartitions(["eu", "us", "asia"])
SOME = StaticPartitions(["us", "eu"])
TIERS = StaticPartitions([1, 2])
GRID = MultiPartitions(date=DAYS, region=REGIONS)
PRODUCTS = MultiPartitions(date=DAYS, tier=TIERS)
CUBE = MultiPartitions(tier=TIERS, region=REGIONS, date=DAYS)
TIMES: list[PartitionsDefinition] = [HOURS, DAYS, LATER_DAYS, UTC_DAYS, WEEKS, MONTHS]
EVERY: list[PartitionsDefinition | None] = [None, *TIMES, REGIONS, SOME, TIERS, GRID, PRODUCTS, CUBE]

mappings: st.SearchStrategy[PartitionMapping] = st.one_of(
    st.builds(SameKey),
    st.builds(SameDimension),
    st.builds(AllPartitions),
    st.builds(LastN, st.integers(1, 4)),
    st.builds(TimeWindowOverlap, st.integers(-3, 3), st.integers(-3, 3)),
)
definitions = st.sampled_from(EVERY)


def read(
    mapping: PartitionMapping,
    key: Partition,
    downstream: PartitionsDefinition | None,
    upstream: PartitionsDefinition | None,
) -> list[Partition]:
    return mapping.upstream(key, downstream=downstream, upstream=upstream, now=NOW)


def all_keys(definition: PartitionsDefinition | None) -> list[Partition]:
    return [None] if definition is None else list(definition.keys(NOW))


def some(keys: list[Partition], data: st.DataObject) -> list[Partition]:
    """All of a few, and every n-th of many hours from any of them on."""
    step = 1 + len(keys) // 60
    return keys[data.draw(st.integers(0, step - 1)) :: step]


@settings(max_examples=5 * settings().max_examples)
@given(mappings, definitions, definitions, st.data())
def test_the_inverse_agrees(
    mapping: PartitionMapping,
    downstream: PartitionsDefinition | None,
    upstream: PartitionsDefinition | None,
    data: st.DataObject,
) -> None:
    try:
        mapping.validate(downstream, upstream)
    except DefinitionError:
        return
    candidates = all_keys(upstream)
    if isinstance(upstream, DailyPartitions) and upstream.end is None:
        candidates += [date(2024, 11, 10), date(2024, 12, 24)]  # not complete yet
    key = data.draw(st.sampled_from(candidates))
    inverse = mapping.downstream(key, downstream=downstream, upstream=upstream, now=NOW)
    found = {encode_partition(reader) for reader in inverse}
    assert len(found) == len(inverse)
    for reader in some(all_keys(downstream), data):
        try:
            keys = read(mapping, reader, downstream, upstream)
        except UnknownPartitionError:
            keys = []
        assert len(keys) <= 1 or mapping.many
        assert (encode_partition(key) in map(encode_partition, keys)) == (encode_partition(reader) in found)
    for reader in some(inverse, data):  # also those that are not complete yet
        assert key in read(mapping, reader, downstream, upstream)


@given(definitions, definitions, st.data())
def test_the_default_works_or_is_refused_at_load_time(
    downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None, data: st.DataObject
) -> None:
    try:
        mapping = default_mapping(downstream, upstream)
    except DefinitionError:
        return
    mapping.validate(downstream, upstream)
    key = data.draw(st.sampled_from(all_keys(downstream)))
    try:
        keys = read(mapping, key, downstream, upstream)
    except UnknownPartitionError:
        assert LATER_DAYS in (downstream, upstream)  # the only one that ends
        return
    for found in keys:
        assert (found is None) if upstream is None else found in upstream


@pytest.mark.parametrize(
    ("downstream", "upstream", "kind"),
    [
        (None, None, SameKey),
        (DAYS, None, SameKey),
        (DAYS, DAYS, SameKey),
        (DAYS, LATER_DAYS, SameKey),
        (None, DAYS, AllPartitions),
        (WEEKS, DAYS, TimeWindowOverlap),
        (DAYS, MONTHS, TimeWindowOverlap),
        (DAYS, UTC_DAYS, TimeWindowOverlap),
        (GRID, DAYS, SameKey),
        (GRID, REGIONS, SameKey),
        (CUBE, GRID, SameKey),
        (DAYS, GRID, SameDimension),
        (GRID, CUBE, SameDimension),
        (GRID, PRODUCTS, SameDimension),
        (REGIONS, TIERS, None),
        (REGIONS, DAYS, None),
        (WEEKS, GRID, None),
        (TIERS, GRID, None),
    ],
)
def test_default_mapping(
    downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None, kind: type | None
) -> None:
    if kind is None:
        with pytest.raises(DefinitionError, match="deps"):
            default_mapping(downstream, upstream)
    else:
        assert type(default_mapping(downstream, upstream)) is kind


def test_same_key_projects_and_same_dimension_spreads() -> None:
    day = date(2024, 11, 1)
    assert read(SameKey(), (day, "eu"), GRID, DAYS) == [day]
    assert read(SameKey(), (1, "eu", day), CUBE, GRID) == [(day, "eu")]
    assert read(SameDimension(), "eu", REGIONS, MultiPartitions(region=REGIONS, tier=TIERS)) == [
        ("eu", 1),
        ("eu", 2),
    ]
    assert read(SameDimension(), (day, "eu"), GRID, PRODUCTS) == [(day, 1), (day, 2)]
    with pytest.raises(UnknownPartitionError, match="run from 2024-10-28 to 2024-11-05"):
        read(SameKey(), date(2024, 10, 21), DAYS, LATER_DAYS)


def test_one_of_two_equal_dimensions_has_to_be_named() -> None:
    routes = MultiPartitions(origin=REGIONS, target=REGIONS)
    with pytest.raises(DefinitionError, match="Name one"):
        default_mapping(routes, REGIONS)
    with pytest.raises(DefinitionError, match="Name one"):
        default_mapping(REGIONS, routes)
    assert read(SameKey("target"), ("eu", "us"), routes, REGIONS) == ["us"]
    assert read(SameDimension("target"), "us", REGIONS, routes) == [("eu", "us"), ("us", "us"), ("asia", "us")]
    assert default_mapping(routes, routes).upstream(("eu", "us"), downstream=routes, upstream=routes, now=NOW) == [
        ("eu", "us")
    ]


def test_windows_overlap_through_the_change_of_the_clock() -> None:
    mapping = TimeWindowOverlap()
    assert len(set(read(mapping, date(2024, 10, 27), DAYS, HOURS))) == 25
    assert read(mapping, HOURS.parse("2024-10-27T02:00+01:00"), HOURS, DAYS) == [date(2024, 10, 27)]
    assert read(mapping, date(2024, 10, 21), DAYS, UTC_DAYS) == [date(2024, 10, 20), date(2024, 10, 21)]
    assert read(TimeWindowOverlap(-1, 1), date(2024, 11, 1), DAYS, DAYS) == [
        date(2024, 10, 31),
        date(2024, 11, 1),
        date(2024, 11, 2),
    ]
    assert read(TimeWindowOverlap(start_offset=-5), date(2024, 10, 21), DAYS, DAYS) == [
        date(2024, 10, 20),
        date(2024, 10, 21),
    ]
    assert read(TimeWindowOverlap(end_offset=-1), date(2024, 11, 1), DAYS, DAYS) == []


def test_the_ends_of_the_calendar() -> None:
    days = DailyPartitions(date.min, timezone="Pacific/Kiritimati")
    weeks = WeeklyPartitions(date(1, 1, 6), timezone="Pacific/Pago_Pago", week_starts="saturday")
    for mapping in (TimeWindowOverlap(-2, 2), LastN(2)):
        for key in (date.min, date.max):
            read(mapping, key, days, weeks)
            mapping.downstream(key, downstream=weeks, upstream=days, now=NOW)
        for key in (date(1, 1, 6), date(9999, 12, 25)):
            read(mapping, key, weeks, days)
    assert read(LastN(1), date.max, days, days) == [date.max]
    assert read(TimeWindowOverlap(), date.max, days, days) == [date.max]


@given(
    st.sampled_from([*TIMES, DailyPartitions("2011-12-01", timezone="Pacific/Apia")]), st.integers(1, 4), st.data()
)
def test_last_n_of_ones_own_partitions_is_what_the_calendar_says(
    definition: PartitionsDefinition, n: int, data: st.DataObject
) -> None:
    for key in some(all_keys(definition), data):  # the copy takes the long way, over the ends of windows
        own = read(LastN(n), key, definition, definition)
        assert own == read(LastN(n), key, definition, copy(definition))
        assert own[-1] == key


def test_last_n() -> None:
    assert read(LastN(2), date(2024, 11, 1), DAYS, DAYS) == [date(2024, 10, 31), date(2024, 11, 1)]
    assert read(LastN(2), date(2024, 10, 21), WEEKS, DAYS) == [date(2024, 10, 26), date(2024, 10, 27)]
    assert read(LastN(1), date(2024, 10, 24), DAYS, WEEKS) == [date(2024, 10, 14)]
    assert read(LastN(9), date(2024, 10, 21), DAYS, DAYS) == [date(2024, 10, 20), date(2024, 10, 21)]
    assert read(LastN(2), "asia", REGIONS, REGIONS) == ["us", "asia"]
    assert read(LastN(2), None, None, DAYS) == [date(2024, 11, 8), date(2024, 11, 9)]
    assert read(LastN(2), None, None, REGIONS) == ["us", "asia"]
    assert read(LastN(2), date(2024, 10, 21), DAYS, LATER_DAYS) == []


def yesterday(day: date) -> date:
    return day - timedelta(days=1)


def test_function_mapping() -> None:
    mapping = FunctionMapping(yesterday)
    assert read(mapping, date(2024, 11, 1), DAYS, DAYS) == [date(2024, 10, 31)]
    assert mapping.downstream(date(2024, 10, 31), downstream=DAYS, upstream=DAYS, now=NOW) == [date(2024, 11, 1)]
    with pytest.raises(UnknownPartitionError, match=r"yesterday .*returned it for partition '2024-10-20'"):
        read(mapping, date(2024, 10, 20), DAYS, DAYS)
    several = FunctionMapping(lambda key: ["eu", "eu", key], many=True)
    assert read(several, "us", REGIONS, REGIONS) == ["eu", "us"]


@pytest.mark.parametrize(
    ("function", "many", "message"),
    [
        (lambda key: 1 / 0, False, "failed for partition 'eu': ZeroDivisionError"),
        (lambda: "eu", False, "TypeError"),
        (lambda key: key, True, "iterable of keys, not 'eu'"),
        (lambda key: ["eu"], False, "not a partition"),
        (lambda key: None, False, "not a partition"),
    ],
)
def test_errors_of_mapping_functions_name_them(function: Callable[..., Any], many: bool, message: str) -> None:
    with pytest.raises(PartitionError, match=message) as caught:
        read(FunctionMapping(function, many=many), "eu", REGIONS, REGIONS)
    assert "test_mappings.py" in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "downstream", "upstream"),
    [
        (SameKey(), DAYS, WEEKS),
        (SameKey(), None, DAYS),
        (SameKey(), DAYS, GRID),
        (SameKey(), REGIONS, SOME),
        (SameDimension(), DAYS, None),
        (SameDimension(), None, GRID),
        (TimeWindowOverlap(), None, DAYS),
        (TimeWindowOverlap(), DAYS, REGIONS),
        (LastN(1), REGIONS, DAYS),
        (LastN(1), DAYS, REGIONS),
        (LastN(1), REGIONS, SOME),
        (LastN(1), DAYS, None),
        (LastN(1), GRID, GRID),
        (AllPartitions(), DAYS, None),
        (FunctionMapping(yesterday), DAYS, None),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(
    mapping: PartitionMapping, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None
) -> None:
    with pytest.raises(DefinitionError, match=r"[Uu]se |Leave|reads all|Give"):
        mapping.validate(downstream, upstream)


@pytest.mark.parametrize(
    "make", [lambda: LastN(0), lambda: LastN(True), lambda: TimeWindowOverlap(1.5), lambda: FunctionMapping("x")]
)
def test_misdeclared_mappings(make: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError):
        make()


def test_a_key_of_the_other_kind_is_refused() -> None:
    for mapping in (SameKey(), AllPartitions(), LastN(1)):
        with pytest.raises(UnknownPartitionError):
            read(mapping, date(2024, 11, 1), None, DAYS if mapping.many else None)
