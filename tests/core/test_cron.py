from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowstone.core.cron import Cron
from flowstone.errors import DefinitionError

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
ZONES = (BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Asia/Kolkata", "America/Havana", "Africa/Cairo", "Africa/Casablanca")


def on(zone: str, day: str, expression: str) -> list[str]:
    """Return the ticks of a local day, as its clock shows them."""
    cron = Cron(expression, zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone))
    moment = timedelta(microseconds=1)
    ticks = cron.between(begin.astimezone(UTC) - moment, end.astimezone(UTC) - moment)
    return [tick.astimezone(cron.zone).strftime("%H:%M%z") for tick in ticks]


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        (BERLIN, "2024-03-30", ["02:30+0100"]),
        (BERLIN, "2024-03-31", ["03:00+0200"]),  # skipped: at the change
        (BERLIN, "2024-10-27", ["02:30+0200"]),  # twice: the first time
        (BERLIN, "2024-10-28", ["02:30+0100"]),
        (NEW_YORK, "2024-03-10", ["03:00-0400"]),
        (NEW_YORK, "2024-11-03", ["02:30-0500"]),
        (LORD_HOWE, "2024-10-06", ["02:30+1100"]),
        (LORD_HOWE, "2024-04-07", ["02:30+1030"]),
    ],
)
def test_a_named_time_happens_once_on_every_day(zone: str, day: str, expected: list[str]) -> None:
    assert on(zone, day, "30 2 * * *") == expected


@pytest.mark.parametrize(
    ("zone", "day", "time", "expected"),
    [
        (LORD_HOWE, "2024-10-06", "15 2", ["02:30+1100"]),  # half an hour is skipped
        (LORD_HOWE, "2024-04-07", "45 1", ["01:45+1100"]),  # half an hour is repeated
        (NEW_YORK, "2024-11-03", "30 1", ["01:30-0400"]),
        (BERLIN, "2024-03-31", "0,15,30 2", ["03:00+0200"]),  # all at the one moment of the change
        (BERLIN, "2024-10-27", "0,30 2,3", ["02:00+0200", "02:30+0200", "03:00+0100", "03:30+0100"]),
        ("America/Havana", "2024-11-03", "30 0", ["00:30-0400"]),
    ],
)
def test_named_times_around_a_change(zone: str, day: str, time: str, expected: list[str]) -> None:
    assert on(zone, day, f"{time} * * *") == expected


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, "2024-03-31", 23),
        (BERLIN, "2024-10-27", 25),
        (NEW_YORK, "2024-03-10", 23),
        (NEW_YORK, "2024-11-03", 25),
        (LORD_HOWE, "2024-10-06", 23),  # the clock never shows 02:00
        (LORD_HOWE, "2024-04-07", 24),
        ("Africa/Cairo", "2024-04-26", 23),
    ],
)
def test_an_hourly_job_runs_in_every_hour_that_passes(zone: str, day: str, hours: int) -> None:
    assert len(on(zone, day, "0 * * * *")) == hours


def test_both_days_of_an_hourly_job_in_berlin() -> None:
    assert on(BERLIN, "2024-03-31", "0 * * * *")[:4] == ["00:00+0100", "01:00+0100", "03:00+0200", "04:00+0200"]
    assert on(BERLIN, "2024-10-27", "0 * * * *")[:5] == [
        "00:00+0200", "01:00+0200", "02:00+0200", "02:00+0100", "03:00+0100",
    ]  # fmt: skip


def test_minutes_after_a_change_by_half_an_hour_are_all_there() -> None:
    expected = [f"03:{minute}+1030" for minute in ("00", "10", "20", "30", "40", "50")]
    assert on(LORD_HOWE, "2024-04-07", "*/10 3 * * *") == expected


def test_six_fields_have_the_second_in_front() -> None:
    ticks = Cron("*/20 * * * * *").next(datetime(2024, 1, 1, tzinfo=UTC), 3)
    assert [tick.second for tick in ticks] == [20, 40, 0]


