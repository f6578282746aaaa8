"""Which partitions an asset has: the contract, a fixed list of keys, and any value; their text for people."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from itertools import islice
from typing import NoReturn

from flowstone.core.declaring import shown
from flowstone.core.partitions import KeySource, Partition, decode_partition, encode_partition, partition_label
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError, did_you_mean


class PartitionsDefinition(ABC):
    """The partitions of an asset. Two definitions that describe the same partitions are equal.

    Every question about "until now" takes `now`, an aware datetime; nothing here reads a clock. Whoever writes one
    runs `flowstone.testing.partitions_conformance` on it.
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

    @property
    def listable(self) -> bool:
        """Whether `keys`, `between` and `last` can answer; else they raise PartitionError."""
        return True

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Whether this key is one of its complete keys at `now`: one that `keys(now)` yields.

        Goes through all keys; a definition that knows from the key itself overrides it.
        """
        requested = encode_partition(self.validate(key))
        return any(encode_partition(one) == requested for one in self.keys(now))

    def complete_at(self, key: Partition) -> datetime | None:
        """Return when this key is over, where that is a moment: incomplete before, complete from then on.

        None, which is what a definition says that knows no moments, leaves it to `is_complete`.
        """
        return None

    def earlier(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that come before this one, in order, the nearest last.

        Raises:
            DefinitionError: these partitions have no order.
        """
        raise DefinitionError(
            f"{self!r} has no order, so there is no partition before another one. Use partitions by time, a list, "
            "or FunctionMapping(...)."
        )

    def later(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that come after this one, in order, complete or not; inverse of `earlier`.

        Raises:
            DefinitionError: these partitions have no order.
        """
        raise DefinitionError(f"{self!r} has no order, so there is no partition after another one.")

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


def write_partition(definition: PartitionsDefinition | None, key: str) -> str:
    """Return an encoded partition as people read and type it: in tables, logs, errors and suggested commands.

    Args:
        definition: the partitions of the asset; None when it has none, or is not known.
        key: the encoded partition; empty for none.

    Returns:
        What `read_partition` reads back, as long as the definition has the key (a removed one counts).

    Example:
        >>> write_partition(StaticPartitions(["eu", "us"]), "s:eu"), write_partition(None, "")
        ('eu', '')
    """
    if not key:
        return ""
    try:
        value = decode_partition(key)
        return partition_label(value) if definition is None else _own_label(definition.with_removed(), value)
    except PartitionError:
        return key


def read_partition(definition: PartitionsDefinition, text: str) -> Partition:
    """Return the key that a person wrote: its label, or its encoded form, which is never misunderstood.

    Raises:
        UnknownPartitionError: the definition has no such partition.

    Example:
        >>> read_partition(StaticPartitions(["eu", "us"]), "eu"), read_partition(AnyPartitions(), "i:7")
        ('eu', 7)
    """
    try:
        return definition.parse(text)
    except UnknownPartitionError:
        try:
            return definition.validate(decode_partition(text))
        except PartitionError:
            pass
        raise


def _own_label(definition: PartitionsDefinition, value: Partition) -> str:
    try:
        return definition.label(value)
    except PartitionError:  # a key of an earlier declaration
        return partition_label(value)


def ends(definition: PartitionsDefinition | None) -> bool:
    """Whether there may be partitions of a definition that are not complete yet."""
    return definition is not None and not isinstance(definition, ListedPartitions | AnyPartitions)


def is_over(definition: PartitionsDefinition | None, key: str, at: datetime) -> bool:
    """Whether an encoded partition was complete at a moment; what was declared otherwise since counts as complete.

    Example:
        >>> is_over(StaticPartitions(["eu"]), "s:eu", datetime(2024, 1, 1))
        True
    """
    if definition is None or not ends(definition):
        return True
    try:
        value = decode_partition(key)
        end = definition.complete_at(value)
        return end <= at if end is not None else definition.is_complete(value, at)
    except PartitionError:
        return True


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

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Say that it is: what is listed is there."""
        self.validate(key)
        return True

    def earlier(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that stand before this one in the list."""
        return self.until(key, number + 1)[:-1]


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
        given: object = keys
        if not isinstance(given, Iterable):
            raise DefinitionError(f"StaticPartitions({shown(given)}): give a list of keys, such as ['eu', 'us'].")
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
        # 1 and "1" look alike, and so may others, and nobody sees an empty one: then every key goes by its
        # unmistakable encoded form.
        plain = len(labels) == len(self._keys) and "" not in labels
        self._labels: dict[str, Partition] = labels if plain else dict(self._keys)
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

    def later(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that stand behind this one in the list."""
        start = self.position(key) + 1
        return list(islice(self._keys.values(), start, start + number))

    def within(self, other: PartitionsDefinition) -> bool:
        """Whether the other definition has all these keys."""
        return isinstance(other, StaticPartitions) and all(key in other for key in self._keys.values())

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types; keys are encoded."""
        return {"type": "static", "keys": list(self._keys)}

    def __repr__(self) -> str:
        more = f", ... {len(self._keys) - 10:,} more" if len(self._keys) > 10 else ""
        return f"StaticPartitions([{', '.join(map(repr, islice(self._keys.values(), 10)))}{more}])"

    def _hint(self, text: str) -> str:
        shown = ", ".join(islice(self._labels, 10))
        more = f" and {len(self._labels) - 10} more" if len(self._labels) > 10 else ""
        return f"{did_you_mean(text, self._labels)} The partitions are: {shown}{more}.".strip()


_MAX_KEY_BYTES = 2000
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_KINDS: dict[type, str] = {
    bool: "bool",
    int: "int",
    str: "str",
    date: "date",
    datetime: "datetime",
    tuple: "tuple",
}


class AnyPartitions(PartitionsDefinition):
    """Any value that has an exact text is a partition; none has to be declared, none can be listed.

    Where it has to be known which partitions there are (a backfill or a schedule that names none, a condition, an
    asset without partitions that reads all of them) it says so. Partitions that are known beforehand are better
    declared: `DailyPartitions`, `StaticPartitions`, `DynamicPartitions`.

    Args:
        type: only values of this type (`str`, `int`, `bool`, `date`, `datetime`, `tuple`), or of several; None
            for all of them.

    Raises:
        DefinitionError: a type cannot be that of a partition.

    Example:
        >>> anything = AnyPartitions()
        >>> ("us_east", date(2024, 1, 1)) in anything, anything.label("7"), anything.label(7)
        (True, 's:7', '7')
        >>> "eu" in AnyPartitions(date)
        False
    """

    types: tuple[type, ...]

    def __init__(self, type: type | Iterable[type] | None = None) -> None:  # noqa: A002 - what it is about
        several = isinstance(type, Iterable) and not isinstance(type, str)
        given: Iterable[object] = _KINDS if type is None else tuple(type) if several else (type,)  # type: ignore[arg-type]
        unusable = [repr(one) for one in given if one not in _KINDS]
        if unusable or not given:
            raise DefinitionError(
                f"AnyPartitions({type!r}): {', '.join(unusable) or 'nothing'} is not the type of a partition. Use "
                f"{', '.join(_KINDS.values())}, several of these, or nothing for all of them."
            )
        self.types = tuple(kind for kind in _KINDS if kind in given)

    @property
    def listable(self) -> bool:
        """Whether they can be listed: they cannot."""
        return False

    def keys(self, now: datetime) -> Iterator[Partition]:
        """Refuse: any value is a partition, so there is no list of them."""
        self._refuse()

    def validate(self, value: object) -> Partition:
        """Return the value if it has an exact text, and a type that is asked for."""
        if value is None:
            raise UnknownPartitionError(value, hint="None means 'not partitioned'; give a value.")
        text = encode_partition(value)  # type: ignore[arg-type]  # a wrong type is what is being found out
        if type(value) not in self.types:
            hint = f"{self!r} has partitions of type {', '.join(self._names())}, not {type(value).__name__}."
            raise UnknownPartitionError(value, hint=hint)
        if len(text.encode()) > _MAX_KEY_BYTES:
            raise PartitionError(
                f"The partition {text[:60]!r}... takes {len(text.encode()):,} bytes as text. At most "
                f"{_MAX_KEY_BYTES:,} are possible; use a shorter name and keep the rest in the data."
            )
        return value  # type: ignore[return-value]  # it has a text

    def parse(self, text: str) -> Partition:
        """Return the value that was written: its encoded form, a date, a datetime, a number, else text."""
        return self.validate(self._read(text))

    def label(self, value: Partition) -> str:
        """Return the value as people write it; its encoded form where that could mean another value."""
        full = encode_partition(self.validate(value))
        short = partition_label(value)
        # a list on the command line is written with commas
        return short if short and "," not in short and encode_partition(self._read(short)) == full else full

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Refuse: these partitions have no order."""
        self._refuse()

    def last(self, now: datetime) -> Partition | None:
        """Refuse: these partitions have no order."""
        self._refuse()

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Say that it is: nobody knows what it stands for."""
        self.validate(key)
        return True

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types."""
        return {"type": "any", "types": None if len(self.types) == len(_KINDS) else self._names()}

    def _names(self) -> list[str]:
        return [_KINDS[kind] for kind in self.types]

    def _refuse(self) -> NoReturn:
        raise PartitionError(
            f"{self!r}: any value is a partition, so they cannot be listed or ordered. Say which ones are meant: "
            "partition=..., partitions=[...]."
        )

    def _read(self, text: str) -> Partition:
        """Return the first reading of a text that has a type that is asked for."""
        readings = list(_readings(text))
        for value in readings:
            if type(value) in self.types:
                return value
        return readings[0]


def _readings(text: str) -> Iterator[Partition]:
    """Yield what a text that a person wrote may mean, the most exact reading first."""
    try:
        value = decode_partition(text)
        if value is not None:
            yield value
    except PartitionError:
        pass
    if _INTEGER.fullmatch(text) and len(text) < 600 and text != "-0":
        yield int(text)
    if text in ("true", "false"):
        yield text == "true"
    try:
        if (moment := datetime.fromisoformat(text)).tzinfo is not None:
            yield moment
        elif text == moment.date().isoformat():
            yield moment.date()
    except ValueError:
        pass
    if "|" in text:
        yield tuple(next(_readings(part)) for part in text.split("|"))
    yield text


def _encoded_or_empty(value: object) -> str:
    try:
        return encode_partition(value)  # type: ignore[arg-type]  # a wrong type is what is being found out
    except PartitionError:
        return ""
