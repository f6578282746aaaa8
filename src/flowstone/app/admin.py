"""The views for whoever runs the app: executors, queues, retention, approvals, checks.

Each view checks what it is given and asks the store once; `AsyncXView` beside it gives its verbs to `flow.aio`.
They are one module because they share nothing but this form: read the view that you came for, and no other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts, control_of, discard_values
from flowstone.app.submit import Placement
from flowstone.app.targets import AssetLike, find_asset, flag, step_id_of, target_of, whole_number
from flowstone.core.actor import current_actor
from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.asset import Asset
from flowstone.core.audit import AuditFilter, AuditRecord
from flowstone.core.capability import Capability
from flowstone.core.check import Check
from flowstone.core.control import QueueStatus
from flowstone.core.declaring import is_text, shown, view
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import Partition, PartitionKey
from flowstone.core.step import CheckRecord, StepRecord
from flowstone.engine.checks import Subject
from flowstone.errors import ApprovalNotFoundError, FlowStoneError, OptionsError, UnknownAssetError, did_you_mean
from flowstone.protocols import Control, Executor, InternalIO, IOManager, SweepableIO
from flowstone.stores.audit import current_user


@view("flow.executors")
class ExecutorsView:
    """The executors of an app, and what each declares.

    Example:
        >>> from flowstone import FlowStone
        >>> flow = FlowStone([])
        >>> flow.executors.names()
        ['async', 'oban', 'serial', 'sync']
        >>> "retry" in flow.executors.capabilities("sync")
        True
    """

    def __init__(self, parts: Parts, placement: Placement) -> None:
        self._parts = parts
        self._placement = placement

    def names(self) -> list[str]:
        """Return every name that `executor=` takes, besides `auto`."""
        return self._parts.executors.names()

    def capabilities(self, executor: str | Executor = "auto") -> frozenset[Capability]:
        """Return what an executor declares beyond running a job now and placing it.

        Args:
            executor: a name, an executor object, or `auto` for the one that is used when nobody names one. Of
                `oban` it is known without a database too.

        Raises:
            UnknownExecutorError: no executor has this name.
            ExecutorUnavailableError: one of a package that cannot be loaded.
        """
        return self._parts.executors.capabilities(self._placement.chosen(executor))

    def default(self) -> str:
        """Return the name of the executor that is used when nobody names one."""
        chosen = self._placement.chosen("auto")
        return chosen if isinstance(chosen, str) else chosen.name

    def problem(self, executor: str) -> str | None:
        """Return why an executor cannot be used here; None when it can."""
        try:
            self._parts.executors.get(executor)
        except FlowStoneError as error:
            return str(error)
        return None


class AsyncExecutorsView(AsyncFlowStone):
    """`flow.aio.executors`: the verbs of `flow.executors`, awaitable."""

    names = awaitable(ExecutorsView.names)
    capabilities = awaitable(ExecutorsView.capabilities)
    default = awaitable(ExecutorsView.default)
    problem = awaitable(ExecutorsView.problem)


@view("flow.queues")
class QueuesView:
    """Pause, resume and resize queues in the whole fleet; needs a database.

    What is set is stored: workers that start later follow it as well.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(self) -> list[QueueStatus]:
        """Return the queues that are set or have work."""
        return control_of(self._parts).queues()

    def pause(self, name: str) -> None:
        """Start nothing more of a queue; what runs goes on.

        Raises:
            OptionsError: nobody knows this queue.
        """
        self._known(name).set_queue(name, paused=True)

    def resume(self, name: str) -> None:
        """Go on with a paused queue.

        Raises:
            OptionsError: nobody knows this queue.
        """
        self._known(name).set_queue(name, paused=False)

    def scale(self, name: str, limit: int | None) -> None:
        """Let each worker node run this many steps of a queue at once; takes effect within a second or so.

        Args:
            name: the queue.
            limit: steps at once per node, 1 to 1000; None takes back what was set, so that each worker runs as
                many as it declares.

        Raises:
            OptionsError: the limit is out of range, or nobody knows this queue.
        """
        if limit is None:
            self._known(name).set_queue(name, reset_limit=True)
            return
        if type(limit) is not int or not 1 <= limit <= 1000:
            raise OptionsError(
                f"limit={limit!r}: give a whole number from 1 to 1000; use pause() for none at all."
            )
        self._known(name).set_queue(name, node_limit=limit)

    def _known(self, name: str) -> Control:
        """Return what steers queues; refuse a name that stands for none, which would be stored in silence."""
        control = control_of(self._parts)
        known = {*self._parts.settings.queues, *(asset.queue for asset in self._parts.graph)}
        if not isinstance(name, str):
            raise OptionsError(f"There is no queue {shown(name)}: give its name.")
        if name not in known:
            known |= {queue.name for queue in control.queues()} | set(control.served_queues())
        if name not in known:
            raise OptionsError(
                f"There is no queue {name!r}: no asset uses it, no worker serves it, no setting names it."
                f"{did_you_mean(name, known)} Queues: {', '.join(sorted(known))}."
            )
        return control


