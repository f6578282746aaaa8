"""`flow.partitions`: the keys of dynamic partitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.core.declaring import view
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.partitions import KeyChange, Partition, decode_partition
from flowstone.core.partitions_by_key import DynamicPartitions, MultiPartitions, encode_key
from flowstone.errors import OptionsError, PartitionError, did_you_mean

type Definition = str | DynamicPartitions


@view("flow.partitions")
class PartitionKeysView:
    """Adds and removes keys of dynamic partitions, lists them and their history.

    Example:
        >>> from flowstone import DynamicPartitions, FlowStone, asset
        >>> @asset(partitions=DynamicPartitions("customers"))
        ... def invoices(context):
        ...     return context.partition
        >>> flow = FlowStone([invoices])
        >>> flow.partitions.add("customers", ["acme", "globex"], by="ann")
        ['acme', 'globex']
        >>> flow.partitions.remove("customers", ["acme"], by="bob", reason="left us")
        ['acme']
        >>> flow.partitions.list("customers")
        ['globex']
        >>> [(change.partition, change.removed, change.by) for change in flow.partitions.history("customers")]
        [('acme', True, 'bob'), ('globex', False, 'ann'), ('acme', False, 'ann')]
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._definitions = {one.name: one for asset in parts.graph for one in dynamic_in(asset.partitions)}

    def names(self) -> tuple[str, ...]:
        """Return the names of the dynamic partitions that assets of this app have, sorted."""
        return tuple(sorted(self._definitions))

    def definition(self, name: Definition) -> DynamicPartitions:
        """Return a definition with its keys in this app's store.

        Raises:
            PartitionError: no asset has it; suggests the closest name.
        """
        requested = name.name if isinstance(name, DynamicPartitions) else name
        given: object = requested
        found = self._definitions.get(requested) if isinstance(given, str) else None
        if found is None:
            close = did_you_mean(str(given)[:200], self._definitions)
            known = f"There are: {', '.join(self.names())}." if self._definitions else "No asset has any."
            raise PartitionError(f"There are no dynamic partitions named {requested!r}.{close} {known}")
        return found

    def list(self, name: Definition) -> Sequence[Partition]:
        """Return the keys in the order of their addition."""
        definition = self.definition(name)
        self._parts.keys.known(definition.name, fresh=True)
        return [*definition.keys(datetime.now(UTC))]

    def add(
        self, name: Definition, keys: Iterable[Partition], *, by: str | None = None, reason: str | None = None
    ) -> Sequence[Partition]:
        """Add keys: assets with these partitions can be computed for them from now on, on every worker.

        Args:
            name: the definition or its name.
            keys: ordinary partition values; those that are there already are left as they are.
            by: who does it, for the history.
            reason: why, for the history.

        Returns:
            Those that are new, in the order given.

        Raises:
            PartitionError: there is no such definition, or a key cannot be used; nothing was added.
        """
        definition = self.definition(name).name
        encoded = _encoded(definition, keys)
        added = self._parts.store.partition_keys.add(definition, encoded, by=by, reason=reason)
        self._parts.keys.known(definition, fresh=True)
        return [decode_partition(key) for key in added]

    def remove(
        self, name: Definition, keys: Iterable[Partition], *, by: str | None = None, reason: str | None = None
    ) -> Sequence[Partition]:
        """Remove keys: nothing more is computed for them, what is committed stays and can be read.

        Steps that are placed already go on. Other processes refuse new requests within about a second.

        Args:
            name: the definition or its name.
            keys: partition values; those that are not there are left out.
            by: who does it, for the history.
            reason: why, for the history.

        Returns:
            Those that were removed.

        Raises:
            PartitionError: there is no such definition, or a key cannot be one.
        """
        definition = self.definition(name).name
        encoded = _encoded(definition, keys)
        removed = self._parts.store.partition_keys.remove(definition, encoded, by=by, reason=reason)
        self._parts.keys.known(definition, fresh=True)
        return [decode_partition(key) for key in removed]

    def history(self, name: Definition, key: Partition = None, *, limit: int = 100) -> Sequence[KeyChange]:
        """Return the newest changes first: who added or removed which key when.

        Args:
            name: the definition or its name.
            key: one key; None for all.
            limit: how many at most.

        Raises:
            PartitionError: there is no such definition.
            OptionsError: the limit is less than 1.
        """
        if limit < 1:
            raise OptionsError(f"limit={limit!r}: give at least 1.")
        definition = self.definition(name).name
        encoded = None if key is None else encode_key(definition, key)
        return self._parts.store.partition_keys.history(definition, encoded, limit=limit)


class AsyncPartitionKeysView(AsyncFlowStone):
    """`flow.aio.partitions`: the verbs of `flow.partitions`, awaitable."""

    names = awaitable(PartitionKeysView.names)
    definition = awaitable(PartitionKeysView.definition)
    list = awaitable(PartitionKeysView.list)
    add = awaitable(PartitionKeysView.add)
    remove = awaitable(PartitionKeysView.remove)
    history = awaitable(PartitionKeysView.history)


def dynamic_in(definition: PartitionsDefinition | None) -> Iterator[DynamicPartitions]:
    """Yield the dynamic partitions that a definition is, or has as dimensions.

    Example:
        >>> [one.name for one in dynamic_in(MultiPartitions(customer=DynamicPartitions("customers")))]
        ['customers']
    """
    if isinstance(definition, DynamicPartitions):
        yield definition
    elif isinstance(definition, MultiPartitions):
        for dimension in definition.dimensions.values():
            yield from dynamic_in(dimension)


def _encoded(definition: str, keys: Iterable[Partition]) -> list[str]:
    if isinstance(keys, str):
        raise PartitionError(f"keys={keys!r} is one key; pass a list: [{keys!r}].")
    return [encode_key(definition, key) for key in keys]
