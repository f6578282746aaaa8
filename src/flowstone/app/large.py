"""Large backfills, which are placed as a range of partitions instead of a step for each."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from itertools import islice

from flowstone.app.order import NORMAL_PRIORITY, Order
from flowstone.app.partition_targets import PartitionTargets
from flowstone.core.asset import Asset
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.ranges import NewRange
from flowstone.core.retry import RetryPolicy
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.inputs import InputReader
from flowstone.protocols import Executor

LARGE = 1000
_LOOKED_AT = 100
"""From so many partitions on a durable backfill of one asset is kept as a range."""


def as_range(order: Order, graph: AssetGraph, executor: Executor, reader: InputReader) -> NewRange | None:
    """Return an order as a range, when it is a large backfill of one asset whose steps need nothing special.

    Fleet-wide limits are kept on the queue, step by step, so assets that have some are placed that way.

    Args:
        order: the request.
        graph: the assets.
        executor: the durable executor that will hold it.
        reader: knows what the partitions read.
    """
    targets = order.targets
    if order.kind != "backfill" or not isinstance(targets, PartitionTargets) or order.scheduled_at is not None:
        return None
    asset = graph[targets.asset]
    if order.wait_for_inputs is False:
        return None  # whether inputs are missing is seen step by step
    if asset.concurrency or getattr(executor, "limits", None):
        return None
    if graph.reads_itself(asset.name):
        return None  # each of its steps waits for the one before
    if graph.routers(asset.name) or any(one.optional for one in asset.dependencies):
        return None  # some of its steps may be over before they begin
    if next(islice(targets, LARGE - 1, None), None) is None:
        return None
    if _reads_unfinished(targets, graph, reader):
        return None  # the planner leaves the last ones out
    return NewRange(
        asset=asset.name,
        partitions=targets.partitions(),
        queue=queue_of(order, asset),
        priority=priority_of(order, asset),
        max_attempts=max_attempts_of(order, asset.retry or DEFAULT_RETRY),
        forced=order.force,
        code_version=asset.code_version,
        tags=tuple(sorted(asset.tags)),
        unique_seconds=order.placing.unique_seconds,
    )


def _reads_unfinished(targets: PartitionTargets, graph: AssetGraph, reader: InputReader) -> bool:
    """Whether one of the last targets reads a partition that is not over, as a forecast does."""
    if all(plan.same_key or not plan.ends for plan in reader.plans(targets.asset)):
        return False
    now = datetime.now(UTC)
    over = Completeness(graph, now)
    last = deque(targets, maxlen=_LOOKED_AT)
    return any(not over.is_over(*read) for target in last for read in reader.targets(*target, now))


def priority_of(order: Order, asset: Asset) -> int:
    """Return the priority of a step: what was asked for, else the asset's own."""
    if order.priority is not None:
        return order.priority
    if order.usual_priority is not None:
        return order.usual_priority
    return NORMAL_PRIORITY if asset.priority is None else asset.priority


def max_attempts_of(order: Order, policy: RetryPolicy) -> int:
    """Return how often a step is tried in all: what the call says, else its policy."""
    return policy.max_attempts if order.placing.max_attempts is None else order.placing.max_attempts


def queue_of(order: Order, asset: Asset) -> str:
    """Return the queue of a step: what the call says; else an asset that names one of its own stays there."""
    if order.placing.queue is not None:
        return order.placing.queue
    return order.queue if order.queue and asset.queue == "assets" else asset.queue
