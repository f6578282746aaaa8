"""Assets that read earlier partitions of their own."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from flowstone import (
    AnyPartitions,
    DailyPartitions,
    DynamicPartitions,
    FlowStone,
    LastN,
    MultiPartitions,
    Previous,
    StaticPartitions,
    TimeWindowOverlap,
    asset,
    dep,
    eager,
)
from flowstone.errors import CycleError, DefinitionError, DependencyNotReadyError

DAYS = DailyPartitions("2024-01-01", end="2024-01-31")
NOW = datetime(2024, 2, 1, tzinfo=UTC)


def day(number: int) -> date:
    return date(2024, 1, number)


ran: list[date] = []


@asset(partitions=DAYS)
def payments(context) -> int:  # type: ignore[no-untyped-def]
    return context.partition.day  # type: ignore[no-any-return]


@asset(partitions=DAYS, deps=[dep("balance", mapping=Previous())])
def balance(context, balance: int | None, payments: int) -> int:  # type: ignore[no-untyped-def]
    ran.append(context.partition)
    if context.partition == day(20) and payments < 0:
        raise ValueError("no")
    return (balance or 0) + payments


@asset(partitions=DAYS, deps=[dep("smooth", mapping=Previous(3))])
def smooth(smooth: dict[date, int], payments: int) -> list[int]:
    return [one.day for one in smooth]  # type: ignore[attr-defined]


@asset(partitions=DAYS)
def report(balance: int) -> int:
    return balance


@pytest.fixture
def flow() -> FlowStone:
    ran.clear()
    return FlowStone.for_testing([payments, balance, smooth, report])


@pytest.mark.parametrize("executor", ["sync", "async", "serial"])
def test_a_backfill_runs_in_order_and_the_first_goes_without(flow: FlowStone, executor: str) -> None:
    result = flow.backfill("+balance", executor=executor, max_concurrency=4)
    assert (result.ok, result.total) == (True, 62)
    assert ran == [day(number) for number in range(1, 32)]
    assert flow.load("balance", partition=day(31)) == sum(range(1, 32))


def test_what_is_missing_before_is_computed_too(flow: FlowStone) -> None:
    assert flow.materialize_all("report", partition=day(10)).value == {day(10): 55}
    assert ran == [day(number) for number in range(1, 11)]
    assert flow.materialize_all("report", partition=day(12)).value == {day(12): 78}
    assert ran[10:] == [day(11), day(12)]
    assert flow.materialize_all("balance", partition=day(12), force_deps=True, force=True).total == 24


def test_partitions_that_were_said_are_meant_and_no_others(flow: FlowStone) -> None:
    flow.backfill("payments")
    flow.backfill("balance", partitions=[day(1), day(2), day(3)])
    with pytest.raises(DependencyNotReadyError, match=r"materialize \+balance --partition 2024-01-10") as caught:
        flow.backfill("balance", partitions=[day(number) for number in range(10, 15)])
    assert caught.value.missing == (("balance", "d:2024-01-09"),)
    result = flow.backfill("balance", partitions=[day(6), day(5), day(4)])
    assert (result.ok, ran[3:]) == (True, [day(4), day(5), day(6)])


def test_the_last_few(flow: FlowStone) -> None:
    assert flow.backfill("+smooth").ok
    assert [flow.load("smooth", partition=day(number)) for number in (1, 2, 5)] == [[], [1], [2, 3, 4]]


def test_a_failure_ends_the_chain(flow: FlowStone) -> None:
    tries: list[date] = []

    @asset(partitions=DAYS, deps=[dep("chain", mapping=Previous())])
    def chain(context, chain: int | None) -> int:  # type: ignore[no-untyped-def]
        tries.append(context.partition)
        if context.partition == day(20) and tries.count(day(20)) == 1:
            raise ValueError("no")
        return (chain or 0) + 1

    flow = FlowStone.for_testing([chain])
    result = flow.backfill("chain")
    assert (result.succeeded, result.failed) == (19, 12)
    again = flow.runs.retry(result.run_id)
    assert (again.ok, again.total) == (True, 12)
    assert flow.load("chain", partition=day(31)) == 31


def test_lists_and_dimensions_have_an_order_too() -> None:
    stages = StaticPartitions(["raw", "clean", "done"])
    grid = MultiPartitions(day=DAYS, region=StaticPartitions(["eu", "us"]))

    @asset(partitions=stages, deps=[dep("staged", mapping=Previous())])
    def staged(staged: str | None, context_free: int) -> str:
        return f"{staged}>"

    @asset
    def context_free() -> int:
        return 1

    @asset(partitions=grid, deps=[dep("sums", mapping=Previous())])
    def sums(context, sums: int | None) -> int:  # type: ignore[no-untyped-def]
        return (sums or 0) + (1 if context.partition[1] == "eu" else 10)

    flow = FlowStone.for_testing([staged, context_free, sums])
    assert flow.materialize_all("staged", partition="done").value == {"done": "None>>>"}
    assert flow.backfill("sums", partitions=[(day(n), r) for r in ("us", "eu") for n in (3, 1, 2)]).ok
    assert flow.load("sums", partition=(day(3), "eu")) == 3
    assert flow.load("sums", partition=(day(3), "us")) == 30
    mapping = Previous(2)
    key = (day(1), "eu")
    assert mapping.downstream(key, downstream=grid, upstream=grid, now=NOW) == [(day(2), "eu"), (day(3), "eu")]


def test_keys_in_the_order_of_their_addition() -> None:
    releases = DynamicPartitions("releases")

    @asset(partitions=releases, deps=[dep("notes", mapping=Previous())])
    def notes(context, notes: str | None) -> str:  # type: ignore[no-untyped-def]
        return f"{notes or ''}{context.partition}"

    flow = FlowStone.for_testing([notes])
    flow.partitions.add("releases", ["b", "a", "c"])
    assert flow.backfill("notes").ok
    assert flow.load("notes", partition="c") == "bac"


def test_other_ways_to_read_earlier_partitions() -> None:
    @asset(partitions=DAYS, deps=[dep("weekly", mapping=TimeWindowOverlap(start_offset=-7, end_offset=-7))])
    def weekly(weekly: dict[date, int]) -> int:
        return len(weekly)

    flow = FlowStone.for_testing([weekly])
    assert flow.backfill("weekly").ok
    assert [flow.load("weekly", partition=day(number)) for number in (7, 8)] == [0, 1]


def test_all_else_is_refused() -> None:
    for mapping in (None, LastN(3), TimeWindowOverlap(start_offset=-1)):
        with pytest.raises(DefinitionError, match=r"depends on itself.*mapping=Previous\(\)"):

            @asset(partitions=DAYS, deps=[dep("me", mapping=mapping)])
            def me(me: int) -> int:
                return 1

    @asset(deps=[dep("plain", mapping=Previous())])
    def plain(plain: int) -> int:
        return 1

    @asset(partitions=AnyPartitions(), deps=[dep("anything", mapping=Previous())])
    def anything(anything: int) -> int:
        return 1

    for wrong in (plain, anything):
        with pytest.raises(DefinitionError, match=r"same partitions on both sides|has no order"):
            FlowStone.for_testing([wrong])
    two = MultiPartitions(a=DAYS, b=DAYS)
    with pytest.raises(DefinitionError, match="which dimension"):
        Previous().validate(two, two)
    Previous(dimension="b").validate(two, two)
    with pytest.raises(DefinitionError, match="at least 1"):
        Previous(0)

    @asset(partitions=DAYS, deps=[dep("right", mapping=Previous())])
    def left(right: int) -> int:
        return 1

    @asset(partitions=DAYS)
    def right(left: int) -> int:
        return 1

    with pytest.raises(CycleError):
        FlowStone.for_testing([left, right])


def test_the_graph_is_drawn_planned_and_explained(flow: FlowStone) -> None:
    assert flow.graph.upstream("balance") == {"payments"}
    assert flow.graph.downstream("balance") == {"report"}
    assert flow.plan("balance", partition=day(3)).runs == 6
    assert flow.why("balance", day(3))


def test_a_condition_follows_the_chain() -> None:
    start = datetime.now(UTC).date() - timedelta(days=3)
    days = DailyPartitions(start)

    @asset(partitions=days, deps=[dep("count", mapping=Previous())], automation=eager())
    def count(count: int | None) -> int:
        return (count or 0) + 1

    flow = FlowStone.for_testing([count])
    requested = [len(flow.conditions.run()) for _ in range(4)]
    assert requested == [1, 1, 1, 0]
    assert flow.load("count", partition=start + timedelta(days=2)) == 3


def test_a_long_chain_is_planned_with_few_questions() -> None:
    days = DailyPartitions("2014-01-01", end="2023-12-31")

    @asset(partitions=days, deps=[dep("long", mapping=Previous())])
    def long(long: int | None) -> int:
        return 1

    flow = FlowStone.for_testing([long])
    catalog = flow.parts.store.catalog
    requested = 0
    ask = catalog.current

    def counting(targets):  # type: ignore[no-untyped-def]
        nonlocal requested
        requested += 1
        return ask(targets)

    catalog.current = counting  # type: ignore[method-assign]
    assert flow.plan("long", partition=date(2023, 12, 31)).runs == 3652
    assert requested < 20
