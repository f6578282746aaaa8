"""Which partitions an asset has: the contract, and a fixed list of keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice

from flowstone.core.known_keys import KeySource
from flowstone.core.partition import Partition, encode_partition, partition_label
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError, did_you_mean


class PartitionsDefinition(ABC):
    """The partitions of an asset. Two definitions that describe the same partitions are equal.

    Every question about "until now" takes `now`, an aware datetime; nothing here reads a clock.
    """

    @abstractmethod
    def keys(self, now: datetime) -> Iterator[Partition]:
        """Yield, in order and lazily, every partition that is complete at `now`."""

    @abstractmethod
    def validate(self, value: object) -> Partition:
        """Return the value as the key of a partition.

        A partition that lies in the future, or is not complete yet, is a partition all the same.

        Raises:
            UnknownPartitionError: this definition has no such partition.
        """

    @abstractmethod
    def parse(self, text: str) -> Partition:
        """Return the key that a person wrote, the inverse of `label`.

        Raises:
            UnknownPartitionError: this definition has no such partition.
        """

    @abstractmethod
    def label(self, value: Partition) -> str:
        """Return the short form of a key for people; `parse` reads it back."""

    @abstractmethod
    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Yield the partitions from `start` to `end`, both included, that are complete at `now`.

        Args:
            start: the first key; None for the first of the definition.
            end: the last key; None for the last complete one.
            now: the present.

        Raises:
            UnknownPartitionError: `start` or `end` is no key.
            PartitionError: `start` comes after `end`.
        """

    @abstractmethod
    def last(self, now: datetime) -> Partition | None:
        """Return the last partition that is complete at `now`, or None."""

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types."""

    def bound(self, source: KeySource) -> PartitionsDefinition:
        """Return this definition with keys from a store, where it has such keys; else itself."""
        return self

    def with_removed(self) -> PartitionsDefinition:
        """Return this definition accepting keys that were removed at run time, for reading what is committed."""
        return self

    def __contains__(self, value: object) -> bool:
        try:
            self.validate(value)
        except PartitionError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PartitionsDefinition) or type(self) is not type(other):
            return NotImplemented
        return self is other or self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(repr(self.to_json()))

    def __repr__(self) -> str:
        described = {name: value for name, value in self.to_json().items() if name != "type" and value is not None}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in described.items())})"


def reversed_range(start: str, end: str) -> PartitionError:
    """Return the error for a range that ends before it begins.

    Example:
        >>> str(reversed_range("b", "a"))
        "The range of partitions from 'b' to 'a' ends before it begins. Swap the two."
    """
    return PartitionError(
        f"The range of partitions from {start!r} to {end!r} ends before it begins. Swap the two."
    )


class ListedPartitions(PartitionsDefinition):
    """Partitions that are a list of keys, in which every one is complete and has its place."""

    @abstractmethod
    def until(self, value: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that end with this one, in order; None stands for the last one.

        Raises:
            UnknownPartitionError: it is none of the keys.
        """

    @abstractmethod
    def within(self, other: PartitionsDefinition) -> bool:
        """Whether the other definition has all these keys."""


class StaticPartitions(ListedPartitions):
    """A fixed list of partitions, in the order in which they are given.

    Args:
        keys: at least one value, all different.

    Raises:
        DefinitionError: the list is empty, or a key is there twice or cannot be a partition.

    Example:
        >>> regions = StaticPartitions(["eu", "us"])
        >>> "eu" in regions, regions.parse("us")
        (True, 'us')
    """

    def __init__(self, keys: Iterable[Partition]) -> None:
        if isinstance(keys, str):
            raise DefinitionError(f"StaticPartitions takes a list of keys, not one text. Write [{keys!r}].")
        self._keys: dict[str, Partition] = {}
        for key in keys:
            if key is None:
                raise DefinitionError("None is not a static partition: it means 'not partitioned'. Remove it.")
            try:
                text = encode_partition(key)
            except PartitionError as error:
                raise DefinitionError(f"StaticPartitions has a key that cannot be used. {error}") from error
            if text in self._keys:
                raise DefinitionError(f"StaticPartitions has the key {key!r} twice. Remove one of them.")
            self._keys[text] = key
        if not self._keys:
            raise DefinitionError("StaticPartitions needs at least one key, such as StaticPartitions(['eu']).")
        self._positions = {text: position for position, text in enumerate(self._keys)}
        labels = {partition_label(key): key for key in self._keys.values()}
        # 1 and "1" look alike, and so may others: then every key goes by its unmistakable encoded form.
        self._labels: dict[str, Partition] = labels if len(labels) == len(self._keys) else dict(self._keys)
        self._by_encoding = {encode_partition(key): label for label, key in self._labels.items()}

    def keys(self, now: datetime) -> Iterator[Partition]:
        """Yield all keys in the order of the declaration; they are always complete."""
        return iter(self._keys.values())

    def validate(self, value: object) -> Partition:
        """Return the value if it is one of the keys."""
        text = _encoded_or_empty(value)
        if text not in self._keys:
            raise UnknownPartitionError(value, hint=self._hint(str(value)))
        return self._keys[text]

    def parse(self, text: str) -> Partition:
        """Return the key with this label."""
        if text not in self._labels:
            raise UnknownPartitionError(text, hint=self._hint(text))
        return self._labels[text]

    def label(self, value: Partition) -> str:
        """Return the key as people write it."""
        return self._by_encoding[encode_partition(self.validate(value))]

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Yield the keys from `start` to `end` in the order of the declaration."""
        first = 0 if start is None else self.position(start)
        last = len(self._keys) - 1 if end is None else self.position(end)
        if first > last:
            raise reversed_range(self.label(start), self.label(end))
        return islice(self._keys.values(), first, last + 1)

    def last(self, now: datetime) -> Partition:
        """Return the key declared last."""
        return next(reversed(self._keys.values()))

    def position(self, value: Partition) -> int:
        """Return where in the declared order the key stands, from 0 on.

        Raises:
            UnknownPartitionError: it is none of the keys.
        """
        return self._positions[encode_partition(self.validate(value))]

    def until(self, value: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that end with this one; None stands for the last one."""
        stop = len(self._keys) if value is None else self.position(value) + 1
        return list(islice(self._keys.values(), max(0, stop - number), stop))

    def within(self, other: PartitionsDefinition) -> bool:
        """Whether the other definition has all these keys."""
        return isinstance(other, StaticPartitions) and all(key in other for key in self._keys.values())

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types; keys are encoded."""
        return {"type": "static", "keys": list(self._keys)}

    def _hint(self, text: str) -> str:
        shown = ", ".join(islice(self._labels, 10))
        more = f" and {len(self._labels) - 10} more" if len(self._labels) > 10 else ""
        return f"{did_you_mean(text, self._labels)} The partitions are: {shown}{more}.".strip()


def _encoded_or_empty(value: object) -> str:
    try:
        return encode_partition(value)  # type: ignore[arg-type]  # a wrong type is what is being found out
    except PartitionError:
        return ""
