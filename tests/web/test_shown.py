"""Times and durations as people read them: over both changes of the clock, in odd zones, never negative."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from flowstone.web import shown
from flowstone.web.rendering import Frame, Preferences, render

NOW = datetime(2024, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "at", "text"),
    [
        ("Asia/Kathmandu", datetime(2024, 11, 30, 20, 0, tzinfo=UTC), "01:45:00"),
        ("America/St_Johns", datetime(2024, 11, 30, 20, 0, tzinfo=UTC), "2024-11-30 16:30"),
        ("Pacific/Apia", datetime(2024, 11, 30, 20, 0, tzinfo=UTC), "2024-12-01 09:00"),
        # the hour that occurs twice says which one it is
        ("Europe/Berlin", datetime(2024, 10, 27, 0, 30, tzinfo=UTC), "2024-10-27 02:30 +02:00"),
        ("Europe/Berlin", datetime(2024, 10, 27, 1, 30, tzinfo=UTC), "2024-10-27 02:30 +01:00"),
        ("America/St_Johns", datetime(2024, 11, 3, 3, 45, tzinfo=UTC), "2024-11-03 01:15 -02:30"),
        ("Australia/Lord_Howe", datetime(2024, 4, 6, 14, 45, tzinfo=UTC), "2024-04-07 01:45 +11:00"),
        # the hour that is left out
        ("Europe/Berlin", datetime(2024, 3, 31, 0, 59, tzinfo=UTC), "2024-03-31 01:59"),
        ("Europe/Berlin", datetime(2024, 3, 31, 1, 0, tzinfo=UTC), "2024-03-31 03:00"),
    ],
)
def test_a_time_in_a_zone(zone: str, at: datetime, text: str) -> None:
    assert shown.short_time(at, ZoneInfo(zone), NOW) == text
    assert zone in shown.full_time(at, ZoneInfo(zone))


@pytest.mark.parametrize("other", ["Asia/Tokyo", "America/New_York", "UTC"])
def test_a_time_of_a_database_in_any_zone_is_the_same(other: str) -> None:
    at = datetime(2024, 7, 1, 12, tzinfo=UTC)
    zone = ZoneInfo("America/St_Johns")
    assert (
        shown.full_time(at.astimezone(ZoneInfo(other)), zone)
        == "2024-07-01 09:30:00.000 -02:30 (America/St_Johns)"
    )


@pytest.mark.parametrize("seconds", [-1e9, -1.0, -1e-9, 0.0])
def test_no_duration_is_negative(seconds: float) -> None:
    """Clocks of two machines differ."""
    assert shown.duration(seconds) == "0 ms"
    assert shown.duration(timedelta(seconds=seconds)) == "0 ms"


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "utc\x00", "x" * 5000])
def test_a_zone_that_is_none_is_utc(name: str) -> None:
    assert shown.zone_of(name).key == "UTC"
    assert Preferences.of({"flowstone_zone": name, "flowstone_theme": name}) == Preferences()


@pytest.mark.parametrize("theme", ["system", "light", "dark"])
def test_the_theme_is_there_before_anything_is_painted(theme: str) -> None:
    frame = Frame(prefix="", path="/", title="x", preferences=Preferences(theme=theme))
    text = render("problem.html", frame, problem={"detail": "d", "remedy": ""}, incident="")
    assert f'data-theme="{theme}"' in text.partition("<head>")[0]
