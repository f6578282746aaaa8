"""`flow.insights`: what pages show of one asset, one partition and one version."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from flowstone import CheckResult, FlowStone, MultiPartitions, StaticPartitions, asset, check
from flowstone.core.actor import Actor, acting
from flowstone.core.partitions import decode_partition
from flowstone.errors import OptionsError, UnknownAssetError, VersionNotFoundError

REGIONS = StaticPartitions(["eu", "us"])


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    numbers = count(1)

    @asset(partitions=REGIONS, tags=["daily"], group="sales", queue="slow", code_version="7")
    def orders(context: Any) -> int:
        """What was ordered."""
        number = next(numbers)
        context.metadata |= {"rows": number, "by": {"shop": number * 2}, "huge": 10**300, "name": "x", "ok": True}
        return number

    @asset(partitions=REGIONS)
    def report(orders: int) -> int:
        return orders * 10

    @asset
    def total() -> int:
        raise ValueError("no [bold]total[/bold] today")

    @check(orders)
    def positive(orders: int) -> CheckResult:
        return CheckResult(orders < 3, description="is it small?", metadata={"value": orders})

    with FlowStone.for_testing([orders, report, total], checks=[positive]) as opened:
        yield opened


def test_an_asset_is_what_it_is_declared_as_and_how_it_stands(flow: FlowStone) -> None:
    empty = flow.insights.asset("orders")
    assert (empty.state, empty.says, empty.counts) == ("missing", "0 of 2 committed", (("missing", 2),))
    assert (empty.description, empty.group, empty.tags) == ("What was ordered.", "sales", ("daily",))
    assert ("Queue", "slow") in empty.options
    assert [one.name for one in empty.downstream] == ["report"]
    assert "test_version_insights.py" in empty.where
    flow.materialize_all("report", partition="eu")
    found = flow.insights.asset("report")
    assert (found.state, found.total, found.partitioned) == ("partial", 2, True)
    assert [(one.name, one.declared) for one in found.upstream] == [("orders", True)]
    with pytest.raises(ValueError, match="no"):
        flow.materialize("total")
    total = flow.insights.asset("total")
    assert (total.state, total.why) == ("failed", ("ValueError: no [bold]total[/bold] today",))
    with pytest.raises(UnknownAssetError):
        flow.insights.asset("nope")


def test_numbers_are_plotted_over_time(flow: FlowStone) -> None:
    """NaN, huge and nested numbers are no reason to fail."""
    for region in ("eu", "us"):
        flow.materialize("orders", partition=region)
    history = flow.insights.asset_history("orders")
    assert [one.partition for one in history.versions] == ["us", "eu"]
    assert [(one.name, [point.value for point in one.points]) for one in history.numbers] == [
        ("by.shop", [2.0, 4.0]),
        ("huge", [1e300, 1e300]),
        ("rows", [1.0, 2.0]),
    ]
    assert history.is_all
    assert not history.only_in_use
    assert flow.insights.asset_history("orders", limit=1).is_all is False


def test_a_version_names_the_exact_versions_that_it_read_and_who_read_it(flow: FlowStone) -> None:
    """dagster#14883: the versions of inputs, not only their names."""
    flow.materialize_all("report", partition="eu")
    first = flow.history("orders", partition="eu")[0].step_id
    with acting(Actor("ann", "web")):
        flow.materialize("orders", partition="eu", force=True)
    second = flow.history("orders", partition="eu")[0].step_id
    report = flow.history("report", partition="eu")[0].step_id
    made = flow.insights.version(report)
    (read,) = made.reads
    assert (read.version, read.asset, read.partition) == (first, "orders", "eu")
    assert (read.is_current, read.in_use, read.parameters) == (False, second, ("orders",))
    old = flow.insights.version(first)
    assert [(one.version, one.asset, one.is_current) for one in old.readers] == [(report, "report", True)]
    assert (old.line.state, old.line.code_version, old.line.is_stored) == ("earlier", "7", True)
    assert dict(old.metadata)["rows"] == "1"
    assert [(one.check, one.passed) for one in old.checks] == [("positive", True)]
    assert flow.insights.version(second).line.requested_by == "ann"
    assert (old.attempts, old.attempt) == (1, 1)
    with pytest.raises(VersionNotFoundError):
        flow.insights.version(99999)
    with pytest.raises(OptionsError):
        flow.insights.version(-1)


