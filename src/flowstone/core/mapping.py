"""What every partition mapping offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING

from flowstone.core.definition import PartitionsDefinition
from flowstone.core.partitions import Partition, encode_partition
from flowstone.errors import UnknownPartitionError


class PartitionMapping(ABC):
    """Which partitions of an upstream asset one partition of a downstream asset reads.

    A definition of None stands for an asset without partitions, whose only key is None.
    """

    many: bool = False
    """True: the asset receives a dict {partition: value}. False: the value of the single partition."""
    earlier: bool = False
    """Whether it leads only to partitions before the one that reads, so that an asset may read itself by it."""

    @abstractmethod
    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the upstream partitions that a downstream partition reads, in order.

        Args:
            key: a key of `downstream`.
            downstream: the partitions of the asset that reads.
            upstream: the partitions of the asset that is read.
            now: the present, as an aware datetime; used where "all so far" is meant.

        Raises:
            UnknownPartitionError: `key` is no key, or what it reads does not exist upstream.
        """

    @abstractmethod
    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check, when the app is loaded, that the mapping can work between two definitions.

        Raises:
            DefinitionError: it cannot, and what to use instead.
        """

    def downstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the downstream partitions that read an upstream partition; the inverse of `upstream`.

        It is exact for the downstream partitions that are complete at `now`. Later ones are included only
        where a mapping has finitely many of them.

        Args:
            key: a key of `upstream`.
            downstream: the partitions of the asset that reads.
            upstream: the partitions of the asset that is read.
            now: the present, as an aware datetime.

        Raises:
            UnknownPartitionError: `key` is no key of `upstream`.
        """
        requested = encode_partition(check_key(key, upstream))
        found = []
        for reader in complete_keys(downstream, now):
            try:
                read = self.upstream(reader, downstream=downstream, upstream=upstream, now=now)
            except UnknownPartitionError:
                continue
            if contains(read, requested):
                found.append(reader)
        return found


def check_key(key: Partition, definition: PartitionsDefinition | None) -> Partition:
    """Return the key as its definition knows it.

    Raises:
        UnknownPartitionError: it is no key of the definition.

    Example:
        >>> from flowstone.core.definition import StaticPartitions
        >>> check_key("eu", StaticPartitions(["eu", "us"]))
        'eu'
    """
    if definition is not None:
        return definition.validate(key)
    if key is not None:
        raise UnknownPartitionError(key, hint="The asset is not partitioned: leave the partition out.")
    return None


def complete_keys(definition: PartitionsDefinition | None, now: datetime) -> Iterator[Partition]:
    """Yield the keys that are complete at `now`; for an asset without partitions that is None.

    Example:
        >>> from datetime import UTC
        >>> list(complete_keys(None, datetime(2024, 1, 1, tzinfo=UTC)))
        [None]
    """
    return iter([None]) if definition is None else definition.keys(now)


def contains(keys: Iterable[Partition], encoded: str) -> bool:
    """Whether one of the keys has this encoding; `==` would take True for 1.

    Example:
        >>> contains([1, 2], encode_partition(True))
        False
    """
    return any(encode_partition(key) == encoded for key in keys)


if not TYPE_CHECKING:  # version 0.1 had `default_mapping` and the mappings here

    def __getattr__(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("flowstone.core.mappings"), name)