class AsyncQueuesView(AsyncFlowStone):
    """`flow.aio.queues`: the verbs of `flow.queues`, awaitable."""

    list = awaitable(QueuesView.list)
    pause = awaitable(QueuesView.pause)
    resume = awaitable(QueuesView.resume)
    scale = awaitable(QueuesView.scale)


log = logging.getLogger("flowstone")

_OLDEST = timedelta(days=365 * 1000)
"""More than any run is old, and still a time that PostgreSQL can subtract."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be.

    Args:
        steps: number of steps, with their attempts, lineage, checks, approvals and values.
        runs: number of runs of which nothing was left.
        values: number of stored values.
        size_bytes: size of these values, as far as it is known.
        ticks: number of ticks of schedules, sensors and conditions.
        dry_run: whether nothing was deleted.
        leftovers: number of files and rows that attempts left which died between storing and committing; 0 for a
            dry run, which does not look for them.
        out_of_reach: for each name of an IO manager, the number of values that could not be deleted: this app does
            not declare the manager, or the manager failed. Their records are gone.
        not_swept: names of IO managers that do not look for leftovers.
    """

    steps: int
    runs: int
    values: int = 0
    size_bytes: int = 0
    ticks: int = 0
    dry_run: bool = False
    leftovers: int = 0
    out_of_reach: Mapping[str, int] = field(default_factory=dict)
    not_swept: tuple[str, ...] = ()


