"""Partitions by key: those that are added while the app runs, and products of several dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from flowstone.core.definition import ListedPartitions, PartitionsDefinition, reversed_range
from flowstone.core.partitions import KeySource, KnownKeys, Partition, encode_partition
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError, did_you_mean

_MAX_NAME = 100
_MAX_KEY_BYTES = 2000
_FEW = 1000


class DynamicPartitions(ListedPartitions):
    """Partitions whose keys are added and removed at run time, and kept by the app's store.

    Two definitions of one name are equal and have the same keys in one store. A declared definition holds no
    keys: the app puts a bound copy in its place. Keys come in the order in which they were added.

    Args:
        name: what the keys are kept under: 1 to 100 printable characters.

    Raises:
        DefinitionError: the name cannot be used.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> customers = DynamicPartitions("customers")
        >>> @asset(partitions=customers)
        ... def invoices(context):
        ...     return f"invoices of {context.partition}"
        >>> flow = FlowStone([invoices])
        >>> flow.partitions.add("customers", ["acme", "globex"])
        ['acme', 'globex']
        >>> flow.materialize("invoices", partition="acme").value
        'invoices of acme'
    """

    def __init__(self, name: str) -> None:
        if not _is_name(name):
            raise DefinitionError(
                f"DynamicPartitions({name!r}): give a name of 1 to {_MAX_NAME} printable characters, such as "
                "DynamicPartitions('customers'). Keys are added with flow.partitions.add(name, [...])."
            )
        self.name = name
        self._source: KeySource | None = None
        self._also_removed = False

    def bound(self, source: KeySource) -> DynamicPartitions:
        """Return this definition with its keys from `source`."""
        return self._copy(source, also_removed=self._also_removed)

    def with_removed(self) -> DynamicPartitions:
        """Return this definition accepting removed keys too; `keys` and `last` still leave them out."""
        return self._copy(self._source, also_removed=True)

    def keys(self, now: datetime) -> Iterator[Partition]:
        """Yield all keys in the order of their addition; they are always complete."""
        return iter(self._known().active.values())

    def validate(self, value: object) -> Partition:
        """Return the value if it is one of the keys; asks the store again before it says no."""
        key = _encoded_or_empty(value)
        return self._certain(lambda known: known.find(key, also_removed=self._also_removed), value)

    def parse(self, text: str) -> Partition:
        """Return the key with this label, or with this encoded form."""

        def find(known: KnownKeys) -> Partition | None:
            return known.find(known.by_label.get(text, text), also_removed=self._also_removed)

        return self._certain(find, text)

    def label(self, value: Partition) -> str:
        """Return the key as people write it."""
        key = encode_partition(self.validate(value))
        return self._known().labels.get(key, key)

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Yield the keys from `start` to `end` in the order of their addition."""
        bounds = [None if one is None else encode_partition(self.validate(one)) for one in (start, end)]
        known = self._known()
        low = 0 if bounds[0] is None else known.positions[bounds[0]]
        high = known.revision if bounds[1] is None else known.positions[bounds[1]]
        if low > high:
            raise reversed_range(self.label(start), self.label(end))
        return iter(known.span(low, high))

    def last(self, now: datetime) -> Partition | None:
        """Return the key that was added last, None if there is none."""
        return next(reversed(self._known().active.values()), None)  # type: ignore[call-overload]

    def until(self, value: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that end with this one; None stands for the last one."""
        if value is None:
            return list(self._known().active.values())[-number:]
        key = encode_partition(self.validate(value))
        return self._known().until(key, number)

    def later(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys that were added after this one."""
        position = self._known().positions[encode_partition(self.validate(key))]
        return self._known().span(position + 1, self._known().revision)[:number]

    def within(self, other: PartitionsDefinition) -> bool:
        """Whether the other definition has all these keys: only the same one surely does."""
        return self == other

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types; its keys are not part of it."""
        return {"type": "dynamic", "name": self.name}

    # --- pieces -------------------------------------------------------------------------------------------

    def _copy(self, source: KeySource | None, *, also_removed: bool) -> DynamicPartitions:
        copy = DynamicPartitions(self.name)
        copy._source, copy._also_removed = source, also_removed
        return copy

    def _known(self, *, fresh: bool = False) -> KnownKeys:
        if self._source is None:
            raise DefinitionError(
                f"{self!r} is a declaration and holds no keys: the store of an app does. Ask the app: "
                f"flow.partitions.list({self.name!r}), or flow.graph['asset'].partitions."
            )
        return self._source.known(self.name, fresh=fresh)

    def _certain(self, find: Callable[[KnownKeys], Partition | None], value: object) -> Partition:
        found = find(self._known())
        if found is None:
            known = self._known(fresh=True)
            found = find(known)
            if found is None:
                raise UnknownPartitionError(value, hint=self._hint(value, known))
        return found

    def _hint(self, value: object, known: KnownKeys) -> str:
        text = str(value)
        add = f"flow.partitions.add({self.name!r}, [...])"
        if _encoded_or_empty(value) in known.removed or known.by_label.get(text, text) in known.removed:
            return (
                f"It was removed from {self!r}: what is committed of it can be read, but no more is computed. Add "
                f"it again with {add}."
            )
        close = (
            did_you_mean(text, map(known.labels.__getitem__, known.active)) if len(known.active) <= _FEW else ""
        )
        number = f"{len(known.active):,} keys" if known.active else "no keys yet"
        return f"{close} {self!r} has {number}; add it with {add}.".strip()


def encode_key(definition: str, value: object) -> str:
    """Return the encoded form of a value that is to become a key.

    Args:
        definition: name of the definition, for messages.
        value: the key.

    Raises:
        PartitionError: it cannot be a partition, means "not partitioned", or is too long.

    Example:
        >>> encode_key("customers", "acme")
        's:acme'
    """
    if value is None:
        raise PartitionError(f"None cannot be a key of {definition!r}: it means 'not partitioned'.")
    key = encode_partition(value)  # type: ignore[arg-type]  # a wrong type is what is being found out
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise PartitionError(
            f"A key of {definition!r} takes {len(key.encode()):,} bytes as text: {key[:60]!r}... "
            f"At most {_MAX_KEY_BYTES:,} are possible; use a shorter name and keep the rest in the data."
        )
    return key


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name.strip()) and name.isprintable() and len(name) <= _MAX_NAME


def _encoded_or_empty(value: object) -> str:
    try:
        return encode_partition(value)  # type: ignore[arg-type]  # a wrong type is what is being found out
    except PartitionError:
        return ""


class MultiPartitions(PartitionsDefinition):
    """Several dimensions at once: a key is a tuple with one value per dimension, in the declared order.

    Args:
        dimensions: the definition of each dimension by its name.

    Raises:
        DefinitionError: there is no dimension, or one is not a definition.

    Example:
        >>> from flowstone.core.definition import StaticPartitions
        >>> grid = MultiPartitions(region=StaticPartitions(["eu", "us"]), tier=StaticPartitions([1, 2]))
        >>> grid.parse("us|2"), grid.validate({"tier": 1, "region": "eu"})
        (('us', 2), ('eu', 1))
    """

    def __init__(self, **dimensions: PartitionsDefinition) -> None:
        if not dimensions:
            raise DefinitionError("MultiPartitions needs dimensions, such as MultiPartitions(region=...).")
        for name, definition in dimensions.items():
            if not isinstance(definition, PartitionsDefinition):
                raise DefinitionError(
                    f"The dimension {name!r} of MultiPartitions is {definition!r}; "
                    "give it a definition such as StaticPartitions([...])."
                )
        self.dimensions: Mapping[str, PartitionsDefinition] = dict(dimensions)

    def bound(self, source: KeySource) -> PartitionsDefinition:
        """Return this definition with the dimensions bound; itself if none has keys in a store."""
        return self._with({name: one.bound(source) for name, one in self.dimensions.items()})

    def with_removed(self) -> PartitionsDefinition:
        """Return this definition accepting keys with removed parts."""
        return self._with({name: one.with_removed() for name, one in self.dimensions.items()})

    def keys(self, now: datetime) -> Iterator[Partition]:
        """Yield every combination of complete keys; the last dimension varies fastest."""
        return product([lambda d=d: d.keys(now) for d in self.dimensions.values()])  # type: ignore[misc]

    def validate(self, value: object) -> tuple[Partition, ...]:
        """Return the value as a key: from a tuple, from a mapping by dimension name, or from its label."""
        if isinstance(value, str):
            return self.parse(value)
        if isinstance(value, Mapping) and set(value) == set(self.dimensions):
            value = tuple(value[name] for name in self.dimensions)
        if type(value) is not tuple or len(value) != len(self.dimensions):
            raise UnknownPartitionError(value, hint=self._hint())
        return self._each(value, lambda definition, part: definition.validate(part))

    def parse(self, text: str) -> tuple[Partition, ...]:
        r"""Return the key written as labels with `|` between them (`\|` for a bar within one)."""
        parts = [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _split(text)]
        if len(parts) != len(self.dimensions):
            raise UnknownPartitionError(text, hint=self._hint())
        return self._each(parts, lambda definition, part: definition.parse(part))

    def label(self, value: Partition) -> str:
        """Return the labels of the dimensions with `|` between them."""
        parts = zip(self.dimensions.values(), self.validate(value), strict=True)
        return "|".join(re.sub(r"([\\|])", r"\\\1", definition.label(part)) for definition, part in parts)

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Yield the keys whose every dimension lies between that of `start` and that of `end`."""
        unset = (None,) * len(self.dimensions)
        low = unset if start is None else self.validate(start)
        high = unset if end is None else self.validate(end)
        ranges = list(zip(self.dimensions.values(), low, high, strict=True))
        for definition, first, last in ranges:  # a reversed range is an error now, not at the first key
            definition.between(first, last, now)
        return product([lambda d=d, a=a, b=b: d.between(a, b, now) for d, a, b in ranges])  # type: ignore[misc]

    def last(self, now: datetime) -> Partition | None:
        """Return the last complete key of every dimension, or None if one of them has none."""
        parts = tuple(definition.last(now) for definition in self.dimensions.values())
        return None if None in parts else parts

    @property
    def listable(self) -> bool:
        """Whether every dimension is."""
        return all(definition.listable for definition in self.dimensions.values())

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Whether the part of every dimension is complete."""
        parts = zip(self.dimensions.values(), self.validate(key), strict=True)
        return all(definition.is_complete(part, now) for definition, part in parts)

    def complete_at(self, key: Partition) -> datetime | None:
        """Return when the part that is over last is over; None if no dimension has such moments."""
        parts = zip(self.dimensions.values(), self.validate(key), strict=True)
        moments = [definition.complete_at(part) for definition, part in parts]
        return max((moment for moment in moments if moment is not None), default=None)

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types; dimensions are a list because their order counts."""
        dimensions = [{"name": name, **definition.to_json()} for name, definition in self.dimensions.items()]
        return {"type": "multi", "dimensions": dimensions}

    def _with(self, dimensions: Mapping[str, PartitionsDefinition]) -> MultiPartitions:
        unchanged = all(one is self.dimensions[name] for name, one in dimensions.items())
        return self if unchanged else MultiPartitions(**dimensions)

    def _each[T](
        self, parts: Sequence[T], convert: Callable[[PartitionsDefinition, T], Partition]
    ) -> tuple[Partition, ...]:
        key: list[Partition] = []
        for (name, definition), part in zip(self.dimensions.items(), parts, strict=True):
            try:
                key.append(convert(definition, part))
            except UnknownPartitionError as error:
                raise UnknownPartitionError(tuple(parts), hint=f"In dimension {name!r}: {error}") from error
        return tuple(key)

    def _hint(self) -> str:
        names = tuple(self.dimensions)
        return f"A key is a tuple ({', '.join(names)}), written {'|'.join(names)!r} as text."


def product(dimensions: Sequence[Callable[[], Iterator[Partition]]]) -> Iterator[tuple[Partition, ...]]:
    """Yield every combination, the last dimension fastest; lazily, where itertools.product holds all keys.

    Args:
        dimensions: for each dimension a function that begins a new pass over its keys.

    Example:
        >>> list(product([lambda: iter("ab"), lambda: iter([1])]))
        [('a', 1), ('b', 1)]
    """
    if not dimensions:
        yield ()
        return
    for head in dimensions[0]():
        for tail in product(dimensions[1:]):
            yield (head, *tail)


def _split(text: str) -> list[str]:
    """Split at every bar that has no backslash before it."""
    return re.findall(r"(?:^|\|)((?:[^\\|]|\\.)*)", text, flags=re.DOTALL)
