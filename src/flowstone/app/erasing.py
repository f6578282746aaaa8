"""Erasing a partition for good.

The order is the point of it: what is recorded goes first, in one transaction, with the version out of use, so that
nobody reads it any more and the fact is in the audit log; then the values, page by page, with where they lay
forgotten behind them. A process that dies in between leaves what the next call needs to go on.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowstone.app.build import Parts
from flowstone.app.lineage import LineageView, Version
from flowstone.app.targets import recorded_asset, recorded_target
from flowstone.core.asset import Asset
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import Partition, PartitionKey, decode_partition
from flowstone.core.partitions_by_key import MultiPartitions
from flowstone.core.published import PUBLISHED
from flowstone.core.selection import Selection, select
from flowstone.core.step import Target
from flowstone.core.version import ErasableValue
from flowstone.engine.values import find_values
from flowstone.errors import PartitionError, UnknownPartitionError
from flowstone.protocols import ErasableIO

log = logging.getLogger("flowstone")

_PAGE = 1000
_MAX_DOWNSTREAM = 1000
_MAX_VERSIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What `erase` did, or would do.

    Args:
        targets: asset and encoded partition of what was erased.
        steps: number of steps of which only the fact is left, items of scatters included.
        values: number of values that were stored.
        size_bytes: their size, as far as it is known.
        attempts, checks, approvals, items, logs: number of records whose texts and data are gone.
        earlier: number of those steps that were erased before.
        downstream: versions that were made from what was erased, and are as they were: yours to judge. At most a
            thousand.
        more_downstream: whether there are more.
        out_of_reach: for each name of an IO manager, the number of values that could not be deleted, because this
            app does not declare it, it failed, or it keeps values in the memory of another process. Erase again
            where it can be reached.
        elsewhere: references that assets published (`Published`): what they refer to is not FlowStone's, and still
            there; yours to delete. Named once, by the call that erases them.
        left_out: selected assets that have no such partition.
        dry_run: whether nothing was changed.
    """

    targets: tuple[Target, ...]
    steps: int = 0
    values: int = 0
    size_bytes: int = 0
    attempts: int = 0
    checks: int = 0
    approvals: int = 0
    items: int = 0
    logs: int = 0
    earlier: int = 0
    downstream: tuple[Version, ...] = ()
    more_downstream: bool = False
    out_of_reach: Mapping[str, int] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be deleted."""
        return not self.out_of_reach and not self.dry_run


class Eraser:
    """Erases targets.

    Args:
        parts: of the app.
        lineage: knows what was made from a version.
    """

    def __init__(self, parts: Parts, lineage: LineageView) -> None:
        self._parts = parts
        self._lineage = lineage
        self._store = parts.store

    def erase(
        self,
        selection: Selection,
        *,
        partitions: Sequence[Partition],
        reason: str | None,
        by: str | None,
        dry_run: bool,
    ) -> Erased:
        """See `VersionsView.erase`."""
        targets, left_out = self._targets(selection, partitions)
        versions = self._store.versions
        counts = versions.erase_counts(targets)
        out_of_reach: Counter[str] = Counter()
        elsewhere: dict[str, None] = {}
        if not dry_run:
            versions.erase(targets, by=by, reason=reason)
            out_of_reach = self._delete_values(targets, elsewhere)
        downstream = self._downstream(targets)
        return Erased(
            targets=tuple(targets),
            steps=counts.steps,
            values=counts.values,
            size_bytes=counts.size_bytes,
            attempts=counts.attempts,
            checks=counts.checks,
            approvals=counts.approvals,
            items=counts.items,
            logs=counts.logs,
            earlier=counts.erased,
            downstream=downstream[:_MAX_DOWNSTREAM],
            more_downstream=len(downstream) > _MAX_DOWNSTREAM,
            out_of_reach=dict(out_of_reach),
            elsewhere=tuple(elsewhere),
            left_out=left_out,
            dry_run=dry_run,
        )

    # --- which targets ------------------------------------------------------------------------------------

    def _targets(
        self, selection: Selection, partitions: Sequence[Partition]
    ) -> tuple[list[Target], tuple[str, ...]]:
        """Return what is meant, earlier names of assets included, and the assets that have no such partition."""
        assets = self._assets(selection)
        found: dict[Target, None] = {}
        left_out: list[str] = []
        problem: PartitionError | None = None
        for one in assets:
            try:
                own = [target for part in partitions for target in self._targets_of(one, part)]
            except PartitionError as error:
                problem = problem or error
                left_out.append(one.name)
                continue
            found |= dict.fromkeys(own)
            found |= dict.fromkeys((name, key) for name in one.renamed_from for _, key in own)
        if problem is not None and not found:
            raise problem
        return list(found), tuple(left_out)

    def _assets(self, selection: Selection) -> list[Asset]:
        graph, catalog = self._parts.graph, self._store.catalog
        if isinstance(selection, str | Asset):
            name = selection if isinstance(selection, str) else selection.name
            if name in graph or catalog.history(name, None, limit=1):
                return [recorded_asset(graph, catalog, selection)]
            return [graph[one] for one in select(graph, selection)]
        given: object = selection
        if not isinstance(given, Iterable):
            return [graph[one] for one in select(graph, selection)]  # which says what is wrong with it
        found = [one for part in list(selection) for one in self._assets(part)]
        return list({one.name: one for one in found}.values()) or [graph[one] for one in select(graph, ())]

    def _targets_of(self, asset: Asset, partition: Partition) -> list[Target]:
        """Return the targets of one asset.

        Raises:
            PartitionError: it has no such partition, and never had.
        """
        given: object = partition
        if isinstance(asset.partitions, MultiPartitions) and isinstance(given, Mapping):
            names = list(asset.partitions.dimensions)
            if given and set(given) < set(names):
                return self._of_dimensions(asset, asset.partitions, given)
        return [recorded_target(asset, partition, self._store.catalog)]

    def _of_dimensions(
        self, asset: Asset, definition: MultiPartitions, given: Mapping[str, Partition]
    ) -> list[Target]:
        """Return everything that is recorded of an asset with these values in some of its dimensions."""
        values: dict[int, Partition] = {}
        for position, (name, dimension) in enumerate(definition.dimensions.items()):
            if name in given:
                try:
                    values[position] = dimension.with_removed().validate(given[name])
                except UnknownPartitionError:
                    values[position] = given[name]
        found: list[Target] = []
        after: PartitionKey | None = None
        while keys := self._store.versions.partitions(asset.name, after=after, limit=_PAGE):
            after = keys[-1]
            for key in keys:
                value = decode_partition(key)
                if not isinstance(value, tuple) or len(value) != len(definition.dimensions):
                    continue
                if all(value[position] == one for position, one in values.items()):
                    found.append((asset.name, key))
        if not found:
            raise UnknownPartitionError(dict(given), asset=asset.name, hint="Nothing is recorded of it.")
        return found

    # --- values -------------------------------------------------------------------------------------------

    def _delete_values(self, targets: Sequence[Target], elsewhere: dict[str, None]) -> Counter[str]:
        """Delete what erased steps stored; return how many could not be, by the name of their IO manager.

        References to what lies elsewhere are added to `elsewhere`.
        """
        versions, after = self._store.versions, 0
        out_of_reach: Counter[str] = Counter()
        while page := versions.erased_values(targets, after=after, limit=_PAGE):
            after = page[-1].step_id
            gone = [
                one.step_id for one in page if one.stored is not None and self._delete(one.stored, out_of_reach)
            ]
            elsewhere |= {one.stored.location: None for one in page if one.stored and one.stored.io == PUBLISHED}
            self._delete_leftovers(page, out_of_reach)
            # lines are written a moment after the commit: those that came meanwhile
            self._store.logs.forget([one.step_id for one in page])
            if gone:
                versions.forget_values(gone)
        return out_of_reach

    def _delete(self, stored: StoredOutput, out_of_reach: Counter[str]) -> bool:
        """Delete a value that was committed; return whether that is done."""
        manager = self._parts.managers.get(stored.io)
        if manager is None:
            out_of_reach[stored.io] += 1
            return False
        try:
            is_alone = self._store.shared and not manager.shared
            if is_alone and find_values({stored.io: manager}, [stored]) == [False]:
                out_of_reach[stored.io] += 1  # it lies in the memory of another process, and ends with that
            manager.discard(stored)
        except Exception as error:  # noqa: BLE001 - the others are deleted all the same, and the next call tries again
            if not out_of_reach[stored.io]:
                log.warning("A value of the IO manager %r cannot be deleted: %s", stored.io, error)
            out_of_reach[stored.io] += 1
            return False
        return True

    def _delete_leftovers(self, page: Sequence[ErasableValue], out_of_reach: Counter[str]) -> None:
        """Delete what attempts stored that never committed it, wherever they may have."""
        names: defaultdict[Target, list[str]] = defaultdict(list)
        for one in page:
            names[one.asset, one.partition_key] += one.versions
        for io, manager in self._parts.managers.items():
            if not isinstance(manager, ErasableIO):
                continue
            for (asset, key), versions in names.items():
                try:
                    manager.erase(asset, key, versions)
                except Exception as error:  # noqa: BLE001 - see above
                    if not out_of_reach[io]:
                        log.warning("Values of the IO manager %r cannot be deleted: %s", io, error)
                    out_of_reach[io] += 1

    # --- what was made from it ----------------------------------------------------------------------------

    def _downstream(self, targets: Sequence[Target]) -> tuple[Version, ...]:
        steps = [
            record.step_id
            for target in targets
            for record in self._store.versions.page(target, limit=_MAX_VERSIONS)
        ]
        own = set(targets)
        found = self._lineage.made_from(steps, limit=_MAX_DOWNSTREAM + len(steps) + 1)
        return tuple(one for one in found if (one.asset, one.partition_key) not in own)
