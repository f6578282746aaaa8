"""Reading what is committed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, overload

from flowstone.app.build import Parts
from flowstone.app.conditions import ConditionsView
from flowstone.app.targets import (
    AssetLike,
    all_targets,
    find_asset,
    recorded_asset,
    recorded_target,
    several,
    was_removed,
    whole_number,
)
from flowstone.app.version_choice import AnyRun, AnyVersion, Choice
from flowstone.core.asset import Asset
from flowstone.core.clean import error_line
from flowstone.core.generic import Value
from flowstone.core.materialization import Materialization
from flowstone.core.partitions import Partition
from flowstone.core.state import State
from flowstone.core.step import StepRecord, Target
from flowstone.core.zones import utc_text
from flowstone.errors import command

_EVERY = 1_000_000


class CommittedValues:
    """The verbs that only read: values, their existence, their history.

    They take the names of assets that are declared no more, as long as there is something recorded of these.
    """

    parts: Parts
    conditions: ConditionsView

    @property
    def _choice(self) -> Choice:
        return Choice(self.parts)

    def _recorded(self, asset: AssetLike) -> Asset:
        """Return an asset, also one that is declared no more."""
        return recorded_asset(self.parts.graph, self.parts.store.catalog, asset)

    @overload
    def load(
        self,
        asset: Asset[..., Value],
        *,
        partition: Partition = None,
        version: AnyVersion | None = None,
        as_of: datetime | None = None,
        run: AnyRun | None = None,
    ) -> Value: ...
    @overload
    def load(
        self,
        asset: str,
        *,
        partition: Partition = None,
        version: AnyVersion | None = None,
        as_of: datetime | None = None,
        run: AnyRun | None = None,
    ) -> Any: ...
    def load(
        self,
        asset: AssetLike,
        *,
        partition: Partition = None,
        version: AnyVersion | None = None,
        as_of: datetime | None = None,
        run: AnyRun | None = None,
    ) -> Any:
        """Return the committed value of an asset's partition: the one in use, or an earlier one.

        Args:
            asset: the asset or its name.
            partition: which partition; with `version` that of the version when it is left out.
            version: exactly this one: its number, or what another verb returned; see `flow.versions.list`.
            as_of: the one that was in use at this time, which has a time zone.
            run: the one that this run produced or reused.

        Raises:
            NotMaterializedError: nothing is committed; a `DependencyNotReadyError` that says so.
            ValueErasedError: it was erased; a `NotMaterializedError`.
            VersionNotFoundError: there is no such version.
            StorageError: the value cannot be read.
        """
        found_asset = self._recorded(asset)
        if version is not None or as_of is not None or run is not None:
            chosen = self._choice.choose(found_asset, partition, version=version, as_of=as_of, run=run)
            return self.parts.values.load(chosen)
        target = recorded_target(found_asset, partition, self.parts.store.catalog)
        found = self.parts.store.catalog.resolve([("", *target)])[0]
        if found is None:
            self._choice.refuse_erased(target)
            newest = self.parts.store.catalog.history(*target, limit=1)
            last = f"its newest step is {newest[0].state.value}" if newest else "it was never asked for"
            raise self.parts.graph.not_materialized(target, datetime.now(UTC), last)
        return self.parts.values.load(found.stored)

    def exists(self, asset: AssetLike, *, partition: Partition = None) -> bool:
        """Return whether an asset's partition has a committed success."""
        target = recorded_target(self._recorded(asset), partition, self.parts.store.catalog)
        return target in self.parts.store.catalog.current([target])

    def invalidate(self, asset: AssetLike, *, partitions: Iterable[Partition] | None = None) -> int:
        """Take committed versions out of use, so that the next request computes them again.

        Nothing is deleted: history and lineage keep the records, and retention prunes them later.

        Args:
            asset: the asset or its name.
            partitions: which partitions; None for the asset without partitions, or all complete ones.

        Returns:
            How many versions were in use.
        """
        found = self._recorded(asset)
        if partitions is None and found.name not in self.parts.graph:
            records = self.parts.store.catalog.history(found.name, None, state=State.COMPLETED, limit=_EVERY)
            targets = list(dict.fromkeys((record.asset, record.partition_key) for record in records))
        elif partitions is None:
            targets = all_targets(self.parts.graph, [found.name], None, datetime.now(UTC))
        else:
            targets = [
                recorded_target(found, partition, self.parts.store.catalog) for partition in several(partitions)
            ]
        return self.parts.store.ledger.invalidate(targets)

    def why(self, asset: AssetLike, partition: Partition = None) -> list[str]:
        """Say why an asset's partition does not run, or what it is doing: the first line matters most.

        Args:
            asset: the asset or its name.
            partition: which partition.

        Returns:
            Sentences, such as `input orders [2024-01-01] is running`; there is always at least one. For an asset
            with a condition that is not in progress, what the condition says follows, fact by fact.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def one():
            ...     return 1
            >>> FlowStone([one]).why("one")
            ['nobody has asked for it: nothing is planned and nothing is committed']
        """
        found = find_asset(self.parts.graph, asset)
        target = recorded_target(found, partition, self.parts.store.catalog)
        diagnosis = self._diagnosis(found, target)
        restores = self.conditions.restores(target)
        if diagnosis == ["it is over: completed"]:
            diagnosis = [*restores, *diagnosis]
        else:
            diagnosis += restores
        return [*diagnosis, *self.conditions.explain(target)]

    def _diagnosis(self, found: Asset, target: Target) -> list[str]:
        catalog = self.parts.store.catalog
        control = self.parts.store.control
        if control is not None and self.parts.store.durable:
            diagnosis = control.diagnosis(target)
            ranges = self.parts.store.ranges
            if ranges is not None and (diagnosis is None or diagnosis.state.is_terminal):
                unstarted = ranges.waiting(target)
                if unstarted is not None:
                    return [unstarted.explain()]
            if diagnosis is not None:
                step = catalog.step(diagnosis.step_id)
                if step is not None and step.invalidated_at is not None:
                    return self._invalidated(step, step.invalidated_at)
                if step is not None and step.state.is_terminal:
                    return self._over(step)
                waits_for = self.parts.waiting.of_step(step) if step is not None else []
                return waits_for or diagnosis.explain(datetime.now(UTC))
        newest = catalog.history(*target, limit=1)
        if newest and newest[0].invalidated_at is not None:
            return self._invalidated(newest[0], newest[0].invalidated_at)
        if newest:
            return self.parts.waiting.of_step(newest[0]) or self._over(newest[0])
        return self._unasked(found, target)

    def _over(self, step: StepRecord) -> list[str]:
        """Say how a step ended; when an input kept it from starting, what went wrong there comes first."""
        text = error_line(step.error) or self.parts.waiting.reason_of(step)
        over = "is over:" if step.state.is_terminal else "is"
        found = [f"it {over} {step.state.value}" + (f" ({text})" if text else "")]
        root = self.parts.waiting.root_of(step)
        if root is not None:
            name = self.parts.graph.describe(root.asset, root.partition_key)
            why = error_line(root.error) or self.parts.waiting.reason_of(root)
            see = command("status", str(root.id))
            found.insert(0, f"{name} ended as {root.state.value}" + (f": {why}" if why else "") + f" (`{see}`)")
        return found

    def _invalidated(self, step: StepRecord, at: datetime) -> list[str]:
        when = utc_text(at)
        return [f"nothing is committed: its version of step {step.id} was invalidated at {when}"]

    def _unasked(self, found: Asset, target: Target) -> list[str]:
        if was_removed(found, target[1]):
            return ["nobody has asked for it, and its key was removed: nothing more is computed for it"]
        now = datetime.now(UTC)
        left_out = self.parts.planner.not_chosen(target, now)
        if left_out is not None:
            return [f"nobody has asked for it, and it is {left_out}"]
        reads = self.parts.reader.targets(*target, now)
        there = self.parts.store.catalog.current(reads)
        missing = [self.parts.graph.describe(*read) for read in reads if read not in there]
        return [f"nobody has asked for it, and its input {one} is missing" for one in missing] or [
            "nobody has asked for it: nothing is planned and nothing is committed"
        ]

    def history(
        self, asset: Asset[..., Value] | str, *, partition: Partition = None, limit: int = 100
    ) -> list[Materialization[Value]]:
        """Return the committed materializations of an asset, or of one partition, newest first.

        Args:
            asset: the asset or its name.
            partition: one partition; None for all of them.
            limit: how many at most.
        """
        found = self._recorded(asset)
        key = None if partition is None else recorded_target(found, partition, self.parts.store.catalog)[1]
        limit = whole_number("limit", limit)
        records = self.parts.store.catalog.history(found.name, key, state=State.COMPLETED, limit=limit)
        return [self.parts.results.of_record(record) for record in records]
