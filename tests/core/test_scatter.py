from __future__ import annotations

import functools
import math
from datetime import UTC, date, datetime
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import Rate, RetryPolicy, StaticPartitions, asset, scatter
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import Partition
from flowstone.core.scatter import (
    MAX_ITEM_CHARACTERS,
    ItemAsset,
    ItemPartitions,
    NewScatter,
    allowed_failures,
    decode_item,
    encode_item,
    key_of,
)
from flowstone.core.selection import select
from flowstone.errors import DefinitionError, ItemError, SelectionError, UnknownPartitionError


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
    assert new.limits_with({"listing": 1, "executor": Rate(9, "minute")}) == {
        "web": 4,
        "executor": Rate(9, "minute"),
    }
    assert new.limits_with(None) == {"web": 4}


_plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_json = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_atoms = st.booleans() | st.integers() | st.text() | st.dates()
_partitions = _atoms | st.tuples(_atoms, _atoms)


def same(one: Any, other: Any) -> bool:
    """Equal, with equal types all the way down (1, 1.0 and True are equal in Python)."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    return not isinstance(one, float) or math.copysign(1, one) == math.copysign(1, other)


@given(_json | _partitions | st.datetimes(timezones=st.just(UTC)))
def test_an_item_comes_back_as_it_was(item: Any) -> None:
    text = encode_item(item, asset="a", position=0)
    assert same(decode_item(text), item)
    assert text.isprintable() or not text.isascii()


@given(st.lists(_json | _partitions, max_size=6))
def test_different_items_have_different_texts(items: list[Any]) -> None:
    texts = [encode_item(item, asset="a", position=0) for item in items]
    for one, text in zip(items, texts, strict=True):
        for other, other_text in zip(items, texts, strict=True):
            assert (text == other_text) <= same(one, other)


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (object(), "item is a builtins.object"),
        ({1: 2}, "item has the key 1, which is not text"),
        ([1, {"a": (1, 2)}], r"item\[1\]\['a'\] is a builtins.tuple"),
        (float("nan"), "item is nan"),
        (Colour.RED, "Colour"),
        (datetime(2024, 1, 1), "datetime"),
        ("x" * (MAX_ITEM_CHARACTERS + 1), "Let the item name the data"),
    ],
)
def test_what_is_no_item(item: object, text: str) -> None:
    with pytest.raises(ItemError, match=text) as raised:
        encode_item(item, asset="pages", position=12345)
    assert (raised.value.asset, raised.value.position) == ("pages", 12345)
    assert "12345" in str(raised.value)


@pytest.mark.parametrize(
    ("item", "key"), [("eu", "eu"), (7, 7), (date(2024, 1, 1),) * 2, (("a", 1),) * 2, ({}, 3), (1.5, 3), (None, 3)]
)
def test_the_key_of_an_item(item: object, key: Partition) -> None:
    assert key_of(item, 3, None, asset="a") == key


def test_a_key_of_ones_own() -> None:
    assert key_of({"id": 7}, 0, lambda item: item["id"], asset="a") == 7
    with pytest.raises(ItemError, match="KeyError: 'id'"):
        key_of({}, 0, lambda item: item["id"], asset="a")
    with pytest.raises(ItemError, match="gave no key: PartitionError"):
        key_of({}, 0, lambda item: 1.5, asset="a")  # type: ignore[arg-type, return-value]
    with pytest.raises(ItemError, match="give a shorter one"):
        key_of("x" * 5000, 0, None, asset="a")


@given(st.none() | _partitions, _partitions)
def test_labels_are_read_back(parent: Partition, key: Partition) -> None:
    items = ItemPartitions()
    assert same(items.parse(items.label((parent, key))), (parent, key))


def test_partitions_of_items() -> None:
    items = ItemPartitions()
    now = datetime(2024, 1, 1, tzinfo=UTC)
    assert (list(items.keys(now)), list(items.between(None, None, now)), items.last(now)) == ([], [], None)
    assert (items == ItemPartitions(), (None, "x") in items, "x" in items) == (True, True, False)
    with pytest.raises(UnknownPartitionError, match="the pair"):
        items.validate("x")
