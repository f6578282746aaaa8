"""Values kept as the objects they are, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.core.output import PLAIN, OutputAddress, StoredOutput, find_read_once, type_name
from flowstone.core.partitions import PartitionKey
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
        location = address.version
        self._values[location] = value
        return StoredOutput(self._name, location, value_type=type_name(value))

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
        there = [version for version in versions if self._values.pop(version, _NOTHING) is not _NOTHING]
        return len(there)