def test_a_partition_says_why(flow: FlowStone) -> None:
    target = flow.insights.target
    assert (target("report", "eu").state, target("report", "eu").why) == ("missing", ())
    flow.materialize_all("report", partition="eu")
    assert target("report", "eu").state == "current"
    flow.materialize("orders", partition="eu", force=True)
    stale = target("report", "eu")
    assert stale.state == "stale"
    assert "input orders [eu] changed" in stale.why[0]
    flow.invalidate("report", partitions=["eu"])
    missing = target("report", "eu")
    assert (missing.state, missing.version) == ("missing", None)
    assert "invalidated" in missing.why[0]
    flow.versions.erase("report", partition="eu", by="dpo")
    assert (target("report", "eu").state, target("report", "eu").why) == ("erased", ("it was erased by dpo",))


def test_versions_say_who_restored_and_erased_them(flow: FlowStone) -> None:
    for _ in range(3):
        flow.materialize("orders", partition="eu", force=True)
    lines = flow.insights.versions("orders", "eu").items
    flow.versions.restore("orders", "eu", lines[2].version, by="ann", reason="bad feed")
    restored = flow.insights.versions("orders", "eu").items[2]
    assert (restored.state, restored.changed_by, restored.reason) == ("restored", "ann", "bad feed")
    page = flow.insights.versions("orders", "eu", limit=2)
    assert (len(page.items), page.total, page.summary) == (2, 3, "first 2 of 3")
    assert [one.version for one in flow.insights.versions("orders", "eu", after=page.next).items] == [
        restored.version
    ]
    flow.versions.erase("orders", partition="eu", by="dpo")
    gone = flow.insights.versions("orders", "eu").items
    assert {(one.state, one.changed_by, one.is_stored, one.data_version) for one in gone} == {
        ("erased", "dpo", False, None)
    }
    assert flow.insights.asset_history("orders").numbers == ()


def test_partitions_on_a_page_agree_with_conditions_about_restores(flow: FlowStone) -> None:
    """What a person restored is not stale because of what was known then."""
    flow.materialize_all("report", partition="eu")
    first = flow.history("report", partition="eu")[0]
    flow.materialize_all("report", partition="eu", force=True, force_deps=True)
    flow.versions.restore("report", "eu", first)
    assert flow.insights.target("report", "eu").state == "current"
    assert flow.insights.partitions("report").states.counts["stale"] == 0
    flow.materialize("orders", partition="eu", force=True)
    assert flow.insights.partitions("report").states.counts["stale"] == 1
    assert flow.insights.target("report", "eu").state == "stale"


def test_checks_that_failed_come_first(flow: FlowStone) -> None:
    for _ in range(3):
        flow.materialize("orders", partition="eu", force=True)
    flow.materialize("orders", partition="us")
    found = flow.insights.asset_checks("orders")
    assert [(one.partition, one.passed) for one in found] == [("eu", False), ("us", False)]
    assert found[0].metadata == (("value", "3"),)
    now = datetime.now(UTC)
    assert all(now - one.started_at < timedelta(hours=1) for one in found)


def test_a_range_over_two_dimensions_is_the_rectangle_that_is_seen() -> None:
    """Taking out of use or erasing what lies between two corners must not reach cells outside of them."""
    grid = MultiPartitions(day=StaticPartitions(["mo", "tu", "we"]), region=StaticPartitions(["eu", "us", "asia"]))

    @asset(partitions=grid)
    def cells() -> int:
        return 1

    with FlowStone.for_testing([cells]) as flow:

        def between(first: str, last: str) -> set[object]:
            return {decode_partition(key) for key in flow.insights.partition_range("cells", first, last)}

        assert between("mo|eu", "tu|us") == {("mo", "eu"), ("mo", "us"), ("tu", "eu"), ("tu", "us")}
        assert between("tu|us", "mo|eu") == between("mo|us", "tu|eu") == between("mo|eu", "tu|us")
        assert between("we|asia", "we|asia") == {("we", "asia")}
        assert len(between("mo|eu", "we|asia")) == 9
