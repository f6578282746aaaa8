"""`flow.conditions` on the store in memory: deciding, explaining, computing what is requested."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from flowstone import (
    AllPartitions,
    DailyPartitions,
    FlowStone,
    Skip,
    asset,
    code_changed,
    dep,
    eager,
    on_cron,
    on_missing,
    retry_failed,
    when_stale,
)
from flowstone.config import Settings
from flowstone.errors import DefinitionError, UnknownAssetError


def app(*assets: object, storage: Path) -> FlowStone:
    """An app whose values are files, so that equal data has equal hashes."""
    settings = Settings(executor="sync", storage=str(storage))
    return FlowStone.for_testing(assets, settings=settings, default_io="filesystem")  # type: ignore[arg-type]


def names(flow: FlowStone) -> list[str]:
    """Compute what is requested; return the names."""
    return [decision.name for decision in flow.conditions.run()]


def test_a_diamond_settles_in_one_go(tmp_path: Path) -> None:
    value = [1]

    @asset
    def source():
        return value[0]

    @asset(automation=eager())
    def left(source):
        return source + 1

    @asset(automation=eager())
    def right(source):
        return source % 2

    @asset(automation=eager())
    def both(left, right):
        return left + right

    with app(source, left, right, both, storage=tmp_path) as flow:
        assert names(flow) == [], "nobody computes the source by itself"
        flow.materialize("source")
        assert names(flow) == ["left", "right", "both"]
        flow.materialize("source", force=True)
        assert names(flow) == [], "the same bytes"
        value[0] = 3
        flow.materialize("source", force=True)
        assert flow.conditions.stale("left")[None][0].startswith("input source changed: data version ")
        assert names(flow) == ["left", "right", "both"]
        assert len(flow.history("right")) == 2
        assert flow.load("both") == 5
        assert flow.conditions.stale("both") == {}


def test_staleness_needs_no_condition(tmp_path: Path) -> None:
    @asset
    def source():
        return 1

    @asset(code_version="1")
    def reader(source):
        return source

    with app(source, reader, storage=tmp_path) as flow:
        assert flow.conditions.stale("reader") == {}
        flow.materialize_all("reader")
        assert flow.conditions.stale("reader") == {}
        flow.invalidate("source")
        assert flow.conditions.stale("reader") == {None: ["input source was invalidated"]}
        reader.code_version = "2"
        assert flow.conditions.stale("reader")[None][-1] == "code version 1 → 2"
        with pytest.raises(DefinitionError, match="has no condition"):
            flow.conditions.evaluate("reader")
        with pytest.raises(UnknownAssetError):
            flow.conditions.evaluate("raeder")


def test_code_that_changed(tmp_path: Path) -> None:
    @asset(automation=on_missing() | code_changed(), code_version="1")
    def one():
        return 1

    with app(one, storage=tmp_path) as flow:
        assert names(flow) == ["one"]
        assert names(flow) == []
        one.code_version = "2"
        assert flow.conditions.evaluate("one")[0].reason == "code version 1 → 2"
        assert names(flow) == ["one"]
        assert names(flow) == []


def test_partitions_follow_theirs(tmp_path: Path) -> None:
    days = DailyPartitions(date(2024, 1, 1), date(2024, 1, 30))

    @asset(partitions=days)
    def orders(context):
        return context.partition.day

    @asset(partitions=days, automation=eager().at_most(7))
    def cleaned(orders):
        return orders

    @asset(automation=eager(), deps={"cleaned": dep("cleaned", mapping=AllPartitions())})
    def total(cleaned):
        return sum(cleaned.values())

    with app(orders, cleaned, total, storage=tmp_path) as flow:
        flow.backfill("orders", partitions=[date(2024, 1, day) for day in range(1, 30)])
        assert len(names(flow)) == 29
        runs = [run for run in flow.runs.latest() if run.kind == "condition"]
        assert [run.total for run in runs] == [1, 7, 7, 7, 7], "no more than 7 at a time"
        decision = flow.conditions.evaluate("total")[0]
        assert not decision.requested
        assert decision.reason == "input cleaned [2024-01-30] is missing"
        flow.backfill("orders", partitions=[date(2024, 1, 30)])
        assert names(flow) == ["cleaned [2024-01-30]", "total"]
        assert flow.load("total") == sum(range(1, 31))
        (one,) = flow.conditions.evaluate("cleaned", partitions=[date(2024, 1, 30)])
        assert not one.requested


def test_what_failed_or_was_skipped_waits_for_a_change(tmp_path: Path) -> None:
    value = [1]

    @asset
    def source():
        return value[0]

    @asset(automation=eager())
    def picky(source):
        if source == 1:
            raise ValueError("not one")
        return Skip("not two") if source == 2 else source

    with app(source, picky, storage=tmp_path) as flow:
        flow.materialize("source")
        assert names(flow) == ["picky"]
        assert names(flow) == []
        assert "it is over: failed" in flow.why("picky")[0]
        assert "it ended as failed and neither inputs nor code changed since" in flow.why("picky")[1]
        value[0] = 2
        flow.materialize("source", force=True)
        assert names(flow) == ["picky"]
        assert names(flow) == []
        assert "ended as skipped" in flow.conditions.evaluate("picky")[0].reason
        value[0] = 3
        flow.materialize("source", force=True)
        assert names(flow) == ["picky"]
        assert flow.load("picky") == 3


def test_time_is_an_argument(tmp_path: Path) -> None:
    @asset(automation=on_cron("0 6 * * *", timezone="Europe/Berlin"))
    def nightly():
        return 1

    @asset(automation=on_missing() | when_stale(max_lag=timedelta(days=2)))
    def fresh():
        return 1

    @asset(automation=on_missing() | retry_failed(after=timedelta(hours=1)))
    def fragile():
        raise ValueError

    with app(nightly, fresh, fragile, storage=tmp_path) as flow:
        now = datetime.now(UTC)
        assert names(flow) == ["fresh", "fragile"], "ticks before the app was made do not count"
        later = [
            one.asset for one in flow.conditions.evaluate(now=now + timedelta(days=1, minutes=1)) if one.requested
        ]
        assert later == ["nightly", "fragile"]
        later = [one.asset for one in flow.conditions.evaluate(now=now + timedelta(days=3)) if one.requested]
        assert later == ["nightly", "fresh", "fragile"]
        assert [one.asset for one in flow.conditions.run("nightly", now=now + timedelta(days=1))] == ["nightly"]


def test_pausing(tmp_path: Path) -> None:
    @asset(automation=eager())
    def one():
        return 1

    with app(one, storage=tmp_path) as flow:
        assert flow.conditions.pause("one")
        assert not flow.conditions.pause("one")
        assert [record.paused for record in flow.conditions.list()] == [True]
        assert names(flow) == []
        assert flow.conditions.evaluate("one")[0].requested, "what it would say is evaluated all the same"
        assert flow.why("one")[1] == "its condition is paused: `flowstone automation one --resume`"
        assert flow.conditions.resume("one")
        assert names(flow) == ["one"]
        assert flow.conditions.ticks("one") == []


def test_declarations_are_checked() -> None:
    for wrong in (True, "eager", eager):
        with pytest.raises(DefinitionError, match="give a condition, such as eager"):

            @asset(automation=wrong)  # type: ignore[call-overload]
            def one():
                return 1
