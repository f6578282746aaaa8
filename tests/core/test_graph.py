from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from drawn_graphs import Drawn, graphs, make, reach

from flowstone.core.asset import asset
from flowstone.core.dependency import dep
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.mappings import AllPartitions, SameKey
from flowstone.core.partitions import encode_partition
from flowstone.core.partitions_by_time import (
    CronPartitions,
    DailyPartitions,
    HourlyPartitions,
    MonthlyPartitions,
    TimePartitions,
    WeeklyPartitions,
)
from flowstone.errors import (
    CycleError,
    DefinitionError,
    DuplicateAssetError,
    UnknownAssetError,
    UnknownDependencyError,
)


@given(graphs())
def test_the_order_can_run(drawn: Drawn) -> None:
    graph = AssetGraph(drawn.assets)
    position = {name: index for index, name in enumerate(graph.order)}
    assert sorted(graph.order) == sorted(drawn.reads)
    assert all(position[read] < position[name] for name, reads in drawn.reads.items() for read in reads)
    assert [one.name for one in graph] == list(graph.order)
    assert len(graph) == len(drawn.reads)


@given(graphs(), st.data())
def test_upstream_and_downstream_are_reachability(drawn: Drawn, data: st.DataObject) -> None:
    graph = AssetGraph(drawn.assets)
    name = data.draw(st.sampled_from(sorted(drawn.reads)))
    depth = data.draw(st.none() | st.integers(0, 4))
    assert graph.upstream(name, depth=depth) == drawn.upstream(name, depth)
    assert graph.downstream(name, depth=depth) == drawn.downstream(name, depth)


@given(st.integers(1, 7), st.data())
def test_cycles_are_found_exactly_where_there_are_some(size: int, data: st.DataObject) -> None:
    names = [f"n{number}" for number in range(size)]
    reads = {name: data.draw(st.sets(st.sampled_from(names)).map(lambda s, n=name: s - {n})) for name in names}
    cyclic = any(name in reach(reads, name, None) for name in names)
    assets = [make(name, reads[name]) for name in names]
    if not cyclic:
        AssetGraph(assets)
        return
    with pytest.raises(CycleError) as caught:
        AssetGraph(assets)
    path = caught.value.path
    assert path[0] == path[-1]
    assert len(set(path)) == len(path) - 1
    assert all(first in reads[second] for first, second in pairwise(path))
    assert all(f"{name} at {__file__.removesuffix('test_graph.py')}" in str(caught.value) for name in path[1:])


def test_a_chain_of_five_thousand_needs_no_recursion() -> None:
    names = [f"n{number}" for number in range(5000)]
    assets = [make(name, {names[at - 1]} if at else set()) for at, name in enumerate(names)]
    graph = AssetGraph(reversed(assets))
    assert list(graph.order) == names
    assert len(graph.upstream(names[-1])) == 4999


def test_duplicates_name_both_places() -> None:
    first, second = make("a", set()), make("a", set())
    with pytest.raises(DuplicateAssetError) as caught:
        AssetGraph([first, second])
    assert first.where in str(caught.value)
    assert AssetGraph([first, first]).order == ("a",)


def test_unknown_dependencies_get_a_suggestion() -> None:
    with pytest.raises(UnknownDependencyError, match="Did you mean 'orders'") as caught:
        AssetGraph([make("orders", set()), make("b", {"ordres"})])
    assert "drawn_graphs.py:" in str(caught.value)
    assert caught.value.dependency == "ordres"


def test_plain_functions_are_no_assets() -> None:
    with pytest.raises(DefinitionError, match="Decorate"):
        AssetGraph([print])  # type: ignore[list-item]


def test_lookups() -> None:
    graph = AssetGraph([make("orders", set())])
    assert graph["orders"].name == "orders"
    assert "orders" in graph
    assert "nope" not in graph
    with pytest.raises(UnknownAssetError, match="Did you mean 'orders'"):
        graph["order"]
    with pytest.raises(UnknownAssetError):
        graph.upstream("nope")
    with pytest.raises(UnknownAssetError):
        graph.downstream("nope")
    with pytest.raises(TypeError):
        graph.assets["x"] = graph["orders"]  # type: ignore[index]


def test_mappings_are_chosen_and_checked() -> None:
    days = DailyPartitions(date(2024, 1, 1))

    @asset(partitions=days)
    def a(): ...

    @asset(partitions=days)
    def b(a): ...

    @asset(deps=[dep("a", mapping=AllPartitions())])
    def c(a): ...

    graph = AssetGraph([a, b, c])
    assert type(graph.mapping("b", "a")) is SameKey
    assert type(graph.mapping("c", "a")) is AllPartitions

    @asset(deps=[dep("a", mapping=SameKey())])
    def wrong(a): ...

    with pytest.raises(DefinitionError, match="'wrong' cannot read 'a'") as caught:
        AssetGraph([a, wrong])
    assert wrong.where in str(caught.value)


_FIRST = datetime(2024, 3, 28, tzinfo=UTC)


@pytest.mark.parametrize(
    "definition",
    [
        DailyPartitions("2024-03-30"),
        DailyPartitions("2024-03-29", end="2024-04-01", timezone="Europe/Berlin"),
        DailyPartitions("2018-11-01", timezone="America/Sao_Paulo"),
        HourlyPartitions("2024-03-30T00:00+01:00", timezone="Europe/Berlin"),
        WeeklyPartitions("2024-03-25", timezone="Asia/Tokyo"),
        MonthlyPartitions("2024-01-01"),
        CronPartitions("0 6,14,22 * * *", "2024-03-29T06:00", end="2024-04-02T22:00", timezone="Europe/Berlin"),
    ],
    ids=repr,
)
@given(
    st.lists(st.integers(0, 10 * 24 * 3600), min_size=1, max_size=8),
    st.lists(st.integers(0, 9 * 24), min_size=1, max_size=4),
)
def test_what_is_over_is_found_anew_when_time_has_passed(
    definition: TimePartitions[date], moments: list[int], hours: list[int]
) -> None:
    @asset(partitions=definition)
    def timed() -> None: ...

    graph = AssetGraph([timed])
    keys = [definition.containing(_FIRST + timedelta(hours=hour)) for hour in hours]
    for moment in moments:
        now = _FIRST + timedelta(seconds=moment)
        for key in keys:
            assert key is not None
            over = Completeness(graph, now).is_over("timed", encode_partition(key))
            in_definition = key >= definition.start and (definition.end is None or key <= definition.end)
            assert not in_definition or over is (definition.window(key).end <= now)


def test_what_is_over_is_looked_up_once_in_an_hour() -> None:
    class Counted(DailyPartitions):
        calls = 0

        def last(self, now: datetime) -> date | None:
            Counted.calls += 1
            return super().last(now)

    @asset(partitions=Counted("2024-01-01"))
    def timed() -> None: ...

    graph = AssetGraph([timed])
    for minute in range(60):
        assert Completeness(graph, _FIRST + timedelta(minutes=minute)).is_over("timed", "d:2024-03-27")
    assert Counted.calls == 1
    assert not Completeness(graph, _FIRST - timedelta(seconds=1)).is_over("timed", "d:2024-03-27")
    assert not Completeness(graph, _FIRST).is_over("timed", "d:2024-03-28")
    assert Completeness(graph, _FIRST + timedelta(days=1)).is_over("timed", "d:2024-03-28")
    assert Counted.calls > 1