@view("flow.retention")
class RetentionView:
    """Deletes old history; what `load` returns and what it was made from is always kept."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def prune(self, *, older_than: timedelta | None = None, dry_run: bool = False) -> Pruned:
        """Delete steps of runs that ended long ago, with their stored values, and old ticks.

        An app in memory does so by itself when more than `memory_steps` (a setting) are over and of no use.
        Kept are current versions, everything they were made from, and what reused steps stand on.

        Args:
            older_than: age of the end of a run; the setting `retention_days` by default.
            dry_run: only say what would be deleted, leftovers of dead attempts apart: these are found by deleting.

        Raises:
            OptionsError: `older_than` is negative.
        """
        age = timedelta(days=self._parts.settings.retention_days) if older_than is None else older_than
        given: object = age
        if not isinstance(given, timedelta) or given < timedelta(0):
            raise OptionsError(f"older_than={given!r}: give a timedelta from 0 on, such as timedelta(days=30).")
        retention = self._parts.store.retention
        seconds = min(age, _OLDEST).total_seconds()
        out_of_reach: Counter[str] = Counter()
        leftovers = 0
        if dry_run:
            counts = retention.prunable(older_than_seconds=seconds)
        else:
            counts = retention.prune(older_than_seconds=seconds, discard=partial(self._discard, out_of_reach))
            leftovers = self.sweep()
            self.prune_logs()
        ticks = self._parts.store.automations.prune_ticks(older_than_seconds=seconds, dry_run=dry_run)
        managers = self._parts.managers.items()
        return Pruned(
            *counts,
            ticks=ticks,
            dry_run=dry_run,
            leftovers=leftovers,
            out_of_reach=dict(out_of_reach),
            not_swept=tuple(sorted(name for name, one in managers if one.shared and not _sweeps(one))),
        )

    def prune_asset(self, asset: str, *, dry_run: bool = False) -> Pruned:
        """Delete everything that is recorded of an asset that is declared no more, with all its values.

        Args:
            asset: its name.
            dry_run: only say what would be deleted.

        Raises:
            OptionsError: the asset is declared, or a step of it is not over.
            UnknownAssetError: nothing is recorded under this name.
        """
        graph, retention = self._parts.graph, self._parts.store.retention
        if asset in graph:
            raise OptionsError(
                f"The asset {asset!r} is declared: its current versions are needed. Take them out of use with "
                "flow.invalidate, or remove the asset from the app first."
            )
        counts, unfinished = retention.recorded_of(asset)
        if not counts.steps:
            raise UnknownAssetError(asset, graph.assets)
        if unfinished:
            raise OptionsError(
                f"{unfinished} steps of {asset!r} are not over. Cancel their runs first: "
                "`flowstone runs --state running` lists them."
            )
        out_of_reach: Counter[str] = Counter()
        if not dry_run:
            counts = retention.prune_asset(asset, discard=partial(self._discard, out_of_reach))
        return Pruned(*counts, dry_run=dry_run, out_of_reach=dict(out_of_reach))

    def sweep(self) -> int:
        """Delete what attempts left that died between storing and committing; workers do so by themselves.

        What is committed and not yet visible to other readers is published first, see `PublishingIO`. Nothing of
        an attempt that may still commit is touched, and nothing of steps that this database does not know, because
        another one may share the storage.

        Returns:
            How many files and rows were deleted; 0 for an app in memory, which shares no storage by its steps.
        """
        self.publish()
        if not self._parts.store.shared:
            return 0
        keep = self._parts.store.retention.needed_versions
        age = 2 * self._parts.settings.lease_seconds
        deleted = 0
        for name, manager in self._parts.managers.items():
            if isinstance(manager, SweepableIO):
                try:
                    deleted += manager.sweep(older_than_seconds=age, keep=keep)
                except Exception as error:  # noqa: BLE001 - a storage that is away is swept the next time
                    log.warning("The leftovers of the IO manager %r cannot be deleted for now: %s", name, error)
        return deleted

    def publish(self) -> int:
        """Publish what is committed and not yet visible to other readers; workers do so by themselves.

        See `flow.insights.unpublished()` for what that is. What cannot be published is logged, and stays noted.

        Returns:
            How many publications are visible now.
        """
        return 0 if self._parts.publisher is None else self._parts.publisher.catch_up()

    def prune_logs(self) -> int:
        """Delete what steps logged longer ago than the setting `log_days`; workers do so by themselves.

        Returns:
            How many batches of lines were deleted.
        """
        age = timedelta(days=self._parts.settings.log_days)
        deleted = 0
        while found := self._parts.store.logs.prune(older_than_seconds=age.total_seconds()):
            deleted += found
        return deleted

    def _discard(self, out_of_reach: Counter[str], outputs: Sequence[StoredOutput]) -> None:
        for name, number in discard_values(self._parts.managers, outputs).items():
            out_of_reach[name] += number


class AsyncRetentionView(AsyncFlowStone):
    """`flow.aio.retention`: the verbs of `flow.retention`, awaitable."""

    prune = awaitable(RetentionView.prune)
    prune_asset = awaitable(RetentionView.prune_asset)
    sweep = awaitable(RetentionView.sweep)
    publish = awaitable(RetentionView.publish)
    prune_logs = awaitable(RetentionView.prune_logs)


def _sweeps(manager: IOManager) -> bool:
    """Whether leftovers of a manager are looked for; one of our own that stores nothing has none."""
    return isinstance(manager, SweepableIO | InternalIO)


@view("flow.approvals")
class ApprovalsView:
    """Requests for approval: steps that stopped with `AwaitApproval` until a person decides.

    Example:
        >>> from flowstone import AwaitApproval, FlowStone, asset
        >>> @asset
        ... def letter(context):
        ...     if context.approval is None:
        ...         raise AwaitApproval("Send it?", resume={"text": "Dear Ann"})
        ...     return context.approval.resume["text"] + "!"
        >>> def say_yes(approval):
        ...     if approval.state == "pending":
        ...         flow.approvals.approve(approval.id, by="ann")
        >>> flow = FlowStone([letter], notifiers=[say_yes])
        >>> flow.materialize("letter").value
        'Dear Ann!'
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(
        self, *, state: ApprovalState | str | None = ApprovalState.PENDING, limit: int = 100
    ) -> Sequence[Approval]:
        """Return requests: pending ones by the end of their time; of other states, or all, the newest first.

        Args:
            state: `pending`, `approved`, `rejected`, `expired` or `cancelled`; None for all.
            limit: how many at most.

        Raises:
            OptionsError: there is no such state.
        """
        try:
            requested = None if state is None else ApprovalState(state)
        except ValueError:
            known = ", ".join(ApprovalState)
            raise OptionsError(f"state={state!r} is not a state of approvals; give one of {known}.") from None
        return self._parts.store.approvals.list(state=requested, limit=whole_number("limit", limit))

    def get(self, approval_id: int | str) -> Approval:
        """Return a request with its decision, if there is one.

        Raises:
            ApprovalNotFoundError: there is no such request.
        """
        found = self._parts.store.approvals.get(_number(approval_id))
        if found is None:
            raise ApprovalNotFoundError(approval_id)
        return found

    def of_step(self, step_id: int | str) -> Sequence[Approval]:
        """Return the requests of a step in the order in which they were made."""
        found = step_id_of(step_id)
        return () if found is None else self._parts.store.approvals.of_step(found)

    def approve(self, approval_id: int | str, *, comment: str | None = None, by: str | None = None) -> Approval:
        """Let a step go on; its function finds the decision in `context.approval`.

        Args:
            approval_id: the request.
            comment: kept with the decision, for the function and for whoever asks later.
            by: who decides; the user of the operating system by default.

        Raises:
            ApprovalNotFoundError: there is no such request.
            ApprovalDecidedError: it was decided before, its time was over, or its step was cancelled.
        """
        return self._decide(approval_id, approve=True, comment=comment, by=by)

    def reject(self, approval_id: int | str, *, comment: str | None = None, by: str | None = None) -> Approval:
        """Fail a step for good, and everything downstream of it.

        Args:
            approval_id: the request.
            comment: becomes part of the step's error.
            by: who decides; the user of the operating system by default.

        Raises:
            ApprovalNotFoundError: there is no such request.
            ApprovalDecidedError: it was decided before, its time was over, or its step was cancelled.
        """
        return self._decide(approval_id, approve=False, comment=comment, by=by)

    def _decide(self, approval_id: int | str, *, approve: bool, comment: str | None, by: str | None) -> Approval:
        number = _number(approval_id)
        if by is not None and not by.strip():
            raise OptionsError("by='': say who decides, or leave it out for the user of the operating system.")
        approvals = self._parts.store.approvals
        actor = current_actor()
        who = by or (actor.name if actor else current_user())
        return approvals.decide(number, approve=approve, by=who, comment=comment)


