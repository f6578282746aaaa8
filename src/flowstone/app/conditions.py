"""`flow.conditions`: what assets with a condition want, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import batched

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.submit import Placement
from flowstone.app.targets import AssetLike, find_asset, target_of, was_removed, whole_number
from flowstone.core.asset import Asset
from flowstone.core.automation.condition import Decision, Paced
from flowstone.core.automation.facts import TargetFacts
from flowstone.core.automation.record import AutomationId, AutomationKind, AutomationRecord, TickRecord
from flowstone.core.declaring import shown, view
from flowstone.core.partitions import Partition, PartitionKey, decode_partition
from flowstone.core.step import Target
from flowstone.engine.automation.conditions import (
    KIND,
    ConditionEvaluator,
    Memory,
    active_upstream,
    begun,
    every,
    held_back,
    scope,
)
from flowstone.engine.automation.evaluation import FactReader
from flowstone.engine.run_spec import RunSpec
from flowstone.errors import DefinitionError, OptionsError, command
from flowstone.protocols import Evaluator

type Assets = list[Asset]
type Records = list[AutomationRecord]
type Texts = list[str]
type Decisions = list[Decision]
"""Decisions about targets, in the order of their importance."""


@view("flow.conditions")
class ConditionsView:
    """What assets with a condition want, and why; see `flowstone.core.automation.conditions` for the conditions.

    Worker nodes evaluate conditions by themselves. This is for looking, for pausing, and for apps and tests
    without workers.
    """

    def __init__(self, parts: Parts, placement: Placement) -> None:
        self._parts = parts
        self._placement = placement
        for one in parts.graph:
            if one.automation is not None and one.partitions is not None and not one.partitions.listable:
                raise DefinitionError(
                    f"Asset {one.name!r} has a condition, but its partitions ({one.partitions!r}) cannot be "
                    "listed to look at them. Declare them, as with DynamicPartitions, or ask with a sensor.",
                    where=one.where,
                )
        self._facts = FactReader(parts.graph, parts.reader, parts.store.target_statuses)
        self.evaluators: Sequence[Evaluator] = [
            ConditionEvaluator(
                asset,
                asset.automation,
                graph=parts.graph,
                facts=self._facts,
                prepare=placement.prepare_targets,
                every_seconds=parts.settings.conditions_seconds,
            )
            for asset in parts.graph
            if asset.automation is not None
        ]
        if not parts.store.shared:
            self._declare()  # ticks count from now on; elsewhere from when the first worker starts

    def evaluate(
        self,
        asset: AssetLike | None = None,
        *,
        partitions: Iterable[Partition] | None = None,
        now: datetime | None = None,
    ) -> Decisions:
        """Say what would be requested, and why, without doing anything.

        Args:
            asset: an asset with a condition; None for all of them.
            partitions: which partitions; None for the newest 200 complete ones of each asset.
            now: the time to go by, timezone-aware; the present by default.

        Returns:
            One decision for each partition, the newest first; `requested` and `explain()` say it all.

        Raises:
            DefinitionError: the asset has no condition.

        Example:
            >>> from flowstone import FlowStone, asset, eager
            >>> @asset(automation=eager())
            ... def numbers():
            ...     return [1, 2, 3]
            >>> for line in FlowStone.for_testing([numbers]).conditions.evaluate("numbers")[0].explain()[:2]:
            ...     print(line)
            numbers is requested: nothing is committed; no input is in progress
              yes: all of
        """
        at = _present(now)
        keys = None if partitions is None else list(partitions)
        found: Decisions = []
        for one in self._chosen(asset):
            if keys is None:
                chosen = [*_begun(one, at), *scope(one.partitions, at, older=0).partitions]
            else:
                chosen = [target_of(one, partition)[1] for partition in keys]
            found += self._decide(one, chosen, at)
        return found

    def stale(self, asset: AssetLike, *, partitions: Iterable[Partition] | None = None) -> dict[Partition, Texts]:
        """Say which committed versions would come out differently now, and why; the asset needs no condition.

        Args:
            asset: the asset or its name.
            partitions: which partitions; None for the newest 200 complete ones.

        Returns:
            Reasons by partition: inputs that changed or were invalidated, a changed `code_version`. Partitions
            that are up to date, or missing, are left out.
        """
        found, at = find_asset(self._parts.graph, asset), datetime.now(UTC)
        if partitions is None:
            keys = scope(found.partitions, at, older=0).partitions
        else:
            keys = [target_of(found, partition)[1] for partition in partitions]
        facts = self._facts.facts(found.name, keys, now=at)
        return {decode_partition(one.partition_key): reasons for one in facts if (reasons := one.staleness)}

    def run(self, asset: AssetLike | None = None, *, now: datetime | None = None) -> Decisions:
        """Compute what is to be requested, here and now, upstream assets first; paused conditions are left out.

        All complete partitions are looked at, each is computed at most once, and as many at a time as
        `at_most()` says. For apps and tests without workers.

        Args:
            asset: an asset with a condition; None for all of them.
            now: the time that decides, timezone-aware; the present by default.

        Returns:
            What was computed, in this order. Failures are not raised; the history has them.

        Example:
            >>> from flowstone import FlowStone, asset, eager
            >>> @asset(automation=eager())
            ... def numbers():
            ...     return [1, 2, 3]
            >>> @asset(automation=eager())
            ... def doubled(numbers):
            ...     return [2 * n for n in numbers]
            >>> flow = FlowStone.for_testing([numbers, doubled])
            >>> [decision.name for decision in flow.conditions.run()], flow.conditions.run()
            (['numbers', 'doubled'], [])
        """
        _present(now)
        paused = {record.id for record in self.list() if record.paused}
        done: Decisions = []
        for one in self._chosen(asset):
            if _id(one) not in paused:
                at = _present(now)
                done += self._run(one, self._decide(one, [*_begun(one, at), *every(one.partitions, at)], at))
        return done

    def list(self) -> Records:
        """Return the conditions as the store knows them; those that no worker has seen yet are declared."""
        self._declare()
        records = {record.id: record for record in self._parts.store.automations.records()}
        return [records[_id(one)] for one in self._chosen(None)]

    def pause(self, asset: AssetLike) -> bool:
        """Ask for nothing on behalf of an asset's condition; return whether that changed anything."""
        return self._set_paused(asset, paused=True)

    def resume(self, asset: AssetLike) -> bool:
        """Go on with an asset's condition; return whether that changed anything."""
        return self._set_paused(asset, paused=False)

    def ticks(self, asset: AssetLike, *, limit: int = 50) -> Sequence[TickRecord]:
        """Return the newest ticks of an asset's condition: those that asked for something, or failed."""
        (one,) = self._chosen(asset)
        return self._parts.store.automations.ticks(_id(one), limit=whole_number("limit", limit))

    def explain(self, target: Target) -> Texts:
        """Return lines on why a target is requested or not; none without a condition, or while it is in progress.

        Args:
            target: asset name and encoded partition.
        """
        one = self._parts.graph[target[0]]
        if one.automation is None or was_removed(one, target[1]):
            return []
        (decision,) = self._decide(one, [target[1]], datetime.now(UTC))
        if decision.in_progress:
            return []
        record = self._parts.store.automations.record(_id(one))
        paused = record is not None and record.paused
        notice = [f"its condition is paused: `{command('automation', one.name, resume=True)}`"] if paused else []
        return [*notice, *decision.explain()]

    def restores(self, target: Target) -> Texts:
        """Return what restores have to do with a committed target: its own, and those that made it stale.

        Args:
            target: asset name and encoded partition.
        """
        (facts,) = self._facts.facts(target[0], [target[1]], now=datetime.now(UTC))
        committed = facts.status.committed
        if committed is None or facts.status.active is not None:
            return []
        found = [f"it is stale: {change}" for change in facts.restored_inputs]
        if committed.restored is not None:
            found.append(f"its version {committed.data.step_id} is in use because it was {committed.restored}")
        return found

    # --- pieces -------------------------------------------------------------------------------------------

    def _chosen(self, asset: AssetLike | None) -> Assets:
        if asset is None:
            return [one for one in self._parts.graph if one.automation is not None]
        found = find_asset(self._parts.graph, asset)
        if found.automation is None:
            raise DefinitionError(
                f"Asset {found.name!r} has no condition. Give it one: @asset(automation=eager()).",
                where=found.where,
            )
        return [found]

    def _decide(self, asset: Asset, partitions: Sequence[PartitionKey], now: datetime) -> Decisions:
        assert asset.automation is not None
        record = self._parts.store.automations.record(_id(asset))
        # one that nobody declared yet missed nothing
        facts = self._facts.facts(asset.name, partitions, now=now, since=record.since if record else now)
        decisions = [asset.automation.condition.evaluate(one, now) for one in facts]
        requested = [one for one, decision in zip(facts, decisions, strict=True) if decision.requested]
        why = self._held_back(asset, asset.automation, record, requested, now) if requested else None
        return [replace(one, held=why) if why and one.requested else one for one in decisions]

    def _held_back(
        self,
        asset: Asset,
        limits: Paced,
        record: AutomationRecord | None,
        requested: Sequence[TargetFacts],
        now: datetime,
    ) -> str | None:
        """Return why a worker would not request yet what a condition asks for."""
        active = self._facts.active([asset.name, *sorted(self._parts.graph.upstream(asset.name))])
        own = active.get(asset.name, 0)
        if own >= limits.active:
            return f"{own} steps of it are active, and it asks for no more than {limits.active}"
        since = Memory.read(record.cursor).held if record is not None else None
        return held_back(limits, requested, active_upstream(active, asset), now, since or now)

    def _run(self, asset: Asset, decisions: Decisions) -> Decisions:
        assert asset.automation is not None
        requested = [one for one in decisions if one.requested]
        for some in batched(requested, asset.automation.requests):
            targets = [(asset.name, one.partition_key) for one in some]
            self._placement.run(RunSpec(kind=KIND, selection=asset.name, targets=targets, force=True))
        return requested

    def _set_paused(self, asset: AssetLike, *, paused: bool) -> bool:
        (one,) = self._chosen(asset)
        self._declare()
        return self._parts.store.automations.set_paused(_id(one), paused=paused)

    def _declare(self) -> None:
        self._parts.store.automations.declare([_id(one) for one in self._chosen(None)])


class AsyncConditionsView(AsyncFlowStone):
    """`flow.aio.conditions`: the verbs of `flow.conditions`, awaitable."""

    evaluate = awaitable(ConditionsView.evaluate)
    stale = awaitable(ConditionsView.stale)
    run = awaitable(ConditionsView.run)
    list = awaitable(ConditionsView.list)
    pause = awaitable(ConditionsView.pause)
    resume = awaitable(ConditionsView.resume)
    ticks = awaitable(ConditionsView.ticks)
    explain = awaitable(ConditionsView.explain)
    restores = awaitable(ConditionsView.restores)


def _begun(asset: Asset, now: datetime) -> Sequence[PartitionKey]:
    """Return the partition that is going on, if the asset wants it computed."""
    return begun(asset.partitions, now) if asset.allow_incomplete else []


def _id(asset: Asset) -> AutomationId:
    return AutomationId(AutomationKind.CONDITION, asset.name)


def _present(now: object) -> datetime:
    """Return the time to go by.

    Raises:
        OptionsError: it is no time, or has no zone.
    """
    if now is None:
        return datetime.now(UTC)
    if not isinstance(now, datetime) or now.tzinfo is None:
        raise OptionsError(f"now={shown(now)}: give a datetime with a time zone.")
    return now
