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
_SAMPLE = 100
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
    queue, priority, max_attempts = terms_of(order, asset, asset.retry or DEFAULT_RETRY)
    return NewRange(
        asset=asset.name,
        partitions=targets.partitions(),
        queue=queue,
        priority=priority,
        max_attempts=max_attempts,
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
    last = deque(targets, maxlen=_SAMPLE)
    return any(not over.is_over(*read) for target in last for read in reader.targets(*target, now))


def terms_of(order: Order, asset: Asset, policy: RetryPolicy) -> tuple[str, int, int]:
    """Return queue, priority and attempts of a step: what the call says, else the verb, else its asset.

    An asset that names a queue of its own stays there, unless the call says otherwise.
    """
    queue, priority, max_attempts = asset.queue, asset.priority, policy.max_attempts
    placing = order.placing
    if placing.queue is not None:
        queue = placing.queue
    elif order.queue and queue == "assets":
        queue = order.queue
    if order.priority is not None:
        priority = order.priority
    elif order.usual_priority is not None:
        priority = order.usual_priority
    elif priority is None:
        priority = NORMAL_PRIORITY
    if placing.max_attempts is not None:
        max_attempts = placing.max_attempts
    return queue, priority, max_attempts
