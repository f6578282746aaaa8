"""Every definition of ours by the suite for everybody's; cadences through the changes of the clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from flowstone import (
    CronPartitions,
    DailyPartitions,
    FlowStone,
    HourlyPartitions,
    MinutelyPartitions,
    MonthlyPartitions,
    PartitionsDefinition,
    QuarterlyPartitions,
    StaticPartitions,
    WeeklyPartitions,
    YearlyPartitions,
    asset,
)
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.errors import DefinitionError
from flowstone.testing.partitions_conformance import PartitionsConformance

BERLIN = "Europe/Berlin"
NOW = datetime(2024, 11, 1, tzinfo=UTC)
ALL: dict[str, PartitionsDefinition] = {
    "years": YearlyPartitions("2019"),
    "quarters": QuarterlyPartitions("2019-01", timezone=BERLIN),
    "months": MonthlyPartitions("2019-01"),
    "weeks": WeeklyPartitions("2024-01-07", week_starts="sunday"),
    "days": DailyPartitions("2024-01-01", timezone="America/Sao_Paulo"),
    "hours": HourlyPartitions("2024-10-26T20:00", timezone=BERLIN),
    "half hours": MinutelyPartitions("2024-03-30T20:00", "2024-04-02T00:00", BERLIN, every=30),
    "minutes": MinutelyPartitions("2024-10-05T14:00", "2024-10-05T17:00", every=5),
    "lord howe": MinutelyPartitions("2024-10-06T00:00", "2024-10-06T06:00", "Australia/Lord_Howe", every=20),
    "shifts": CronPartitions("0 6,14,22 * * *", "2024-03-29T06:00", timezone=BERLIN),
    "in the gap": CronPartitions("30 2 * * *", "2024-03-29T02:30", timezone=BERLIN),
    "every hour": CronPartitions("0 * * * *", "2024-10-26T20:00", timezone=BERLIN),
    "regions": StaticPartitions(["eu", "us", "a|b", "1", 1]),
}


@pytest.mark.parametrize("name", ALL)
class TestOurs(PartitionsConformance):
    @pytest.fixture(autouse=True)
    def _chosen(self, name: str) -> None:
        self.name = name

    def create(self) -> PartitionsDefinition:
        return ALL[self.name]

    def now(self) -> datetime:
        return NOW


@pytest.mark.parametrize("name", [name for name, one in ALL.items() if isinstance(one, TimePartitions)])
def test_windows_tile_time(name: str) -> None:
    definition = ALL[name]
    assert isinstance(definition, TimePartitions)
    keys = list(definition.keys(NOW))[:300]
    for before, after in pairwise(keys):
        assert definition.window(before).end == definition.window(after).start
        assert definition.window(before).duration > timedelta(0)
        assert definition.containing(definition.window(before).end - timedelta(microseconds=1)) == before


def test_what_the_keys_are() -> None:
    assert YearlyPartitions("2023").window(date(2024, 1, 1)).duration == timedelta(days=366)
    assert list(QuarterlyPartitions("2024-01").keys(NOW)) == [date(2024, month, 1) for month in (1, 4, 7)]
    shifts = CronPartitions("0 6,14,22 * * *", "2024-03-30T06:00", timezone=BERLIN)
    night = shifts.parse("2024-03-30T22:00")
    assert shifts.window(night).duration == timedelta(hours=7)
    gap = CronPartitions("30 2 * * *", "2024-03-29T02:30", timezone=BERLIN)
    assert gap.label(list(gap.keys(NOW))[2]) == "2024-03-31T03:00+02:00"


@pytest.mark.parametrize("every", [0, 7, 60, -5, 1.5, True])
def test_lengths_that_do_not_divide_the_hour(every: int) -> None:
    with pytest.raises(DefinitionError, match="divide the hour"):
        MinutelyPartitions("2024-01-01T00:00", every=every)


def test_they_are_read_by_overlap() -> None:
    @asset(partitions=MinutelyPartitions("2024-01-01T00:00", "2024-01-01T01:45", every=15))
    def quarter(context) -> int:  # type: ignore[no-untyped-def]
        return 1

    @asset(partitions=HourlyPartitions("2024-01-01T00:00", "2024-01-01T01:00"))
    def hour(quarter: dict[datetime, int]) -> int:
        return len(quarter)

    @asset(partitions=YearlyPartitions("2024", "2024"))
    def year(hour: dict[datetime, int]) -> int:
        return sum(hour.values())

    flow = FlowStone.for_testing([quarter, hour, year])
    assert flow.materialize_all("year", partition=date(2024, 1, 1)).value == {date(2024, 1, 1): 8}
