"""Partitions with several dimensions, such as a day and a region."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from flowstone.core.definition import PartitionsDefinition
from flowstone.core.known_keys import KeySource
from flowstone.core.partition import Partition
from flowstone.errors import DefinitionError, UnknownPartitionError


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
