"""What users pass to verbs becomes targets, or is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flowstone.app.targets import (
    all_targets,
    backfill_targets,
    describe,
    leaves,
    target_of,
)
from flowstone.core.asset import asset
from flowstone.core.definition import StaticPartitions
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions_by_time import DailyPartitions, MonthlyPartitions
from flowstone.errors import PartitionError, UnknownPartitionError

NOW = datetime(2024, 3, 1, tzinfo=UTC)
days = DailyPartitions(date(2024, 1, 1))


@asset
def plain() -> None: ...


@asset(partitions=days)
def orders(plain: None) -> None: ...


@asset(partitions=DailyPartitions(date(2024, 1, 1)))
def clean(orders: None) -> None: ...


@asset(partitions=MonthlyPartitions("2024-01"))
def monthly(clean: dict) -> None: ...


@asset(partitions=StaticPartitions(["eu", "us"]))
def regions() -> None: ...


GRAPH = AssetGraph([plain, orders, clean, monthly, regions])


def test_targets() -> None:
    assert target_of(plain, None) == ("plain", "")
    assert target_of(orders, date(2024, 1, 2)) == ("orders", "d:2024-01-02")
    with pytest.raises(UnknownPartitionError):
        target_of(plain, "x")
    with pytest.raises(PartitionError, match="say which partition"):
        target_of(orders, None)


def test_all_complete_partitions_or_one() -> None:
    assert len(all_targets(GRAPH, ["plain", "orders", "regions"], None, NOW)) == 1 + 60 + 2
    assert all_targets(GRAPH, ["plain", "orders"], date(2024, 1, 2), NOW) == [
        ("plain", ""),
        ("orders", "d:2024-01-02"),
    ]


def test_leaves() -> None:
    assert leaves(GRAPH, ["plain", "orders", "clean", "regions"]) == ["clean", "regions"]
    # what is between does not have to be selected
    assert leaves(GRAPH, ["plain", "monthly"]) == ["monthly"]


def test_backfills_follow_the_lead_through_the_mappings() -> None:
    keys = [date(2024, 1, 31), date(2024, 2, 1), date(2024, 2, 1)]
    targets, names, _ = backfill_targets(GRAPH, "* and not regions", keys, NOW)
    assert names == ("plain", "orders", "clean", "monthly")
    assert targets == [
        ("plain", ""),
        ("orders", "d:2024-01-31"),
        ("orders", "d:2024-02-01"),
        ("clean", "d:2024-01-31"),
        ("clean", "d:2024-02-01"),
        ("monthly", "d:2024-01-01"),
        ("monthly", "d:2024-02-01"),
    ]


def test_backfills_without_partitions_take_all_complete_ones() -> None:
    targets, _, _ = backfill_targets(GRAPH, "orders", None, NOW)
    assert len(targets) == 60
    assert backfill_targets(GRAPH, "plain", None, NOW)[0] == [("plain", "")]
    with pytest.raises(PartitionError, match="None of plain is partitioned"):
        backfill_targets(GRAPH, "plain", [1], NOW)


def test_selections_for_people() -> None:
    assert (describe("+a"), describe(plain), describe([plain, "b"])) == ("+a", "plain", "plain, b")
