"""Partitions by time: calendar days, weeks, months, and hours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.partitions import decode_partition, encode_partition
from flowstone.core.partitions_by_time import (
    DailyPartitions,
    HourlyPartitions,
    MonthlyPartitions,
    TimePartitions,
    WeeklyPartitions,
)
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # midnight skipped
    "America/Havana",  # midnight twice
    "America/St_Johns",  # changed at 00:01
    "America/Toronto",  # changed at 23:30 in 1919
    "America/Juneau",  # moved over the date line: a day twice
    "Australia/Lord_Howe",  # moves by 30 minutes
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Kwajalein",
    "Africa/Casablanca",
    "Asia/Kathmandu",
]
MAKERS: list[Callable[[str], TimePartitions[Any]]] = [
    lambda zone: HourlyPartitions("1850-01-01T00:00", timezone=zone),
    lambda zone: DailyPartitions("1800-01-01", timezone=zone),
    lambda zone: WeeklyPartitions("1800-01-03", timezone=zone, week_starts="friday"),
    lambda zone: MonthlyPartitions("1800-01", timezone=zone),
]
EVENTFUL = [
    datetime(1867, 10, 18, tzinfo=UTC),
    datetime(1893, 4, 1, tzinfo=UTC),
    datetime(1919, 3, 31, tzinfo=UTC),
    datetime(1993, 8, 21, tzinfo=UTC),
    datetime(2011, 12, 30, tzinfo=UTC),
    datetime(2018, 11, 4, tzinfo=UTC),
    datetime(2024, 3, 31, tzinfo=UTC),
    datetime(2024, 4, 6, tzinfo=UTC),
    datetime(2024, 10, 5, tzinfo=UTC),
    datetime(2024, 10, 27, tzinfo=UTC),
    datetime(2024, 11, 3, tzinfo=UTC),
]
definitions = st.builds(lambda make, zone: make(zone), st.sampled_from(MAKERS), st.sampled_from(ZONES))
instants = st.one_of(
    st.datetimes(datetime(1860, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.builds(
        lambda near, hours: near + hours,
        st.sampled_from(EVENTFUL),
        st.timedeltas(timedelta(hours=-40), timedelta(hours=40)),
    ),
)


@given(definitions, instants)
def test_windows_tile_time(definition: TimePartitions[Any], instant: datetime) -> None:
    key = definition.containing(instant)
    assert key is not None
    assert instant in definition.window(key)
    keys = list(islice(definition.span(key, None), 30))
    windows = [definition.window(each) for each in keys]
    for one, following in pairwise(windows):
        assert one.end == following.start
    for each, window, later in zip(keys, windows, keys[1:], strict=False):
        assert window.start < window.end
        assert each < later
        assert definition.shift(later, -1) == each
        assert definition.containing(window.start) == each
        assert definition.containing(window.end - timedelta(microseconds=1)) == each
    assert len({encode_partition(each) for each in keys}) == len(set(keys)) == len(keys)


@given(definitions, instants)
def test_labels_and_texts_round_trip(definition: TimePartitions[Any], instant: datetime) -> None:
    key = definition.containing(instant)
    assert definition.parse(definition.label(key)) == key
    assert definition.validate(decode_partition(encode_partition(key))) == key
    assert key in definition


@given(definitions, instants)
def test_the_last_partition_is_the_last_that_is_over(definition: TimePartitions[Any], now: datetime) -> None:
    last = definition.last(now)
    assert last is not None
    assert definition.window(last).end <= now
    following = definition.shift(last, 1)
    assert following is not None
    assert definition.window(following).end > now
    start = definition.shift(last, -3)
    assert list(definition.between(start, following, now)) == list(definition.between(start, None, now))
    assert len(list(definition.between(start, None, now))) == 4


@given(st.sampled_from(ZONES), instants)
def test_hours_start_at_full_hours_or_changes_of_the_clock(zone: str, instant: datetime) -> None:
    hours = HourlyPartitions("1850-01-01T00:00", timezone=zone)
    key = hours.containing(instant)
    assert key is not None
    assert hours.window(key).start == key
    assert hours.window(key).duration <= timedelta(hours=1)
    local = (key.astimezone(UTC) - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    assert (key.minute, key.second) == (0, 0) or local.utcoffset() != key.utcoffset()


def test_days_of_23_and_25_hours() -> None:
    days = DailyPartitions("2024-01-01", timezone="Europe/Berlin")
    lengths = [days.window(day).duration for day in (date(2024, 3, 31), date(2024, 10, 27), date(2024, 7, 1))]
    assert lengths == [timedelta(hours=23), timedelta(hours=25), timedelta(hours=24)]


def test_overlapping_hours_are_distinct_and_skipped_hours_are_none() -> None:
    hours = HourlyPartitions("2024-01-01T00:00", timezone="Europe/Berlin")
    autumn = list(hours.span(hours.parse("2024-10-27T00:00"), hours.parse("2024-10-27T23:00")))
    spring = list(hours.span(hours.parse("2024-03-31T00:00"), hours.parse("2024-03-31T23:00")))
    assert (len(set(autumn)), len(spring)) == (25, 23)
    assert [hours.label(key) for key in autumn[2:4]] == ["2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00"]
    with pytest.raises(UnknownPartitionError, match=r"twice: write 2024-10-27T02:00\+02:00 or .*02:00\+01:00"):
        hours.parse("2024-10-27T02:00")
    with pytest.raises(UnknownPartitionError, match="never"):
        hours.parse("2024-03-31T02:00")
    zone = ZoneInfo("Europe/Berlin")
    assert hours.validate(datetime(2024, 10, 27, 2, tzinfo=zone, fold=1)) == autumn[3]
    with pytest.raises(UnknownPartitionError, match=r"skipped this time; the hour is 2024-03-31T03:00\+02:00"):
        hours.validate(datetime(2024, 3, 31, 2, tzinfo=zone))


def test_a_change_by_half_an_hour_cuts_the_hour() -> None:
    hours = HourlyPartitions("2024-01-01T00:00", timezone="Australia/Lord_Howe")
    first = hours.parse("2024-10-06T01:00")
    assert [hours.label(key) for key in islice(hours.span(first, None), 3)] == [
        "2024-10-06T01:00+10:30",
        "2024-10-06T02:30+11:00",
        "2024-10-06T03:00+11:00",
    ]


def test_a_day_that_the_zone_skipped_is_no_partition() -> None:
    days = DailyPartitions("2011-12-28", timezone="Pacific/Apia")
    now = datetime(2012, 1, 2, 20, tzinfo=UTC)
    assert [day.day for day in days.keys(now)] == [28, 29, 31, 1, 2]
    assert date(2011, 12, 30) not in days
    with pytest.raises(UnknownPartitionError, match="skipped"):
        days.parse("2011-12-30")


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"])
def test_the_ends_of_the_calendar(zone: str) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    everything: list[tuple[TimePartitions[Any], Any]] = [
        (DailyPartitions(date.min, timezone=zone), date.max),
        (WeeklyPartitions(date.min, timezone=zone), date(9999, 12, 27)),
        (WeeklyPartitions(date(1, 1, 6), timezone=zone, week_starts="saturday"), date(9999, 12, 25)),
        (MonthlyPartitions(date.min, timezone=zone), date(9999, 12, 1)),
        (HourlyPartitions("0001-01-01T00:00", timezone=zone), "9999-12-31T23:00"),
    ]
    for definition, value in everything:
        final = definition.validate(value)
        window = definition.window(final)
        assert window.start < window.end
        assert definition.shift(final, 1) is None
        assert definition.shift(definition.start, -1) is None
        assert list(definition.span(final, None)) == [final]
        assert definition.window(definition.start).duration > timedelta(0)
        for instant in (first, last):
            definition.containing(instant)
            definition.last(instant)
            list(islice(definition.keys(instant), 2))
        assert definition.parse(definition.label(final)) == final


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeeklyPartitions("2024-01-03"), "nearest is 2024-01-01 or 2024-01-08"),
        (lambda: MonthlyPartitions("2024-01-03"), "nearest is 2024-01 or 2024-02"),
        (lambda: HourlyPartitions("2024-01-03T00:30"), r"nearest is 2024-01-03T00:00\+00:00 or .*01:00\+00:00"),
        (lambda: DailyPartitions("2024-02-30"), "YYYY-MM-DD"),
        (lambda: DailyPartitions(datetime(2024, 1, 1, tzinfo=UTC)), r"\.date\(\)"),
        (lambda: DailyPartitions(20240101), "Keys are dates"),  # type: ignore[arg-type]
        (lambda: DailyPartitions("2024-01-02", "2024-01-01"), "comes before start"),
        (lambda: DailyPartitions("2024-01-01", timezone="Europe/Berln"), "Did you mean 'Europe/Berlin'"),
        (lambda: DailyPartitions("2024-01-01", timezone="../etc"), "no time zone"),
        (lambda: DailyPartitions("2024-01-01", timezone=""), "no time zone"),
        (lambda: DailyPartitions("2024-01-01", timezone=None), "no time zone"),  # type: ignore[arg-type]
        (lambda: WeeklyPartitions("2024-01-01", week_starts="mondy"), "Did you mean 'monday'"),  # type: ignore[arg-type]
    ],
)
def test_misdeclared_definitions(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


def test_start_and_end_are_included() -> None:
    days = DailyPartitions("2024-01-01", "2024-01-03")
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert [day.day for day in days.keys(now)] == [1, 2, 3]
    assert days.last(now) == date(2024, 1, 3)
    for outside in ("2023-12-31", "2024-01-04"):
        with pytest.raises(UnknownPartitionError, match="from 2024-01-01 to 2024-01-03"):
            days.parse(outside)
    assert days.last(datetime(2023, 1, 1, tzinfo=UTC)) is None
    assert list(days.keys(datetime(2024, 1, 1, 23, tzinfo=UTC))) == []


def test_an_hourly_start_is_read_on_the_clock_of_the_zone() -> None:
    expected = HourlyPartitions("2024-07-01T00:00+02:00", timezone="Europe/Berlin")
    assert HourlyPartitions(datetime(2024, 7, 1), timezone="Europe/Berlin") == expected
    assert HourlyPartitions("2024-07-01", timezone="Europe/Berlin") == expected


def test_future_partitions_are_partitions() -> None:
    assert date(2999, 1, 1) in DailyPartitions("2024-01-01")


def test_wrong_values_are_explained() -> None:
    days, hours = DailyPartitions("2024-01-01"), HourlyPartitions("2024-01-01")
    for value in (None, 5, ("a",), datetime(2024, 1, 1, tzinfo=UTC), "yesterday", "", "\x00"):
        with pytest.raises(UnknownPartitionError):
            days.validate(value)
    for value in (None, date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 1, tzinfo=UTC), "x"):
        with pytest.raises(UnknownPartitionError):
            hours.validate(value)


def test_ranges() -> None:
    days = DailyPartitions("2024-01-01")
    now = datetime(2024, 1, 10, tzinfo=UTC)
    assert len(list(days.between(date(2024, 1, 2), date(2024, 1, 4), now))) == 3
    assert len(list(days.between(date(2024, 1, 8), date(2024, 2, 1), now))) == 2
    assert len(list(days.between(None, None, now))) == 9
    with pytest.raises(PartitionError, match="Swap"):
        days.between(date(2024, 1, 4), date(2024, 1, 2), now)
    with pytest.raises(PartitionError, match="no time zone"):
        days.keys(datetime(2024, 1, 1))


def test_equality_is_by_value() -> None:
    assert DailyPartitions("2024-01-01") == DailyPartitions(date(2024, 1, 1))
    assert len({DailyPartitions("2024-01-01"), DailyPartitions("2024-01-01")}) == 1
    assert DailyPartitions("2024-01-01") != DailyPartitions("2024-01-01", timezone="Europe/Berlin")
    assert DailyPartitions("2024-01-01") != MonthlyPartitions("2024-01")
    assert repr(DailyPartitions("2024-01-01")) == "DailyPartitions(timezone='UTC', start='2024-01-01')"
