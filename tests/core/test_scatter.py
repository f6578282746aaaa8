from __future__ import annotations

import functools
from typing import Any

import pytest

from flowstone import RetryPolicy, StaticPartitions, asset, scatter
from flowstone.core.graph import AssetGraph
from flowstone.core.scatter import ItemAsset, NewScatter, allowed_failures
from flowstone.core.selection import select
from flowstone.errors import DefinitionError, SelectionError


def work(item: Any) -> Any:
    return item


def declared(**options: Any) -> Any:
    def found() -> list[int]:
        return [1, 2]

    return scatter(**({"each": work} | options))(found)


def test_it_is_an_asset_that_comes_with_another() -> None:
    @asset
    def source() -> int:
        return 1

    @scatter(each=work, tags=["web"], queue="slow", timeout=5)
    def found(source: int) -> list[int]:
        """Finds."""
        return [source, 2]

    assert found(5) == [5, 2]
    assert [one.asset for one in found.dependencies] == ["source"]
    assert (found.name, found.queue, found.description, found.timeout_seconds) == ("found", "slow", "Finds.", 5)
    graph = AssetGraph([found, source])
    item = graph["found.item"]
    assert isinstance(item, ItemAsset)
    assert (item.parameter, item.scatter, item.dependencies, item.queue) == ("item", "found", (), "assets")
    assert found.companions == (item,)


def test_options_of_items_are_those_of_an_asset() -> None:
    retry = RetryPolicy(max_attempts=7)
    each = asset(name="fetch", retry=retry, isolation="process", concurrency={"web": 4}, requires=["http"])(work)
    item = declared(each=each).item
    assert (item.name, item.retry, item.isolation) == ("found.item", retry, "process")
    assert (item.concurrency, item.requires, item.function) == ({"web": 4}, ("http",), work)
    assert each.name == "fetch"


def test_selections_leave_items_out() -> None:
    graph = AssetGraph([declared(tags=["web"], each=asset(tags=["web"])(work))])
    for expression in ("*", "tag:web", "found", "+found+", "found*", "not (tag:none)"):
        assert select(graph, expression) == ("found",)
    with pytest.raises(SelectionError, match=r"found\.item is run by the asset that scatters it"):
        select(graph, "found.item")


def test_a_gathering_function() -> None:
    found = declared()
    same = found.gather(lambda context, results: results)
    assert same is found
    assert (found.results, found.gathering.takes_context) == ("results", True)
    with pytest.raises(DefinitionError, match="has a gathering function already"):
        found.gather(lambda results: results)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_concurrency": 0}, "max_concurrency=0: give at least 1"),
        ({"max_concurrency": None}, "max_concurrency=None"),
        ({"max_failures": -1}, "max_failures=-1"),
        ({"max_failures": 1.5}, "a share from 0.0 to 1.0"),
        ({"max_failures": True}, "max_failures=True"),
        ({"max_failures": "5%"}, "max_failures='5%'"),
        ({"max_failures": float("nan")}, "max_failures=nan"),
        ({"key": "id"}, "key='id': give a function of the item"),
        ({"isolation": "process"}, "declare that for the items"),
        ({"each": lambda: 1}, "must take the item alone .* but takes nothing"),
        ({"each": lambda item, config: 1}, "but takes item, config. Put what it needs into the items"),
        ({"each": asset(partitions=StaticPartitions([1]))(work)}, "cannot have partitions"),
        ({"each": declared()}, "scatter again"),
        ({"each": functools.partial(work, 1)}, "must take the item alone"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_cannot_work(options: dict[str, Any], text: str) -> None:
    with pytest.raises((DefinitionError, TypeError), match=text):
        declared(**options)


@pytest.mark.parametrize("function", [lambda: 1, lambda results, other: 1, lambda context: 1])
def test_what_cannot_gather(function: Any) -> None:
    with pytest.raises(DefinitionError, match="must take the results alone"):
        declared().gather(function)


@pytest.mark.parametrize(
    ("maximum", "total", "allowed"),
    [
        (0, 10, 0),
        (3, 10, 3),
        (0.0, 10, 0),
        (0.29, 100, 29),
        (0.05, 100_000, 5000),
        (1.0, 7, 7),
        (0.1, 9, 0),
        (1, 9, 1),
    ],
)
def test_how_many_may_fail(maximum: float, total: int, allowed: int) -> None:
    assert allowed_failures(maximum, total) == allowed


def test_limits_of_items() -> None:
    new = NewScatter(
        asset="a.item",
        selection="",
        max_concurrency=1,
        max_failures=0,
        max_attempts=1,
        repeats=False,
        queue="assets",
        follows_queue=True,
        priority=None,
        limits={"web": 4},
        own_limits=frozenset({"listing"}),
    )
    assert new.limits_with({"listing": 1, "executor": "9/minute"}) == {"web": 4, "executor": "9/minute"}
    assert new.limits_with(None) == {"web": 4}
