"""`flow.lineage`: which exact versions were made from which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.targets import AssetLike, recorded_asset, recorded_target
from flowstone.core.declaring import view
from flowstone.core.output import JsonValue
from flowstone.core.partitions import (
    NO_PARTITION,
    Partition,
    PartitionKey,
    decode_partition,
    encode_partition,
    partition_label,
)
from flowstone.core.step import StepRecord, Target


@dataclass(frozen=True, slots=True)
class Version:
    """One committed version of an asset's partition.

    Args:
        step_id: the step that made it.
        asset: asset name.
        partition: partition value.
        run_id: run that made it.
        data_version: hash of its bytes, when it was encoded.
        code_version: declared version of the code that made it.
        current: whether it is what `load` returns now.
        depth: how many steps away from the version that was asked about.
        reads: the versions (step ids) that it was made from.
        label: its partition as people write it.
    """

    step_id: int
    asset: str
    partition: Partition
    run_id: str
    data_version: str | None
    code_version: str | None
    current: bool
    depth: int
    reads: tuple[int, ...]
    label: str = ""

    @property
    def partition_key(self) -> PartitionKey:
        """Its partition, encoded."""
        return encode_partition(self.partition) if self.partition is not None else NO_PARTITION

    def __str__(self) -> str:
        return f"{self.asset}{f' [{self._label}]' if self.partition is not None else ''} @ {self.step_id}"

    @property
    def _label(self) -> str:
        return self.label or partition_label(self.partition)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the version as plain data."""
        return {
            "step_id": str(self.step_id),
            "asset": self.asset,
            "partition": self._label if self.partition is not None else None,
            "run_id": self.run_id,
            "data_version": self.data_version,
            "code_version": self.code_version,
            "current": self.current,
            "depth": self.depth,
            "reads": [str(one) for one in self.reads],
        }


@view("flow.lineage")
class LineageView:
    """Recorded lineage: what really was read, not what the graph declares.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def a():
        ...     return 1
        >>> @asset
        ... def b(a):
        ...     return a + 1
        >>> flow = FlowStone([a, b])
        >>> done = flow.materialize_all("b")
        >>> [version.asset for version in flow.lineage.upstream("b")]
        ['b', 'a']
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def upstream(
        self, asset: AssetLike, *, partition: Partition = None, depth: int | None = None
    ) -> list[Version]:
        """Return the current version of a partition and everything it was made from, nearest first.

        Args:
            asset: the asset or its name.
            partition: which partition.
            depth: how many steps to go; None for all.

        Returns:
            Versions; empty when nothing is committed.
        """
        return self._walk(asset, partition, depth, downward=False)

    def downstream(
        self, asset: AssetLike, *, partition: Partition = None, depth: int | None = None
    ) -> list[Version]:
        """Return the current version of a partition and every version made from it, nearest first."""
        return self._walk(asset, partition, depth, downward=True)

    def impact(self, asset: AssetLike, *, partition: Partition = None) -> list[Version]:
        """Return what would have to be recomputed if this partition changed: current versions made from it."""
        found = self._walk(asset, partition, None, downward=True)
        return [version for version in found if version.current and version.depth]

    def made_from(self, versions: Iterable[int], *, limit: int = 1000) -> tuple[Version, ...]:
        """Return the versions that were made from some versions, directly or through others, nearest first.

        Args:
            versions: their numbers.
            limit: how many at most.
        """
        catalog = self._parts.store.catalog
        level = list(dict.fromkeys(versions))
        given = set(level)
        found: dict[int, int] = {}
        distance = 0
        while level and len(found) < limit:
            distance += 1
            reached = dict.fromkeys(one for readers in catalog.readers(level).values() for one in readers)
            level = [one for one in reached if one not in given and one not in found]
            found |= dict.fromkeys(level[: limit - len(found)], distance)
        return tuple(self._versions(found))

    def _walk(self, asset: AssetLike, partition: Partition, depth: int | None, *, downward: bool) -> list[Version]:
        catalog = self._parts.store.catalog
        target = recorded_target(recorded_asset(self._parts.graph, catalog, asset), partition, catalog)
        level = list(catalog.current([target]).values())
        steps: dict[int, int] = dict.fromkeys(level, 0)
        distance = 0
        while level and (depth is None or distance < depth):
            distance += 1
            if downward:
                reached = [one for readers in catalog.readers(level).values() for one in readers]
            else:
                reached = [one.step_id for inputs in catalog.inputs(level).values() for one in inputs]
            level = [one for one in dict.fromkeys(reached) if one not in steps]
            steps |= dict.fromkeys(level, distance)
        return self._versions(steps)

    def _versions(self, steps: dict[int, int]) -> list[Version]:
        catalog = self._parts.store.catalog
        records = [record for record in map(catalog.step, steps) if record is not None]
        inputs = catalog.inputs(list(steps))
        current = catalog.current([(record.asset, record.partition_key) for record in records])
        return [
            self._version(record, steps[record.id], current, tuple(i.step_id for i in inputs.get(record.id, ())))
            for record in records
        ]

    def _version(
        self, record: StepRecord, depth: int, current: dict[Target, int], reads: tuple[int, ...]
    ) -> Version:
        return Version(
            step_id=record.id,
            asset=record.asset,
            partition=decode_partition(record.partition_key),
            run_id=record.run_id,
            data_version=record.stored.content_hash if record.stored else None,
            code_version=record.code_version,
            current=current.get((record.asset, record.partition_key)) == record.id,
            depth=depth,
            reads=reads,
            label=self._parts.graph.label(record.asset, record.partition_key) if record.partition_key else "",
        )


class AsyncLineageView(AsyncFlowStone):
    """`flow.aio.lineage`: the verbs of `flow.lineage`, awaitable."""

    upstream = awaitable(LineageView.upstream)
    downstream = awaitable(LineageView.downstream)
    impact = awaitable(LineageView.impact)
    made_from = awaitable(LineageView.made_from)
