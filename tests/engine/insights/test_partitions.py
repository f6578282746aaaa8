from __future__ import annotations

import gzip
import random
import time
from datetime import UTC, datetime

import pytest

from flowstone import (
    DailyPartitions,
    DynamicPartitions,
    FlowStone,
    HourlyPartitions,
    MonthlyPartitions,
    MultiPartitions,
    StaticPartitions,
    WeeklyPartitions,
    asset,
)
from flowstone.core.asset import Asset
from flowstone.core.definition import AnyPartitions, PartitionsDefinition
from flowstone.core.insights.assets import AssetTargets
from flowstone.core.partitions import PartitionKey
from flowstone.engine.insights.partitions import (
    MAX_CELLS,
    STATES,
    OrderedPartitions,
    PartitionOrders,
    partition_map,
    partition_states,
    read_run_lengths,
    state_numbers,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ordered(definition: PartitionsDefinition | None, now: datetime = NOW) -> OrderedPartitions:
    return PartitionOrders().of(partitioned(definition), now)


def partitioned(definition: PartitionsDefinition | None) -> Asset:
    @asset(partitions=definition)
    def a(context: object) -> int:
        return 1

    return a


def mixed(order: OrderedPartitions, seed: int = 1) -> AssetTargets:
    chance = random.Random(seed)

    def some(number: int) -> frozenset[PartitionKey]:
        return frozenset(chance.sample(list(order.keys), min(number, len(order.keys))))

    size = len(order.keys)
    return AssetTargets(some(size * 9 // 10), some(size // 100 + 1), some(10), some(size // 50 + 1))


def test_100_000_partitions_are_30_kb_and_fast() -> None:
    """dagster#15679, #10330, #12441: an asset with many partitions was slow to show, or not shown at all."""
    order = ordered(StaticPartitions([f"key {number}" for number in range(100_000)]))
    targets = AssetTargets(
        committed=frozenset(order.keys[:90_000]),
        failed=frozenset(order.keys[::150]),
        active=frozenset(order.keys[50_000:50_100]),
        unstarted=frozenset(order.keys[95_000:]),
    )
    started = time.process_time()
    states = partition_states("a", order, targets, frozenset())
    found = partition_map(order, read_run_lengths(states.codes))
    assert time.process_time() - started < 1.5
    assert len(states.codes) <= 30_000
    assert sum(states.counts.values()) == states.total == 100_000
    assert len(found.cells) <= MAX_CELLS
    assert sum(cell.size for cell in found.cells) == 100_000


def test_the_worst_case_is_small_when_it_is_packed() -> None:
    order = ordered(StaticPartitions([str(number) for number in range(100_000)]))
    states = partition_states("a", order, mixed(order))
    assert len(gzip.compress(states.codes.encode())) <= 30_000


@pytest.mark.parametrize(
    ("definition", "kind", "unit"),
    [
        (None, "rows", ""),
        (StaticPartitions(["a", "b/../?#", "\u202e", "<script>"]), "rows", ""),
        (DailyPartitions("2025-01-01"), "calendar", "day"),
        (DailyPartitions("2015-01-01"), "calendar", "month"),
        (HourlyPartitions("2025-12-01T00:00+00:00"), "calendar", "hour"),
        (HourlyPartitions("2025-10-01T00:00", timezone="Europe/Berlin"), "calendar", "day"),
        (HourlyPartitions("2025-10-20T00:00", timezone="Asia/Kathmandu"), "calendar", "hour"),
        (MonthlyPartitions("2014-08-01"), "calendar", "month"),
        (WeeklyPartitions("2014-08-04"), "calendar", "day"),
        (MultiPartitions(region=StaticPartitions(["eu", "us"]), day=DailyPartitions("2025-12-01")), "matrix", ""),
        (
            MultiPartitions(day=DailyPartitions("2020-01-01"), region=StaticPartitions(list("abcdef"))),
            "matrix",
            "",
        ),
    ],
    ids=repr,
)
def test_maps_have_every_partition_once(definition: PartitionsDefinition | None, kind: str, unit: str) -> None:
    order = ordered(definition)
    numbers = state_numbers(order, mixed(order))
    found = partition_map(order, numbers)
    assert (found.kind, found.unit) == (kind, unit)
    assert len(found.cells) <= MAX_CELLS
    assert sum(cell.size for cell in found.cells) == len(order.keys)
    totals = {name: sum(cell.counts.get(name, 0) for cell in found.cells) for name in STATES}
    assert totals == {name: numbers.count(number) for number, name in enumerate(STATES)}
    assert len({(cell.row, cell.column) for cell in found.cells}) == len(found.cells)
    assert all(cell.row < len(found.rows) and cell.column < len(found.columns) for cell in found.cells)
    assert all(cell.worst in cell.counts for cell in found.cells)
    assert read_run_lengths(partition_states("a", order, mixed(order)).codes) == numbers
    assert found.is_bucketed == (len(found.cells) < len(order.keys))


def test_a_failure_is_seen_in_its_bucket() -> None:
    order = ordered(StaticPartitions([str(number) for number in range(10_000)]))
    targets = AssetTargets(committed=frozenset(order.keys), failed=frozenset({order.keys[4_321]}))
    found = partition_map(order, state_numbers(order, targets))
    (worst,) = [cell for cell in found.cells if cell.worst == "failed"]
    assert (worst.counts, worst.first, worst.last) == ({"committed": 4, "failed": 1}, "4320", "4324")


def test_partitions_by_time_grow_at_their_end() -> None:
    orders, one = PartitionOrders(), partitioned(HourlyPartitions("2026-01-01T00:00+00:00"))
    first = orders.of(one, datetime(2026, 1, 2, tzinfo=UTC))
    assert orders.of(one, datetime(2026, 1, 2, 0, 30, tzinfo=UTC)) is first
    later = datetime(2026, 1, 3, tzinfo=UTC)
    grown = orders.of(one, later)
    assert list(grown.keys) == list(ordered(HourlyPartitions("2026-01-01T00:00+00:00"), later).keys)
    assert len(grown.keys) == 48
    # a clock that goes back
    assert len(orders.of(one, datetime(2026, 1, 1, 5, tzinfo=UTC)).keys) == 5


def test_no_partitions_at_all() -> None:
    order = ordered(DailyPartitions("2027-01-01"))
    states = partition_states("a", order, AssetTargets())
    assert (states.total, states.codes, states.first, states.last) == (0, "", "", "")
    assert partition_map(order, state_numbers(order, AssetTargets())).cells == ()


def test_dynamic_and_free_partitions_of_an_app() -> None:
    customers = DynamicPartitions("customers")

    @asset(partitions=customers)
    def orders(context: object) -> int:
        return 1

    @asset(partitions=AnyPartitions(str))
    def free(context: object) -> int:
        return 1

    @asset
    def broken() -> None:
        raise ValueError("no luck")

    with FlowStone.for_testing([orders, free, broken]) as flow:
        assert flow.insights.partitions("orders").states.codes == ""
        flow.partitions.add("customers", ["acme", "bolt"])
        flow.materialize("orders", partition="bolt")
        assert flow.insights.partitions("orders").states.codes == "nc"
        flow.partitions.remove("customers", ["bolt"])
        states = flow.insights.partitions("orders").states
        assert (states.codes, states.undeclared) == ("n", 1)
        flow.materialize("free", partition="it's/../?#")
        assert flow.insights.partitions("free").states.codes == "c"
        with pytest.raises(ValueError, match="no luck"):
            flow.materialize("broken")
        (failing,) = flow.insights.failing()
        assert (failing.asset, failing.error, failing.error_type) == (
            "broken",
            "ValueError: no luck",
            "builtins.ValueError",
        )
        found = {one.name: (one.total, one.committed, one.failed) for one in flow.insights.assets()}
        assert found == {"orders": (1, 1, 0), "free": (None, 1, 0), "broken": (1, 0, 1)}
