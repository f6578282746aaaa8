from __future__ import annotations

import math
from datetime import UTC, date, datetime
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.partitions import Partition
from flowstone.core.scatter import MAX_ITEM_CHARACTERS, ItemPartitions, decode_item, encode_item, key_of
from flowstone.errors import ItemError, UnknownPartitionError

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