def test_every_instant_is_utc_and_comes_after_the_one_asked_for() -> None:
    start = datetime(2024, 1, 1, 6, 0, tzinfo=ZoneInfo(BERLIN))
    assert Cron("0 6 * * *", BERLIN).next(start, 1) == [datetime(2024, 1, 2, 5, tzinfo=UTC)]
    assert Cron("0 6 * * *", BERLIN).next(start - timedelta(microseconds=1), 1) == [start]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("0 25 * * *", "'25' is no hour. Use 0 to 23"),
        ("61 * * * *", "is no minute"),
        ("0 0 * * MOM", "Did you mean 'MON'?"),
        ("0 0 * JANN *", "Did you mean 'JAN'?"),
        ("@daily", "Write '0 0 * * *'"),
        ("@dayly", "Did you mean '@daily'?"),
        ("* * *", "has 3 fields"),
        ("", "give five fields"),
        ("0 0 30 2 *", "no such day in 50 years"),
        ("*/0 * * * *", "is no minute"),
        ("a b c d e", "'a' is no minute"),
        ("0 0 * * MON#9", "is no day-of-week"),
    ],
)
def test_what_cannot_be_read_is_named(expression: str, says: str) -> None:
    with pytest.raises(DefinitionError, match="cron=") as refused:
        Cron(expression)
    assert says in str(refused.value)


def test_an_unknown_zone_gets_a_suggestion() -> None:
    with pytest.raises(DefinitionError, match="Did you mean 'Europe/Berlin'"):
        Cron("0 0 * * *", "Europe/Berlni")


def test_the_last_instant_of_a_long_time_is_found_at_once() -> None:
    cron = Cron("* * * * *", BERLIN)
    end = datetime(2025, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert cron.last(datetime(1990, 1, 1, tzinfo=UTC), end) == end.replace(second=0)
    assert Cron("0 0 29 2 *").last(datetime(2021, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)) is None


minutes = st.sampled_from(["*", "*/7", "*/15", "0", "30", "0,30", "5-20", "59"])
hours = st.sampled_from(["*", "*/2", "*/5", "0", "1", "2", "3", "1,2,3", "23", "0-4"])
days = st.sampled_from(["* * *", "* * 0", "*/3 * *", "1 * *", "* 3,4,10,11 *", "* * SUN#1"])
crons = st.builds(lambda minute, hour, day: f"{minute} {hour} {day}", minutes, hours, days)
# around the days on which one of the zones changes its clock
instants = st.builds(
    lambda day, minute: datetime(2024, *day, tzinfo=UTC) + timedelta(minutes=minute),
    st.sampled_from([(3, 9), (3, 30), (4, 6), (4, 25), (10, 5), (10, 26), (10, 31), (11, 2), (1, 1)]),
    st.integers(0, 3 * 24 * 60),
)


@settings(max_examples=settings().max_examples // 2)
@given(crons, st.sampled_from(ZONES), instants)
def test_instants_are_those_that_the_clock_shows(expression: str, zone: str, start: datetime) -> None:
    """Against the definition: look at the zone's clock in every minute that passes."""
    cron = Cron(expression, zone)
    end = start + timedelta(days=2)
    found = list(cron.between(start, end))
    assert found == sorted(set(found))
    assert all(start < tick <= end for tick in found)
    shown = _shown(expression, cron, start, end)
    if any(field.startswith("*") for field in expression.split()[:2]):
        assert found == shown
    else:
        walls = [tick.astimezone(cron.zone).replace(tzinfo=None) for tick in shown]
        first = [tick for tick, wall in zip(shown, walls, strict=True) if not _before(tick, wall, cron)]
        assert set(first) <= set(found)  # every first showing is there
        assert len(found) - len(first) <= 1  # and at most one more, at a change that skips some


def _shown(expression: str, cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    plain = Cron(expression)
    tick = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    if start == start.replace(second=0, microsecond=0):
        tick = start + timedelta(minutes=1)
    shown = []
    while tick <= end:
        wall = tick.astimezone(cron.zone).replace(tzinfo=UTC, fold=0)
        if next(iter(plain.after(wall - timedelta(seconds=1)))) == wall:
            shown.append(tick)
        tick += timedelta(minutes=1)
    return shown


def _before(tick: datetime, wall: datetime, cron: Cron) -> bool:
    """Whether the clock had shown this time before."""
    return wall.replace(tzinfo=cron.zone, fold=0).astimezone(UTC) < tick


@given(crons, st.sampled_from(ZONES), instants, st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_asking_piece_by_piece_gives_the_same(
    expression: str, zone: str, start: datetime, pieces: list[int]
) -> None:
    cron = Cron(expression, zone)
    bounds = [start]
    for piece in pieces:
        bounds.append(bounds[-1] + timedelta(minutes=piece))
    whole = list(cron.between(start, bounds[-1]))
    parts = [tick for left, right in pairwise(bounds) for tick in cron.between(left, right)]
    assert parts == whole
    assert cron.last(start, bounds[-1]) == (whole[-1] if whole else None)
