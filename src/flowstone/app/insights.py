"""`flow.insights`: what there is to see, as plain data; and the same over connections that cannot write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from flowstone.app.asset_insights import AssetDetails
from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.logs import LogPage, LogsView, RunLogPage
from flowstone.app.runs import AnyRun, AnyStep
from flowstone.app.system import System, system
from flowstone.app.targets import (
    AssetLike,
    find_asset,
    run_id_of,
    step_id_of,
)
from flowstone.core.declaring import shown, view
from flowstone.core.insights.overview import Pulse
from flowstone.core.job import Job
from flowstone.core.notification import NotificationState
from flowstone.core.paging import Page, clamp_limit
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.engine.freshness import FreshnessReader
from flowstone.engine.insights import fleet
from flowstone.engine.insights.asset_list import SORTS, AssetRow, asset_list, select_names
from flowstone.engine.insights.assets import AssetPartitions, AssetSummary, AssetWatch, FailingPartition
from flowstone.engine.insights.automation import AutomationDetails, Automations, AutomationSummary, AutomationWatch
from flowstone.engine.insights.decisions import (
    ApprovalCard,
    AuditLine,
    CheckFinding,
    CheckSummary,
    DecisionWatch,
    KeyChangeLine,
    KeyLine,
)
from flowstone.engine.insights.graph import GraphView, NodeDetails, graph_view, node_details
from flowstone.engine.insights.notifications import (
    FreshnessLine,
    NotificationOverview,
    freshness_line,
    notification_overview,
)
from flowstone.engine.insights.overview import Overview, overview, stale_reason
from flowstone.engine.insights.runs import RunLine, RunView, StepLine, run_lines, run_view, step_lines
from flowstone.engine.insights.search import Found, search
from flowstone.engine.insights.steps import StepDetail, step_detail
from flowstone.errors import (
    ApprovalNotFoundError,
    OptionsError,
    RunNotFoundError,
    UnknownAutomationError,
    did_you_mean,
)


def _says_late(one: FreshnessLine | None) -> str:
    return one.says if one is not None and one.late_since else ""


@view("flow.insights")
class InsightsView(AssetDetails):
    """What pages, `--json` and the JSON API show: frozen dataclasses of plain values. Nothing here writes.

    Example:
        >>> from flowstone import FlowStone
        >>> FlowStone.for_testing([]).insights.workers().alive
        0
    """

    def __init__(self, parts: Parts, automations: Automations | None = None, *, main: Parts | None = None) -> None:
        self._parts = parts
        self._main = main
        self._automations = automations or Automations()
        store = parts.store
        self._fleet = fleet.FleetWatch(parts.graph, store, queues=parts.settings.queues)
        self._logs = LogsView(parts, flush_seconds=0.0)
        self._automation = AutomationWatch(parts.graph, store, self._automations)
        declared = [check for asset in parts.graph for check in parts.checks.declared.of(asset.name)]
        self._decisions = DecisionWatch(parts.graph, store, declared)
        self._freshness = FreshnessReader(parts.graph, store.catalog, store.notifications)
        self._watch = AssetWatch(parts.graph, store, marker=self.pulse, in_background=main is not None)
        self._read_details(parts, self._watch)

    def overview(self) -> Overview:
        """Return what a person sees first: what is broken, what waits for a decision, what runs, how fast.

        Example:
            >>> from flowstone import FlowStone
            >>> FlowStone.for_testing([]).insights.overview().sentence
            'Nothing is broken, and nothing waits for a decision. Nothing runs.'
        """
        return overview(
            self._parts.graph,
            self._parts.store,
            self._watch,
            self._fleet,
            automations=self._automations.ids(self._parts.graph),
            fresh=self.freshness(),
        )

    def search(self, text: str, *, limit: int = 10) -> Found:
        """Find assets, partitions, runs, steps, queues, automations and checks by the beginning of their names.

        Args:
            text: what to find; an asset and the beginning of a partition may stand behind each other.
            limit: how many of each kind at most, 1 to 100.
        """
        parts = self._parts
        return search(
            text,
            parts.graph,
            parts.store,
            self._watch,
            automations=[(one.kind.value, one.name) for one in self._automations.ids(parts.graph)],
            checks=[(one.asset, one.name) for one in parts.checks.declared],
            queues={*parts.settings.queues, *(one.queue for one in parts.graph)},
            of_each=clamp_limit(limit, default=10, maximum=100),
        )

    def system(self) -> System:
        """Return the installation: what is wrong with it, settings, migrations, tables, connections.

        Example:
            >>> from flowstone import FlowStone
            >>> FlowStone.for_testing([]).insights.system().store
            'memory'
        """
        return system(self._parts, main=self._main)

    def pulse(self) -> Pulse:
        """Return a text for each topic that changes when something about it does: cheap, for every second."""
        if self._parts.logs is not None:  # in memory, lines are written when they are read, or their attempt ends
            self._parts.logs.flush(timeout_seconds=0.0)
        return self._parts.store.insights.pulse()

    def assets(self) -> Sequence[AssetSummary]:
        """Return how each declared asset stands: how many of its partitions are committed, failed, active."""
        return self._watch.summaries()

    def partitions(self, asset: AssetLike) -> AssetPartitions:
        """Return the state of each partition of an asset, and the cells of a page for them.

        Args:
            asset: the asset or its name.

        Raises:
            UnknownAssetError: there is no such asset.

        Example:
            >>> from flowstone import FlowStone, StaticPartitions, asset
            >>> @asset(partitions=StaticPartitions(["eu", "us", "asia"]))
            ... def orders(context):
            ...     return 1
            >>> flow = FlowStone.for_testing([orders])
            >>> _ = flow.materialize("orders", partition="us")
            >>> flow.insights.partitions("orders").states.codes
            'ncn'
        """
        return self._watch.partitions(find_asset(self._parts.graph, asset))

    def failing(self, *, assets: int = 20, of_each: int = 1) -> Sequence[FailingPartition]:
        """Return what failed last of those assets that fail, the newest first.

        Args:
            assets: how many assets at most.
            of_each: how many partitions of each.
        """
        return self._watch.failing(assets=assets, of_each=of_each)

    def asset_list(
        self,
        selection: str = "",
        *,
        states: Sequence[str] = (),
        sort: str = "name",
        descending: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[AssetRow]:
        """Return a page of the list of assets.

        Args:
            selection: an expression of the selection language, or a part of a name; empty for all.
            states: only assets in one of these states, such as "failed".
            sort: `name`, `order` (upstream first), `state`, `committed`, `failed` or `partitions`.
            descending: the other way round.
            cursor: `next` of the page before.
            limit: how many at most, up to 500.

        Raises:
            SelectionError: the selection is malformed.
            OptionsError: there is no such order, or the cursor is none.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def raw(): ...
            >>> @asset
            ... def orders(raw): ...
            >>> flow = FlowStone.for_testing([raw, orders])
            >>> [one.name for one in flow.insights.asset_list("+orders", sort="order").items]
            ['raw', 'orders']
        """
        if sort not in SORTS:
            raise OptionsError(f"sort={sort!r} is none of {', '.join(SORTS)}.{did_you_mean(str(sort), SORTS)}")
        page = asset_list(
            self._parts.graph,
            self._parts.checks.declared,
            self._watch.summaries(),
            self._parts.store.insights.assets.health,
            stale=self._stale(),
            selection=selection,
            states=states,
            sort=sort,
            descending=descending,
            cursor=cursor,
            limit=limit,
        )
        fresh = {one.asset: one for one in self.freshness(*(one.name for one in page.items))} if page.items else {}
        return page.map(lambda row: replace(row, late=_says_late(fresh.get(row.name))))

    def graph(self, selection: str = "", *, opened: Sequence[str] = (), closed: Sequence[str] = ()) -> GraphView:
        """Return the graph of the selected assets: nodes with their states, edges, what a failure reaches.

        Args:
            selection: an expression of the selection language, such as `1+orders+1`, or a part of a name.
            opened: groups and fans that stay open although there are many nodes.
            closed: groups that are one node although there are few.

        Raises:
            SelectionError: the selection is malformed.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def raw(): ...
            >>> FlowStone.for_testing([raw]).insights.graph().nodes[0].state
            'missing'
        """
        graph = self._parts.graph
        names = select_names(graph, selection)
        return graph_view(graph, self._watch.summaries(), names, stale=self._stale(), opened=opened, closed=closed)

    def node(self, view: GraphView, node: str) -> NodeDetails | None:
        """Return why a node of a graph is in its state; None when it is not in the picture.

        Args:
            view: what `graph` returned.
            node: the id of the node.
        """
        return node_details(
            self._parts.graph, view, self._watch.summaries(), node, self._watch.failing_of, self._stale()
        )

    def runs(
        self,
        filter: RunFilter | str = "",
        *,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[RunLine]:
        """Return the newest runs that match a filter, without counting a step.

        Args:
            filter: such as `state:failed -kind:backfill asset:orders since:24h`.
            cursor: `next` of the page before.
            limit: how many at most, 1 to 500.

        Raises:
            OptionsError: the filter or the cursor cannot be read.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def one():
            ...     return 1
            >>> flow = FlowStone.for_testing([one])
            >>> _ = flow.materialize("one")
            >>> [(run.state, run.counts.total) for run in flow.insights.runs("asset:one").items]
            [('completed', 1)]
        """
        requested = RunFilter.of(filter)
        return run_lines(
            self._parts.store,
            requested,
            cursor=cursor,
            limit=limit,
            now=datetime.now(UTC),
            label=self._parts.graph.label,
        )

    def run(self, run_id: AnyRun, *, with_partitions: bool = True) -> RunView:
        """Return one run: why steps failed, its steps by asset, its time line, what it was given.

        Args:
            run_id: the run, its handle or its record.
            with_partitions: whether to return the states of its partitions too, when it is a backfill.

        Raises:
            RunNotFoundError: there is no such run.
        """
        return run_view(
            self._parts.store,
            self._parts.graph,
            run_id_of(run_id),
            now=datetime.now(UTC),
            with_partitions=with_partitions,
        )

    def run_steps(
        self,
        run_id: AnyRun,
        *,
        states: Sequence[State] = (),
        assets: Sequence[str] = (),
        error_type: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[StepLine]:
        """Return steps of a run in the order of their planning.

        Args:
            run_id: the run, its handle or its record.
            states: only in these states.
            assets: only of these assets.
            error_type: only with an error of this class.
            cursor: `next` of the page before.
            limit: how many at most, 1 to 500.

        Raises:
            OptionsError: the cursor cannot be read.
        """
        return step_lines(
            self._parts.store,
            run_id_of(run_id),
            states=states,
            assets=assets,
            error_type=error_type,
            cursor=cursor,
            limit=limit,
            label=self._parts.graph.label,
        )

    def workers(self) -> fleet.Workers:
        """Return the processes that have a lease, or lost it within the last day."""
        return self._fleet.workers()

    def queues(self) -> fleet.Queues:
        """Return all queues (what waits, what runs, who serves them, how fast), and the limits of the fleet."""
        return self._fleet.queues()

    def queue(self, name: str) -> fleet.QueueDetails:
        """Return one queue with its last hour, what it runs and who serves it.

        Raises:
            OptionsError: nobody knows this queue.
        """
        found = self._fleet.queue(name)
        if found is None:
            known = [one.name for one in self._fleet.queues().items]
            raise OptionsError(f"There is no queue {shown(name)}.{did_you_mean(name, known)}")
        return found

    def limits(self) -> Sequence[fleet.NamedLimit]:
        """Return the limits of the fleet with how much of them is taken, and who waits."""
        return self._fleet.limits()

    def throughput(self, queue: str | None = None) -> Sequence[fleet.Minute]:
        """Return what ended and failed in each minute of the last hour.

        Args:
            queue: on this queue only; None for everything.
        """
        return self._fleet.minutes(None if queue is None else [queue])

    def step(self, step: AnyStep) -> StepDetail:
        """Return a step: its error first, its attempts, what it read and made, and what it waits for.

        Args:
            step: a handle, or an id.

        Raises:
            RunNotFoundError: there is no such step.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def one():
            ...     raise ValueError("no rows")
            >>> flow = FlowStone.for_testing([one])
            >>> flow.insights.step(flow.schedule("one")).error.line
            'ValueError: no rows'
        """
        step_id = step_id_of(step)
        record = None if step_id is None else self._parts.store.catalog.step(step_id)
        if record is None:
            raise RunNotFoundError("step", str(step.id if isinstance(step, Job) else step))
        waiting = self._parts.waiting
        waits_for = waiting.of_step(record)
        if (root := waiting.root_of(record)) is not None:
            ended = f"{self._parts.graph.describe(root.asset, root.partition_key)} ended as {root.state.value}"
            waits_for = [f"{ended} (step {root.id})", *waits_for]
        return step_detail(
            self._parts.store, self._parts.graph, record.id, waits_for=waits_for, reason=waiting.reason_of(record)
        )

    def logs(
        self,
        step: AnyStep,
        attempt: int | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        newest: bool = False,
        limit: int = 500,
    ) -> LogPage:
        """Return lines that an attempt has logged, as far as they are written; see `flow.logs.of`."""
        return self._logs.of(step, attempt, after=after, before=before, newest=newest, limit=limit)

    def run_logs(
        self, run: AnyRun, *, after: str | None = None, newest: bool = False, limit: int = 500
    ) -> RunLogPage:
        """Return lines that the steps of a run have logged, as far as they are written; see `flow.logs.of_run`."""
        return self._logs.of_run(run, after=after, newest=newest, limit=limit)

    def automations(
        self,
        *,
        kind: str | None = None,
        state: str | None = None,
        text: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[AutomationSummary]:
        """Return schedules, sensors and conditions with their last ticks.

        Args:
            kind: only `schedule`, `sensor` or `condition`.
            state: only those that are `failing`, `late`, `paused`, `active` or `new`.
            text: only those with this in name, description or selection.
            cursor: `next` of the page before.
            limit: how many.

        Example:
            >>> from flowstone import FlowStone, Schedule, asset
            >>> @asset
            ... def sales():
            ...     return 42
            >>> flow = FlowStone.for_testing([sales], schedules=[Schedule("sales", "30 6 * * *")])
            >>> [(one.name, one.when) for one in flow.insights.automations().items]
            [('sales', 'At 06:30 every day')]
        """
        now = datetime.now(UTC)
        return self._automation.page(now, kind=kind, state=state, text=text, cursor=cursor, limit=limit)

    def automation(self, kind: str, name: str, *, partition: PartitionKey | None = None) -> AutomationDetails:
        """Return one automation with its last ticks, its cursor, or what its condition says.

        Args:
            kind: `schedule`, `sensor` or `condition`.
            name: its name; of a condition that of its asset.
            partition: of a condition: the encoded partition to judge; None for the newest ones.

        Raises:
            UnknownAutomationError: there is none.
        """
        found = self._automation.get(kind, name, datetime.now(UTC), partition=partition)
        if found is None:
            known = [one.name for one in self._automation.page(datetime.now(UTC), kind=kind, limit=500).items]
            raise UnknownAutomationError(kind, name, known)
        return found

    def automation_counts(self) -> dict[str, int]:
        """Return how many automations are in each state."""
        return self._automation.counts(datetime.now(UTC))

    def late_automations(self, *, limit: int = 20) -> Sequence[AutomationSummary]:
        """Return what should have been evaluated by now, the latest first."""
        return self._automation.late(datetime.now(UTC), limit=limit)

    def approvals_waiting(self) -> int:
        """Return how many requests wait for a decision; counted to 1,000."""
        return self._decisions.waiting()

    def freshness(self, *assets: AssetLike) -> Sequence[FreshnessLine]:
        """Return how old the data are of assets that declare `fresh_within`; of all such when none is named.

        Raises:
            UnknownAssetError: nothing is declared or recorded under a name.
        """
        names = [self._recorded(one).name for one in assets] or self._freshness.assets
        return [freshness_line(one) for one in self._freshness.read(names, datetime.now(UTC)).values()]

    def notifications(
        self, *, state: NotificationState | None = None, limit: int | None = None
    ) -> NotificationOverview:
        """Return what people were notified of, or will be, the newest first; and by which rules.

        Args:
            state: only those in this state.
            limit: how many at most.
        """
        parts = self._parts
        return notification_overview(
            parts.store.notifications,
            parts.notifications.composer,
            parts.notifications.senders,
            state=state,
            limit=clamp_limit(limit),
        )

    def approvals(self, *, limit: int | None = None) -> Page[ApprovalCard]:
        """Return the requests that wait for a decision, the most urgent first."""
        return self._decisions.pending(datetime.now(UTC), limit=limit)

    def approvals_decided(self, *, cursor: str | None = None, limit: int | None = None) -> Page[ApprovalCard]:
        """Return the requests that are over, the newest first."""
        return self._decisions.decided(datetime.now(UTC), cursor=cursor, limit=limit)

    def approval(self, approval_id: int) -> ApprovalCard:
        """Return one request.

        Raises:
            ApprovalNotFoundError: there is no such request.
        """
        found = self._decisions.approval(approval_id, datetime.now(UTC))
        if found is None:
            raise ApprovalNotFoundError(str(approval_id))
        return found

    def checks(
        self,
        *,
        asset: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[CheckSummary]:
        """Return the declared checks with their last results, those that fail first.

        Args:
            asset: only of this asset.
            state: only those that are `failed`, `stale` (a warning), `completed` or `unstarted`.
            cursor: `next` of the page before.
            limit: how many.
        """
        return self._decisions.checks(asset=asset, state=state, cursor=cursor, limit=limit)

    def checks_failing(self, *, limit: int | None = None) -> Page[CheckFinding]:
        """Return results that are failures and the newest of their check and partition, the newest first."""
        return self._decisions.failing(limit=limit)

    def check_findings(
        self, asset: str, check: str | None = None, *, failed: bool = False, limit: int | None = None
    ) -> Page[CheckFinding]:
        """Return the last results of an asset's checks, newest first.

        Args:
            asset: whose.
            check: only of this check.
            failed: only those that did not pass.
            limit: how many.

        Raises:
            UnknownAssetError: there is no such asset.
        """
        return self._decisions.findings(
            find_asset(self._parts.graph, asset).name, check, failed=failed, limit=limit
        )

    def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[AuditLine]:
        """Return lines of the audit log, newest first.

        Args:
            actor: only what this person or program did.
            action: only this action, such as `run.cancelled`, or all of a kind, such as `run`.
            subject: only those about this, such as `approval:7`.
            since: not before this time.
            until: before this time.
            cursor: `next` of the page before.
            limit: how many.
        """
        return self._decisions.audit(
            actor=actor, action=action, subject=subject, since=since, until=until, cursor=cursor, limit=limit
        )

    def _stale(self) -> dict[str, str]:
        """Return why assets are stale, of those that are known to be."""
        graph = self._parts.graph
        return {one.asset: stale_reason(graph, one) for one in self._watch.stale_assets() or ()}

    def partition_keys(
        self, name: str, *, text: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> Page[KeyLine]:
        """Return keys of dynamic partitions in the order of their addition.

        Args:
            name: of the definition.
            text: only keys with this in them.
            cursor: `next` of the page before.
            limit: how many.
        """
        return self._decisions.keys(name, text=text, cursor=cursor, limit=limit)

    def partition_key_changes(self, name: str, *, limit: int = 50) -> Sequence[KeyChangeLine]:
        """Return who added or removed which keys of dynamic partitions, the newest first."""
        return self._decisions.key_changes(name, limit=clamp_limit(limit))


class AsyncInsightsView(AsyncFlowStone):
    """`flow.aio.insights`: the verbs of `flow.insights`, awaitable."""

    overview = awaitable(InsightsView.overview)
    search = awaitable(InsightsView.search)
    system = awaitable(InsightsView.system)
    pulse = awaitable(InsightsView.pulse)
    assets = awaitable(InsightsView.assets)
    partitions = awaitable(InsightsView.partitions)
    asset = awaitable(InsightsView.asset)
    asset_history = awaitable(InsightsView.asset_history)
    asset_checks = awaitable(InsightsView.asset_checks)
    target = awaitable(InsightsView.target)
    versions = awaitable(InsightsView.versions)
    version = awaitable(InsightsView.version)
    preview = awaitable(InsightsView.preview)
    partition_range = awaitable(InsightsView.partition_range)
    failing = awaitable(InsightsView.failing)
    asset_list = awaitable(InsightsView.asset_list)
    graph = awaitable(InsightsView.graph)
    node = awaitable(InsightsView.node)
    runs = awaitable(InsightsView.runs)
    run = awaitable(InsightsView.run)
    run_steps = awaitable(InsightsView.run_steps)
    workers = awaitable(InsightsView.workers)
    queues = awaitable(InsightsView.queues)
    queue = awaitable(InsightsView.queue)
    limits = awaitable(InsightsView.limits)
    throughput = awaitable(InsightsView.throughput)
    step = awaitable(InsightsView.step)
    logs = awaitable(InsightsView.logs)
    run_logs = awaitable(InsightsView.run_logs)
    automations = awaitable(InsightsView.automations)
    automation = awaitable(InsightsView.automation)
    automation_counts = awaitable(InsightsView.automation_counts)
    late_automations = awaitable(InsightsView.late_automations)
    approvals_waiting = awaitable(InsightsView.approvals_waiting)
    approvals = awaitable(InsightsView.approvals)
    approvals_decided = awaitable(InsightsView.approvals_decided)
    freshness = awaitable(InsightsView.freshness)
    notifications = awaitable(InsightsView.notifications)
    approval = awaitable(InsightsView.approval)
    checks = awaitable(InsightsView.checks)
    checks_failing = awaitable(InsightsView.checks_failing)
    check_findings = awaitable(InsightsView.check_findings)
    audit = awaitable(InsightsView.audit)
    partition_keys = awaitable(InsightsView.partition_keys)
    partition_key_changes = awaitable(InsightsView.partition_key_changes)
