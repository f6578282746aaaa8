"""The part of `flow.insights` that is about one asset, one partition, one version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flowstone.app.build import Parts
from flowstone.app.targets import (
    AssetLike,
    read_recorded,
    recorded_asset,
    recorded_target,
    whole_number,
)
from flowstone.core.asset import Asset
from flowstone.core.clean import error_line
from flowstone.core.insights.details import AssetDetail, AssetHistory
from flowstone.core.insights.versions import (
    CheckLine,
    TargetDetail,
    UnpublishedVersion,
    VersionDetail,
    VersionLine,
)
from flowstone.core.paging import Page, clamp_limit
from flowstone.core.partitions import Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.step import Target
from flowstone.engine.automation.evaluation import FactReader
from flowstone.engine.insights.assets import AssetWatch
from flowstone.engine.insights.details import AssetPages
from flowstone.engine.insights.preview import ValuePreview, refusal, written
from flowstone.engine.insights.versions import VersionPages
from flowstone.engine.values import find_values
from flowstone.errors import FlowStoneError, UnknownPartitionError
from flowstone.io.memory import MemoryIO, PublishedIO


class AssetDetails:
    """The questions of the pages of an asset and of a partition; `InsightsView` has them."""

    _parts: Parts
    _watch: AssetWatch

    def _read_details(self, parts: Parts, watch: AssetWatch) -> None:
        """Take what the answers are read from."""
        facts = FactReader(parts.graph, parts.reader, parts.store.target_statuses)
        find = partial(find_values, parts.managers)
        self._versions = VersionPages(parts.graph, parts.store, facts, find, parts.managers)
        checks = parts.checks.declared
        self._details = AssetPages(parts.graph, parts.store, checks, self._versions, watch.summary)

    def asset(self, asset: AssetLike) -> AssetDetail:
        """Return what one asset is declared as, and how it stands; also of one that is declared no more.

        Args:
            asset: the asset or its name.

        Raises:
            UnknownAssetError: nothing is recorded under this name.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def orders(): ...
            >>> flow = FlowStone.for_testing([orders])
            >>> flow.insights.asset("orders").state
            'missing'
        """
        return self._details.detail(self._recorded(asset))

    def asset_history(self, asset: AssetLike, *, limit: int = 50) -> AssetHistory:
        """Return the newest versions of an asset over all partitions, and the numbers that they recorded.

        Args:
            asset: the asset or its name.
            limit: how many versions at most, up to 500.
        """
        return self._details.history(self._recorded(asset).name, limit=clamp_limit(limit))

    def asset_checks(self, asset: AssetLike, *, limit: int = 100) -> Sequence[CheckLine]:
        """Return the newest result of each check of an asset in each partition, failures first."""
        return self._details.checks(self._recorded(asset).name, limit=clamp_limit(limit))

    def target(self, asset: AssetLike, partition: Partition = None) -> TargetDetail:
        """Return how one partition of an asset stands, and why; also of a removed key."""
        return self._versions.target(self._target(asset, partition))

    def unpublished(self, *, limit: int = 50) -> Sequence[UnpublishedVersion]:
        """Return what is committed and not yet visible to readers outside, the oldest first.

        That is so for a moment after a commit, and for as long as a storage does not answer: workers publish it
        with their next commit or sweep, and `flow.retention.publish()` at once.

        Args:
            limit: how many at most.

        Example:
            >>> from flowstone import FlowStone
            >>> FlowStone.for_testing([]).insights.unpublished()
            ()
        """
        return self._versions.unpublished(limit=clamp_limit(limit))

    def versions(
        self, asset: AssetLike, partition: Partition = None, *, limit: int = 50, after: str | None = None
    ) -> Page[VersionLine]:
        """Return the versions of an asset's partition, newest first; see `flow.versions.list`."""
        return self._versions.versions(self._target(asset, partition), limit=limit, after=after)

    def version(self, version: int) -> VersionDetail:
        """Return what a version is made of: the exact versions that it read, and who read it.

        Args:
            version: its number.

        Raises:
            VersionNotFoundError: there is no such version, or no more.
        """
        return self._versions.version(whole_number("version", version, minimum=0, maximum=2**63 - 1))

    def preview(self, version: int) -> ValuePreview:
        """Return what can be shown of the value of a version; for that it is loaded, unless that could run code.

        Args:
            version: its number.

        Raises:
            VersionNotFoundError: there is no such version, or no more.
        """
        found = self._versions.record(whole_number("version", version, minimum=0, maximum=2**63 - 1))
        stored = found.stored
        if stored is None or found.erased_at is not None:
            return ValuePreview(version, "", problem="it was erased")
        manager = self._parts.managers.get(stored.io)
        problem = refusal(stored, in_this_process=isinstance(manager, MemoryIO | PublishedIO))
        if problem:
            return ValuePreview(version, stored.value_type, problem=problem)
        try:
            text, is_cut = written(self._parts.values.load(stored))
        except (FlowStoneError, LookupError, OSError) as error:
            return ValuePreview(
                version, stored.value_type, problem=f"it cannot be loaded: {error_line(str(error))}"
            )
        return ValuePreview(version, stored.value_type, text, is_cut)

    def partition_range(self, asset: AssetLike, first: str, last: str) -> Sequence[PartitionKey]:
        """Return the partitions from one to another in their order, encoded; these are written as people do.

        Of an asset with several dimensions they are two corners: those between them in each dimension are meant,
        as they are seen on a heat map.

        Args:
            asset: the asset or its name.
            first: one end of the range.
            last: the other end; the same for one partition.

        Raises:
            PartitionError: the asset has no such partition, or none.
        """
        found = self._recorded(asset)
        order = self._watch.order(found)
        ends = []
        for text in (first, last or first):
            partition = read_recorded(found, text, self._parts.store.catalog)
            position = order.position(encode_partition(partition))
            if position is None:
                raise UnknownPartitionError(
                    partition, asset=found.name, hint="It is not among those that are listed."
                )
            ends.append(position)
        corners = [decode_partition(order.keys[end]) for end in ends]
        if isinstance(corners[0], tuple) and isinstance(corners[1], tuple):
            return _rectangle(order.keys, corners[0], corners[1])
        return order.keys[min(ends) : max(ends) + 1]

    def _recorded(self, asset: AssetLike) -> Asset:
        return recorded_asset(self._parts.graph, self._parts.store.catalog, asset)

    def _target(self, asset: AssetLike, partition: Partition) -> Target:
        return recorded_target(self._recorded(asset), partition, self._parts.store.catalog)


def _rectangle(
    keys: Sequence[PartitionKey], corner: tuple[Partition, ...], opposite: tuple[Partition, ...]
) -> Sequence[PartitionKey]:
    """Return the keys that lie between two corners in each dimension, dimensions in the order of the keys."""
    cells = [(key, part) for key in keys if isinstance(part := decode_partition(key), tuple)]
    between = []
    for dimension, ends in enumerate(zip(corner, opposite, strict=True)):
        values = list(dict.fromkeys(part[dimension] for _, part in cells))
        first, last = sorted(map(values.index, ends))
        between.append(set(values[first : last + 1]))
    return [key for key, part in cells if all(value in known for value, known in zip(part, between, strict=True))]
