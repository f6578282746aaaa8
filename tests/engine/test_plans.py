"""A plan by asset and range."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flowstone import DailyPartitions, FlowStone, MonthlyPartitions, StaticPartitions, asset
from flowstone.core.partitions import encode_partition
from flowstone.engine.insights.plans import grouped, spans_of

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def test_spans_are_those_that_follow_each_other() -> None:
    days = DailyPartitions("2024-01-01", end="2024-06-01")
    keys = [encode_partition(day) for day in days.keys(NOW)]
    assert [str(span) for span in spans_of(days, keys, NOW)] == ["2024-01-01 … 2024-05-31 (152)"]
    assert [str(span) for span in spans_of(days, keys[:3] + keys[5:7] + keys[9:10], NOW)] == [
        "2024-01-01 … 2024-01-03 (3)",
        "2024-01-06 … 2024-01-07 (2)",
        "2024-01-10",
    ]
    assert sum(span.count for span in spans_of(days, keys[::2], NOW)) == 76
    assert [str(span) for span in spans_of(None, [encode_partition(date(2024, 1, 1))], NOW)] == ["2024-01-01"]


def test_months_are_months_and_values_that_look_alike_are_kept_apart() -> None:
    months = MonthlyPartitions("2024-01", end="2024-06")
    keys = [encode_partition(month) for month in months.keys(NOW)]
    assert [str(span) for span in spans_of(months, keys[1:3], NOW)] == ["2024-02 … 2024-03 (2)"]
    alike = StaticPartitions([1, "1", True, "true"])
    encoded = [encode_partition(value) for value in alike.keys(NOW)]
    assert [span.count for span in spans_of(alike, encoded, NOW)] == [4]
    assert [span.count for span in spans_of(alike, encoded[::2], NOW)] == [1, 1]


@pytest.mark.parametrize("number", [3, 2_000])
def test_a_large_plan_is_a_few_lines(number: int) -> None:
    many = StaticPartitions([f"p{index:05}" for index in range(number)])

    @asset(partitions=many)
    def source() -> int:
        return 1

    @asset(partitions=many)
    def below(source: int) -> int:
        return source

    flow = FlowStone.for_testing([source, below])
    flow.materialize("source", partition="p00001")
    found = grouped(flow.plan("+below", partitions=list(many.keys(NOW))), flow.graph, NOW)
    assert {(one.asset, one.action, one.count) for one in found} == {
        ("source", "run", number - 1),
        ("source", "reuse", 1),
        ("below", "run", number),
    }
    runs = next(one for one in found if one.action == "run" and one.asset == "source")
    assert [span.count for span in runs.spans] == [1, number - 2]
