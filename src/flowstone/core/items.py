"""Items of a scatter: their text in the database, and the keys by which people know them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from flowstone.core.definition import PartitionsDefinition
from flowstone.core.partition import Partition, PartitionKey, decode_partition, encode_partition
from flowstone.errors import ItemError, PartitionError, UnknownPartitionError

MAX_ITEM_CHARACTERS = 64 * 1024
"""Largest item as JSON text: an item names the work, it does not carry the data."""

MAX_KEY_CHARACTERS = 1000
_PARTITION = "p"  # no JSON text begins with this letter
_PLAIN = (str, int, bool, type(None))

type Key = Callable[[Any], Partition]


def encode_item(item: object, *, asset: str, position: int) -> str:
    """Return the text of an item, from which `decode_item` makes the same value again.

    Args:
        item: a JSON value, or a partition value such as a date or a tuple.
        asset: for the error.
        position: for the error.

    Raises:
        ItemError: it is neither, or too large.

    Example:
        >>> encode_item({"page": 7}, asset="pages", position=0)
        '{"page":7}'
    """
    problem = _problem(item, "item")
    if problem is None:
        text = json.dumps(item, separators=(",", ":"), allow_nan=False)
    else:
        try:
            text = _PARTITION + encode_partition(item)  # type: ignore[arg-type]  # that is being found out
        except PartitionError:
            raise ItemError(asset, position, f"{problem}. Items are JSON values or partition values.") from None
    if len(text) > MAX_ITEM_CHARACTERS:
        raise ItemError(
            asset,
            position,
            f"it has {len(text):,} characters as JSON, more than {MAX_ITEM_CHARACTERS:,}. Let the item name the "
            "data (an id, a path) and load it in the function of the item.",
        )
    return text


def decode_item(text: str) -> Any:
    """Return the item of a text.

    Example:
        >>> decode_item('{"page":7}'), decode_item("pd:2024-01-01")
        ({'page': 7}, datetime.date(2024, 1, 1))
    """
    return decode_partition(text[1:]) if text.startswith(_PARTITION) else json.loads(text)


def key_of(item: object, position: int, key: Key | None, *, asset: str) -> Partition:
    """Return the key of an item: what `key` says, else the item if it is a partition value, else its position.

    Raises:
        ItemError: `key` raised, or gave something that cannot be a key.

    Example:
        >>> key_of("eu", 0, None, asset="a"), key_of([1], 3, None, asset="a")
        ('eu', 3)
    """
    try:
        if key is not None:
            found = key(item)
            text = encode_partition(found)
        else:
            found, text = _own_key(item, position)
    except Exception as error:
        problem = f"key={getattr(key, '__name__', key)!s} gave no key: {type(error).__name__}: {error}"
        raise ItemError(asset, position, problem) from error
    if len(text) > MAX_KEY_CHARACTERS:
        raise ItemError(
            asset, position, f"its key has {len(text):,} characters; give a shorter one with @scatter(key=...)."
        )
    return found


def _own_key(item: object, position: int) -> tuple[Partition, PartitionKey]:
    if item is not None:
        try:
            return item, encode_partition(item)  # type: ignore[arg-type, return-value]  # being found out
        except PartitionError:
            pass
    return position, encode_partition(position)


def _problem(value: object, path: str) -> str | None:
    """Say why a value would not come back from JSON as it is; only exact types do."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is float:
        assert isinstance(value, float)
        return None if math.isfinite(value) else f"{path} is {value}"
    if isinstance(value, list) and kind is list:
        return next((found for n, one in enumerate(value) if (found := _problem(one, f"{path}[{n}]"))), None)
    if isinstance(value, dict) and kind is dict:
        for name, one in value.items():
            if type(name) is not str:
                return f"{path} has the key {name!r}, which is not text"
            if found := _problem(one, f"{path}[{name!r}]"):
                return found
        return None
    return f"{path} is a {kind.__module__}.{kind.__qualname__}"


class ItemPartitions(PartitionsDefinition):
    """The partitions of item steps: (partition of the scatter, key of the item). Nobody can list them.

    Example:
        >>> items = ItemPartitions()
        >>> items.label((None, "eu")), items.parse("eu")
        ('eu', (None, 'eu'))
    """

    def keys(self, now: datetime) -> Iterator[Partition]:
        """Yield nothing: items are discovered when their scatter runs."""
        return iter(())

    def validate(self, value: object) -> Partition:
        """Return a pair of partition and key."""
        if isinstance(value, tuple) and len(value) == 2:
            return value
        raise UnknownPartitionError(value, hint="An item is the pair (partition of its asset or None, key).")

    def parse(self, text: str) -> Partition:
        """Return the item with this label."""
        try:
            found = decode_partition(text)
        except PartitionError:
            return None, text
        return found if isinstance(found, tuple) and len(found) == 2 else (None, found)

    def label(self, value: Partition) -> str:
        """Return the key of an item without a partition, else the encoded pair."""
        pair = self.validate(value)
        assert isinstance(pair, tuple)
        parent, key = pair
        text = encode_partition(key)
        if parent is None and isinstance(key, str) and self.parse(key) == value:
            return key
        return text if parent is None and not isinstance(key, tuple) else encode_partition(value)

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Yield nothing."""
        return iter(())

    def last(self, now: datetime) -> Partition | None:
        """Return None."""
        return None

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Say that it is: an item is there once it was discovered."""
        return True

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types."""
        return {"type": "items"}
