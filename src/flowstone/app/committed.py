"""Reading what is committed."""

from __future__ import annotations

from typing import Any

from flowstone.app.requests import AssetLike, find_asset, target_of
from flowstone.app.wiring import Parts
from flowstone.core.materialization import Materialization
from flowstone.core.partition import Partition
from flowstone.core.state import State
from flowstone.errors import DependencyNotReadyError


class CommittedValues:
    """The verbs that only read: values, their existence, their history."""

    parts: Parts

    def load(self, asset: AssetLike, *, partition: Partition = None) -> Any:
        """Return the committed value of an asset's partition.

        Raises:
            DependencyNotReadyError: nothing is committed.
            StorageError: the value cannot be read.
        """
        target = target_of(find_asset(self.parts.graph, asset), partition)
        found = self.parts.store.catalog.resolve([("", *target)])[0]
        if found is None:
            raise DependencyNotReadyError(*target, [target])
        return self.parts.values.load(found.stored)

    def exists(self, asset: AssetLike, *, partition: Partition = None) -> bool:
        """Return whether an asset's partition has a committed success."""
        target = target_of(find_asset(self.parts.graph, asset), partition)
        return target in self.parts.store.catalog.current([target])

    def history(self, asset: AssetLike, *, partition: Partition = None, limit: int = 100) -> list[Materialization]:
        """Return the committed materializations of an asset, or of one partition, newest first.

        Args:
            asset: the asset or its name.
            partition: one partition; None for all of them.
            limit: how many at most.
        """
        found = find_asset(self.parts.graph, asset)
        key = None if partition is None else target_of(found, partition)[1]
        records = self.parts.store.catalog.history(found.name, key, state=State.COMPLETED, limit=limit)
        return [self.parts.inline.materialization(record) for record in records]