class AsyncApprovalsView(AsyncFlowStone):
    """`flow.aio.approvals`: the verbs of `flow.approvals`, awaitable."""

    list = awaitable(ApprovalsView.list)
    get = awaitable(ApprovalsView.get)
    of_step = awaitable(ApprovalsView.of_step)
    approve = awaitable(ApprovalsView.approve)
    reject = awaitable(ApprovalsView.reject)


@view("flow.audit")
class AuditView:
    """The audit log: who did what to what, and when. It only grows."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def latest(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[AuditRecord]:
        """Return the newest lines, newest first.

        Args:
            actor: only what this person or program did.
            action: only this action, such as `run.cancelled`, or all of a kind, such as `run`.
            subject: only those about this, such as `approval:7`.
            since: not before this time.
            until: before this time.
            before: for the next page: `id` of the last line of the page before.
            limit: how many at most.

        Raises:
            OptionsError: a time has no time zone.
        """
        requested = AuditFilter(actor=actor, action=action, subject=subject, since=since, until=until)
        after = None if before is None else whole_number("before", before)
        return self._parts.store.audit.lines(requested, before=after, limit=whole_number("limit", limit))


class AsyncAuditView(AsyncFlowStone):
    """`flow.aio.audit`: the verbs of `flow.audit`, awaitable."""

    latest = awaitable(AuditView.latest)


def _number(approval_id: int | str) -> int:
    text = str(approval_id)
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ApprovalNotFoundError(text)
    return int(text)


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
        if check is not None and not is_text(check):
            raise OptionsError(f"check={shown(check)}: give the name of a check.")
        return self._parts.store.checks.results(
            found.name,
            partition=_key(found, partition),
            check=check,
            failed=flag("failed", failed),
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
            key=step.partition_key,
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


def _key(asset: Asset, partition: Partition) -> PartitionKey | None:
    return None if partition is None else target_of(asset, partition)[1]
