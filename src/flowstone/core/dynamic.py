"""Partitions whose keys are added and removed while the app runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from flowstone.core.definition import ListedPartitions, PartitionsDefinition, reversed_range
from flowstone.core.known_keys import KeySource, KnownKeys
from flowstone.core.partition import Partition, encode_partition
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
