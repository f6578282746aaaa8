"""Values of which no bytes are stored: objects as they are, in this process, and references to data elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flowstone.core.output import (
    PLAIN,
    OutputAddress,
    StoredOutput,
    find_read_once,
    make_stored,
    type_name,
    unfenced,
)
from flowstone.core.partitions import PartitionKey
from flowstone.core.published import PUBLISHED, Published
from flowstone.errors import SerializationError, StorageError

_NOTHING = object()


class MemoryIO:
    """Keeps the objects themselves, within this process, without copying or encoding them.

    Nothing is copied: whoever changes a loaded list changes it for all. Values live until they are discarded
    or the manager is gone. Safe and lock-free for threads, because each version is written under its own
    name by one attempt.

    Args:
        name: name under which the app knows it.

    Example:
        >>> memory = MemoryIO()
        >>> address = OutputAddress("numbers", "", "run", 1, attempt=1, token=1)
        >>> memory.load(memory.store([1, 2, 3], address))
        [1, 2, 3]
    """

    def __init__(self, name: str = "memory") -> None:
        self._name = name
        # what is derived from it may encode, or try again
        self.keeps_objects = type(self) is MemoryIO
        self._values: dict[str, object] = {}

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    @property
    def shared(self) -> bool:
        """False: other processes cannot load what this one stored."""
        return False

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Keep `value` under the version of this attempt.

        Raises:
            SerializationError: it is, or holds, something that only its first reader could read.
        """
        found = None if type(value) in PLAIN else find_read_once(value)
        if found is not None:
            place, culprit = found
            raise SerializationError(
                "The value holds something that can be read only once, and every reader gets the same object",
                path=place,
                type_name=type_name(culprit),
                remedy="Return lists instead of generators, iterators and open files.",
            ).for_asset(address.asset, address.partition_key)
        location = address.fenced_version
        self._values[location] = value
        return make_stored(self._name, location, None, None, None, type_name(value))

    def load(self, stored: StoredOutput) -> object:
        """Return the very object that was stored.

        Raises:
            StorageError: it was discarded, or stored by another process.
        """
        try:
            return self._values[stored.location]
        except KeyError:
            raise StorageError(
                "load",
                f"version {stored.location}",
                "",
                f"the IO manager {self._name!r} keeps values in the memory of one process, and this process "
                "does not hold it (it was discarded, or stored by a process that is gone)",
                kind="missing",
                remedy="Materialize it again; to share values between processes use io='filesystem' or "
                "io='postgres'.",
            ) from None

    def discard(self, stored: StoredOutput) -> None:
        """Forget a version."""
        self._values.pop(stored.location, None)

    def find(self, stored: Sequence[StoredOutput]) -> list[bool]:
        """Return which of some values this process holds."""
        return [one.location in self._values for one in stored]

    def erase(self, _asset: str, _partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Forget versions, committed or not; return how many there were."""
        gone = set(versions)
        there = [name for name in list(self._values) if unfenced(name) in gone]
        return sum(self._values.pop(name, _NOTHING) is not _NOTHING for name in there)


class PublishedIO:
    """Keeps what assets return as `Published(...)`, whatever IO manager they name; every app has one.

    Example:
        >>> references = PublishedIO()
        >>> address = OutputAddress("orders", "", "run", 1, attempt=1, token=1)
        >>> stored = references.store(Published("sales.orders", 17), address)
        >>> stored.location, references.load(stored).version
        ('sales.orders@17', '17')
    """

    name = PUBLISHED
    internal = True
    """Nobody may choose it by name."""
    shared = True

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Describe a reference; a version that is named is the data version as well.

        Raises:
            SerializationError: it is something else.
        """
        if not isinstance(value, Published):
            raise SerializationError(
                f'Asset {address.asset!r} has io="{PUBLISHED}", which only knows references',
                path="$",
                type_name=type_name(value),
                remedy="Return Published(location, version), or leave io out.",
            )
        location = str(value)
        digest = None if value.version is None else hashlib.sha256(location.encode()).hexdigest()
        return StoredOutput(
            self.name,
            location,
            content_hash=digest,
            value_type=type_name(value),
            metadata=dict(value.metadata),
        )

    def load(self, stored: StoredOutput) -> Published:
        """Return the reference, with the metadata that was recorded."""
        return Published.parse(stored.location, stored.metadata)

    def discard(self, stored: StoredOutput) -> None:
        """Do nothing: what it refers to belongs to whoever wrote it."""
