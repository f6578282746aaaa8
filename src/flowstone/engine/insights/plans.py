"""A plan for people: what it would do to each asset, with its partitions as ranges."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from flowstone.core.definition import PartitionsDefinition, write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import PartitionKey, decode_partition, encode_partition
from flowstone.core.step import NewStep
from flowstone.engine.planner import Plan
from flowstone.errors import DefinitionError, PartitionError

_MAX_LISTED = 1_000_000
_FEW = 100


@dataclass(frozen=True, slots=True)
class Span:
    """Partitions that follow each other.

    Args:
        first: the first one, as people write it; empty for an asset without partitions.
        last: the last one; the same for one alone.
        count: how many.
    """

    first: str
    last: str
    count: int

    def __str__(self) -> str:
        return self.first if self.count == 1 else f"{self.first} … {self.last} ({self.count:,})"


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """What a plan does with partitions of one asset.

    Args:
        asset: its name.
        action: `run`, `run again` (although it is committed), `reuse` or `skip`.
        count: how many partitions.
        spans: which, in order.
        after: assets whose steps in the same plan they wait for.
        reason: why they are skipped.
    """

    asset: str
    action: str
    count: int
    spans: tuple[Span, ...]
    after: tuple[str, ...] = ()
    reason: str = ""


def action_of(step: NewStep) -> str:
    """Return what a plan does with a step, in a word or two."""
    if step.skip is not None:
        return "skip"
    if step.reuse is not None:
        return "reuse"
    return "run again" if step.forced else "run"


def grouped(plan: Plan, graph: AssetGraph, now: datetime) -> tuple[PlanGroup, ...]:
    """Return a plan by asset and action, in the order in which it would run.

    Args:
        plan: the steps.
        graph: all assets.
        now: the present, up to which partitions follow each other.

    Example:
        >>> from flowstone import FlowStone, StaticPartitions, asset
        >>> from datetime import UTC
        >>> @asset(partitions=StaticPartitions(["a", "b", "c", "d"]))
        ... def orders(context): ...
        >>> flow = FlowStone.for_testing([orders])
        >>> found = grouped(flow.plan("orders", partitions=["a", "b", "d"]), flow.graph, datetime.now(UTC))
        >>> [(one.asset, one.action, one.count, [str(span) for span in one.spans]) for one in found]
        [('orders', 'run', 3, ['a … b (2)', 'd'])]
    """
    found: dict[tuple[str, str, str], list[NewStep]] = {}
    for step in plan.steps:
        found.setdefault((step.asset, action_of(step), step.skip or ""), []).append(step)
    groups = []
    for (asset, action, reason), steps in found.items():
        definition = graph[asset].partitions
        keys = [PartitionKey(step.partition_key) for step in steps]
        inputs = {index for step in steps for index in step.inputs}
        after = tuple(sorted({plan.steps[index].asset for index in inputs if plan.steps[index].runs}))
        groups.append(PlanGroup(asset, action, len(steps), spans_of(definition, keys, now), after, reason))
    return tuple(groups)


def spans_of(
    definition: PartitionsDefinition | None, keys: Sequence[PartitionKey], now: datetime
) -> tuple[Span, ...]:
    """Return encoded partitions as ranges of those that follow each other.

    Args:
        definition: of their asset; None when it has no partitions.
        keys: the partitions; an empty one for an asset without.
        now: the present.
    """
    if definition is None or len(keys) < 2:
        return tuple(Span(label, label, 1) for label in (write_partition(definition, key) for key in keys))
    follows = _follows(definition, keys, now)
    spans: list[list[int]] = []
    for position in range(len(keys)):
        if position and follows[position]:
            spans[-1][1] = position
        else:
            spans.append([position, position])
    return tuple(
        Span(write_partition(definition, keys[first]), write_partition(definition, keys[last]), last - first + 1)
        for first, last in spans
    )


def _follows(definition: PartitionsDefinition, keys: Sequence[PartitionKey], now: datetime) -> list[bool]:
    """Return for each partition whether it is the next one after the partition before it."""
    if not definition.listable:
        return [False] * len(keys)
    if len(keys) <= _FEW:  # the definition may have a million
        with suppress(DefinitionError, PartitionError):  # some have no order of their own, only that of a list
            nexts = [definition.later(decode_partition(key), 1) for key in keys[:-1]]
            followed = [[encode_partition(value) for value in one] for one in nexts]
            return [False, *(one == [key] for one, key in zip(followed, keys[1:], strict=True))]
    listed = islice(definition.keys(now), _MAX_LISTED)
    places = {encode_partition(value): place for place, value in enumerate(listed)}
    found = [places.get(key, -2) for key in keys]
    return [position > 0 and found[position] == found[position - 1] + 1 for position in range(len(found))]
