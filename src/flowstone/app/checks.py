"""`flow.checks`: what checks found, and running them again."""

from __future__ import annotations

from datetime import UTC, datetime

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.requests import AssetLike, find_asset, target_of, whole_number
from flowstone.app.wiring import Parts
from flowstone.core.asset import Asset
from flowstone.core.check import Check
from flowstone.core.check_record import CheckRecord
from flowstone.core.declaring import view
from flowstone.core.partition import Partition
from flowstone.core.step import StepRecord
from flowstone.engine.check_runner import Subject


@view("flow.checks")
class ChecksView:
    """Results of asset checks, newest first.

    Example:
        >>> from flowstone import FlowStone, asset, check
        >>> @asset
        ... def orders():
        ...     return [1, 2, 3]
        >>> @check(orders)
        ... def not_empty(orders):
        ...     return len(orders) > 0
        >>> flow = FlowStone([orders], checks=[not_empty])
        >>> done = flow.materialize("orders")
        >>> [(result.check, result.passed) for result in flow.checks.results("orders")]
        [('not_empty', True)]
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def declared(self, asset: AssetLike) -> tuple[Check, ...]:
        """Return the checks that this app declares for an asset."""
        return self._parts.checks.declared.of(find_asset(self._parts.graph, asset).name)

    def results(
        self,
        asset: AssetLike,
        *,
        partition: Partition = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        """Return the results of an asset's checks, newest first, those of failed attempts included.

        Args:
            asset: the asset or its name.
            partition: one partition; None for all of them.
            check: only the check of this name.
            failed: only those that did not pass.
            limit: how many at most.
        """
        found = find_asset(self._parts.graph, asset)
        return self._parts.store.checks.results(
            found.name,
            partition=_key(found, partition),
            check=check,
            failed=failed,
            limit=whole_number("limit", limit),
        )

    def latest(
        self,
        asset: AssetLike | None = None,
        *,
        partition: Partition = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        """Return the newest result of each check of each partition, ordered by asset, partition and check.

        The newest may be that of an attempt that failed because of it; `step_id` says whose it is.

        Args:
            asset: the asset or its name; None for all assets.
            partition: one partition; None for all of them.
            failed: only checks whose newest result is a failure.
            limit: how many at most.
        """
        if asset is None:
            return self._parts.store.checks.latest(failed=failed, limit=whole_number("limit", limit))
        found = find_asset(self._parts.graph, asset)
        key = _key(found, partition)
        return self._parts.store.checks.latest(
            found.name, partition=key, failed=failed, limit=whole_number("limit", limit)
        )

    def run(self, asset: AssetLike, *, partition: Partition = None) -> list[CheckRecord]:
        """Run all checks of an asset on its committed version now, here, and record what they find with it.

        Nothing is unpublished: a blocking check that fails now says so and changes nothing.

        Args:
            asset: the asset or its name.
            partition: which partition.

        Returns:
            The results, in the order in which the checks were declared.

        Raises:
            DependencyNotReadyError: nothing is committed.
            StorageError: the value cannot be read.
        """
        found = find_asset(self._parts.graph, asset)
        step = self._committed(found, partition)
        checks = self.declared(found)
        value = None
        if any(check.parameter is not None for check in checks):
            assert step.stored is not None
            value = self._parts.values.load(step.stored)
        subject = Subject(
            asset=found,
            key=step.partition,
            run_id=step.run_id,
            step_id=step.id,
            attempt=step.attempt,
            metadata=step.stored.metadata if step.stored else {},
            started_at=datetime.now(UTC),
        )
        records = [self._parts.checks.runner.run(check, subject, value).record for check in checks]
        self._parts.store.checks.record(records)
        return records

    def _committed(self, asset: Asset, partition: Partition) -> StepRecord:
        """Return the step whose output is in use."""
        target = target_of(asset, partition)
        catalog = self._parts.store.catalog
        current = catalog.current([target]).get(target)
        step = catalog.step(current) if current is not None else None
        if step is None:
            raise self._parts.graph.not_ready(target, [target], datetime.now(UTC))
        return step


class AsyncChecksView(AsyncFlowStone):
    """`flow.aio.checks`: the verbs of `flow.checks`, awaitable."""

    declared = awaitable(ChecksView.declared)
    results = awaitable(ChecksView.results)
    latest = awaitable(ChecksView.latest)
    run = awaitable(ChecksView.run)


def _key(asset: Asset, partition: Partition) -> str | None:
    return None if partition is None else target_of(asset, partition)[1]
