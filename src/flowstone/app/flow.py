"""FlowStone: the app. It wires parts together and delegates its verbs; there is no logic here to find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, overload

from flowstone.app.admin import (
    AsyncApprovalsView,
    AsyncAuditView,
    AsyncChecksView,
    AsyncExecutorsView,
    AsyncQueuesView,
    AsyncRetentionView,
)
from flowstone.app.assembled import AssembledApp
from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.automation import AsyncSchedulesView, AsyncSensorsView
from flowstone.app.bulk import AsyncBulkView
from flowstone.app.committed import CommittedValues
from flowstone.app.conditions import AsyncConditionsView
from flowstone.app.launch import AsyncLaunchView
from flowstone.app.lineage import AsyncLineageView
from flowstone.app.logs import AsyncLogsView
from flowstone.app.notifications import AsyncNotificationsView
from flowstone.app.partition_keys import AsyncPartitionKeysView
from flowstone.app.results import Progress, RunHandle, RunResult
from flowstone.app.runs import AnyStep, AsyncRunsView
from flowstone.app.targets import (
    all_targets,
    backfill_targets,
    describe,
    find_asset,
    leaves,
    target_of,
)
from flowstone.app.versions import AsyncVersionsView
from flowstone.core.asset import Asset
from flowstone.core.declaring import view
from flowstone.core.generic import Value
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.partitions import Partition
from flowstone.core.selection import Selection, select
from flowstone.core.state import State
from flowstone.engine.planner import Plan
from flowstone.engine.run_spec import BACKFILL_PRIORITY, BACKFILL_QUEUE, make_spec
from flowstone.errors import OptionsError, StepCancelledError, StepFailedError
from flowstone.protocols import Executor

if TYPE_CHECKING:
    from flowstone.app.insights import AsyncInsightsView


@view("flow")
class FlowStone(AssembledApp, CommittedValues):
    """An app: assets with the places where they run, are stored and are recorded.

    Args:
        assets: the assets; everything they depend on must be among them.
        checks: what looks at their values; see `flowstone.check`.
        database_url: PostgreSQL to record in and to queue on (`postgresql://...`; an engine of SQLAlchemy or a
            pool of psycopg has the same address, and connections are our own), or `embedded` for the one
            that comes in a wheel. Default: `FLOWSTONE_DATABASE_URL` or the settings file; without any of
            these everything stays in memory.
        project: which of the projects that share the database, each with assets, queues, limits, automations and
            workers of its own. Default: `FLOWSTONE_PROJECT` or the settings file.
        io: more IO managers by name, or replacements for `memory`, `filesystem`, `postgres`.
        default_io: IO manager of assets that name none; `memory` in memory, `postgres` with a database.
        resources: name to object, function, or function returning a context manager; the parameters of such a
            function are the names of other resources, which are opened before it.
        hooks: wrapped around every step, first one outermost; or name to hook (also as an element of the list),
            for those that a run uses by name.
        executors: more executors by name.
        compute: where the functions of assets are called that name it, `@asset(compute="dask")`: name to an object
            such as `DaskCompute("tcp://...")`.
        notifiers: functions that are called for every request for approval, and for its decision.
        observers: what sends elsewhere what happens to this app's work, such as
            `flowstone.observability.OpenTelemetry()`.
        notify: who is notified of what; see `flowstone.Notify`.
        schedules: what runs at certain times.
        sensors: what looks now and then whether something should run.
        settings: settings to use instead of reading file and environment.

    Raises:
        DefinitionError: the assets do not fit together.
        ConfigurationError: a setting cannot work.

    Example:
        >>> from flowstone import asset
        >>> @asset
        ... def numbers():
        ...     return [1, 2, 3]
        >>> @asset
        ... def doubled(numbers):
        ...     return [2 * n for n in numbers]
        >>> flow = FlowStone([numbers, doubled])
        >>> flow.materialize_all("doubled").value
        [2, 4, 6]
    """

    @cached_property
    def aio(self) -> AsyncFlow:
        """Every verb and every view as an awaitable that never blocks the event loop.

        `await flow.aio.materialize(...)` is `flow.materialize(...)` in a thread, with the context variables of the
        caller.

        Example:
            >>> import asyncio
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def one():
            ...     return 1
            >>> async def main():
            ...     done = await FlowStone([one]).aio.materialize("one")
            ...     return done.value
            >>> asyncio.run(main())
            1
        """
        return AsyncFlow(self)

    def materialize(
        self,
        asset: Asset[..., Value] | str,
        *,
        partition: Partition = None,
        wait_for_inputs: bool = False,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
    ) -> Materialization[Value]:
        """Run one asset, whose inputs must be ready, and wait for it.

        Args:
            asset: the asset or its name.
            partition: which partition; None for an asset without partitions.
            wait_for_inputs: wait for inputs that are missing until they are made, at most
                `deps_timeout_seconds`. Without it only those are waited for that a durable step is about to make.
            allow_incomplete: compute the partition, now and once more when it is over, although it is not over.
            executor: `auto` (Oban with a database, else sync), `sync`, `async`, `serial`, `oban`, a registered
                name, or an executor object.
            executor_opts: options of the executor for this call; `retry=True` has inline executors retry.
            force: compute the asset even though a committed success exists.
            run_id: id for the run; the same id again answers with the same run.
            priority: 0 (first) to 9; the asset's own, else 4, when None.
            config: config of the asset, checked against its `config=` type: a dict, or an object of the type; in a
                run over several assets by name, such as `{"orders": {"limit": 10}}`.
            tags: names to find the run by, `flow.runs.latest(tag=...)`.
            metadata: facts about the run, JSON.
            io: name of the IO manager that keeps the targets of this run.
            resources: resources that stand in for required ones, by name, such as `{"db": "test_db"}`.
            hooks: names of hooks around the steps of this run.
            hooks_config: config of these hooks, by name.

        Returns:
            The materialization; its state says whether it was computed or reused.

        Raises:
            UnknownAssetError, UnknownPartitionError: there is no such thing.
            IncompletePartitionError: the partition is not over, or reads one that is not.
            DependencyNotReadyError: inputs are missing that nobody is about to make; names them, and the command.
            BaseException: what the asset raised, on executors in this process, elsewhere StepFailedError.
        """
        target = target_of(find_asset(self.parts.graph, asset), partition)
        # more than fifteen keywords would be put into a dict
        spec = make_spec(
            "materialize",
            target[0],
            (target,),
            executor,
            executor_opts,
            force,
            run_id=run_id,
            priority=priority,
            wait_for_inputs=wait_for_inputs,
            explicit=(target[0],),
            allow_incomplete=allow_incomplete,
            config=config,
            tags=tags,
            metadata=metadata,
            io=io,
            resources=resources,
            hooks=hooks,
            hooks_config=hooks_config,
        )
        run = None
        while True:
            run = self._placement.submit(spec, instead_of=run)
            position = run.requested_for
            step, job = run.steps[position], run.job(position)
            if not step.state.is_terminal and not step.deduplicated:
                return self._placement.driving.execute(run, job, alone=True)
            try:
                return self.runs.wait_for(job, timeout_seconds=run.options.get("wait_timeout"))
            except (StepFailedError, StepCancelledError):
                if not self._placement.lost_what_it_joined(run):
                    raise

    def schedule(
        self,
        asset: Asset[..., Value] | str,
        *,
        partition: Partition = None,
        scheduled_at: datetime | None = None,
        wait_for_inputs: bool | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        connection: object = None,
    ) -> Job[Value]:
        """Place the same work as `materialize` and return its handle at once.

        Args:
            asset: the asset or its name.
            partition: which partition.
            scheduled_at: earliest start, timezone-aware; None starts it as soon as there is room.
            wait_for_inputs: whether it waits for inputs that are missing; None does so on a durable executor.
            allow_incomplete: see `materialize`.
            executor: see `materialize`.
            executor_opts: see `materialize`.
            force: compute what is asked for even though it is committed.
            run_id: see `materialize`.
            priority: see `materialize`.
            config: see `materialize`; so are `tags`, `metadata`, `io`, `resources`, `hooks` and `hooks_config`.
            connection: places the job inside the transaction that is open there: a connection of psycopg, or a
                connection or session of SQLAlchemy on psycopg, awaited or not. It exists exactly if that commits.

        Returns:
            The job; `deduplicated` when the same work was under way already.

        Raises:
            CapabilityError: the executor cannot place work for later.
            OptionsError: `scheduled_at` has no time zone.
        """
        target = target_of(find_asset(self.parts.graph, asset), partition)
        run = self._placement.submit(
            make_spec(
                kind="schedule",
                selection=target[0],
                targets=(target,),
                executor=executor,
                executor_opts=executor_opts,
                force=force,
                run_id=run_id,
                priority=priority,
                scheduled_at=scheduled_at,
                watched=False,
                wait_for_inputs=wait_for_inputs,
                explicit=(target[0],),
                allow_incomplete=allow_incomplete,
                config=config,
                tags=tags,
                metadata=metadata,
                io=io,
                resources=resources,
                hooks=hooks,
                hooks_config=hooks_config,
            ),
            connection=connection,
        )
        step, job = run.steps[run.requested_for], run.job(run.requested_for)
        if step.state.is_terminal or step.deduplicated:
            return job
        return self._placement.driving.schedule(run, job)

    def job_status(self, job: AnyStep) -> State:
        """Return the state of a job (or of the job with this id), from our own tables.

        Returns:
            One of `State`; `not_found` for a job that was never placed here.
        """
        return self.runs.step_state(job)

    def cancel_job(self, job: AnyStep) -> State:
        """Ask for a job's end and return its state now.

        Queued work never starts. Running work is signalled through its cancellation token and is `cancelling`
        until it is over. Cancelling again, or after the end, changes nothing and answers with the truth.

        Raises:
            RunNotFoundError: there is no such job.
        """
        return self.runs.cancel_step(job)

    @overload
    def materialize_all(
        self,
        selection: Selection,
        *,
        partition: Partition = None,
        force_deps: bool = False,
        max_concurrency: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        wait: Literal[True] = True,
    ) -> RunResult: ...
    @overload
    def materialize_all(
        self,
        selection: Selection,
        *,
        partition: Partition = None,
        force_deps: bool = False,
        max_concurrency: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        wait: Literal[False],
        connection: object = None,
    ) -> RunHandle: ...
    def materialize_all(
        self,
        selection: Selection,
        *,
        partition: Partition = None,
        force_deps: bool = False,
        max_concurrency: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        wait: bool = True,
        connection: object = None,
    ) -> RunResult | RunHandle:
        """Materialize assets and whatever is missing upstream of them, and wait.

        Args:
            selection: asset, name or selection expression.
            partition: partition of the selected assets; None takes all complete ones.
            force_deps: compute what is upstream as well, though committed.
            max_concurrency: most steps at once.
            on_progress: called with how far it is.
            allow_incomplete: see `materialize`; what is upstream and not over is computed then as well.
            executor: see `materialize`.
            executor_opts: see `materialize`.
            force: compute what is asked for even though it is committed.
            run_id: see `materialize`.
            priority: see `materialize`.
            config: see `materialize`; so are `tags`, `metadata`, `io`, `resources`, `hooks` and `hooks_config`.
            wait: whether to wait for the end; else the answer is a `RunHandle`, which needs a durable executor.
            connection: places the run inside the transaction that is open there: a connection of psycopg, or a
                connection or session of SQLAlchemy on psycopg, awaited or not. It exists exactly if that commits.
                Needs `wait=False`.

        Returns:
            The outcome; failures do not raise, see `RunResult.ok` and `raise_for_failures`.
        """
        names = leaves(self.graph, select(self.graph, selection))
        spec = make_spec(
            kind="materialize_all",
            selection=describe(selection),
            targets=all_targets(self.graph, names, partition, datetime.now(UTC)),
            explicit=() if partition is None else names,
            allow_incomplete=allow_incomplete,
            executor=executor,
            executor_opts=executor_opts,
            expand=None,
            force=force,
            force_deps=force_deps,
            run_id=run_id,
            priority=priority,
            max_concurrency=max_concurrency,
            config=config,
            tags=tags,
            metadata=metadata,
            io=io,
            resources=resources,
            hooks=hooks,
            hooks_config=hooks_config,
        )
        if not wait:
            return self.runs.handle(self._placement.start(spec, connection=connection).id)
        if connection is not None:
            raise OptionsError("connection=: the run begins when your transaction commits; pass wait=False.")
        return self._placement.run(spec, on_progress)

    @overload
    def backfill(
        self,
        selection: Selection,
        *,
        partitions: Iterable[Partition] | None = None,
        max_concurrency: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        wait_for_inputs: bool | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        wait: Literal[True] = True,
    ) -> RunResult: ...
    @overload
    def backfill(
        self,
        selection: Selection,
        *,
        partitions: Iterable[Partition] | None = None,
        max_concurrency: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        wait_for_inputs: bool | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        wait: Literal[False],
        connection: object = None,
    ) -> RunHandle: ...
    def backfill(
        self,
        selection: Selection,
        *,
        partitions: Iterable[Partition] | None = None,
        max_concurrency: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        wait_for_inputs: bool | None = None,
        allow_incomplete: bool = False,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        force: bool = False,
        run_id: str | None = None,
        priority: int | None = None,
        config: object = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        wait: bool = True,
        connection: object = None,
    ) -> RunResult | RunHandle:
        """Materialize many partitions of the selected assets, and wait.

        Only selected assets run: `+name` adds what is upstream.

        Args:
            selection: asset, name or selection expression.
            partitions: partitions of the first selected partitioned asset; None takes all complete ones.
            max_concurrency: most steps at once, in the whole fleet on a durable executor.
            on_progress: called with how far it is.
            wait_for_inputs: whether steps wait for inputs that are missing; None does so on a durable executor.
            allow_incomplete: see `materialize_all`.
            executor: see `materialize`.
            executor_opts: see `materialize`.
            force: compute what is asked for even though it is committed.
            run_id: see `materialize`.
            priority: 0 (first) to 9; 8 when None, so that interactive work overtakes backfills.
            config: see `materialize`; so are `tags`, `metadata`, `io`, `resources`, `hooks` and `hooks_config`.
            wait: whether to wait for the end; else the answer is a `RunHandle`, which needs a durable executor.
            connection: places the run inside the transaction that is open there: a connection of psycopg, or a
                connection or session of SQLAlchemy on psycopg, awaited or not. It exists exactly if that commits.
                Needs `wait=False`.

        Returns:
            Counts and errors; a backfill with failures is not a success.
        """
        targets, names, explicit = backfill_targets(
            self.graph, selection, partitions, datetime.now(UTC), allow_incomplete=allow_incomplete
        )
        spec = make_spec(
            kind="backfill",
            selection=describe(selection),
            targets=targets,
            executor=executor,
            executor_opts=executor_opts,
            expand=names,
            force=force,
            run_id=run_id,
            priority=priority,
            usual_priority=BACKFILL_PRIORITY,
            queue=BACKFILL_QUEUE,
            max_concurrency=max_concurrency,
            wait_for_inputs=wait_for_inputs,
            explicit=explicit,
            allow_incomplete=allow_incomplete,
            config=config,
            tags=tags,
            metadata=metadata,
            io=io,
            resources=resources,
            hooks=hooks,
            hooks_config=hooks_config,
        )
        if not wait:
            return self.runs.handle(self._placement.start(spec, connection=connection).id)
        if connection is not None:
            raise OptionsError("connection=: the run begins when your transaction commits; pass wait=False.")
        return self._placement.run(spec, on_progress)

    def plan(
        self,
        selection: Selection,
        *,
        partition: Partition = None,
        partitions: Iterable[Partition] | None = None,
        force: bool = False,
        force_deps: bool = False,
        config: object = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        allow_incomplete: bool = False,
    ) -> Plan:
        """Return what `materialize_all` (or, with `partitions`, `backfill`) would do, without doing it."""
        now = datetime.now(UTC)
        expand: tuple[str, ...] | None = None
        if partitions is not None:
            targets, expand, explicit = backfill_targets(
                self.graph, selection, partitions, now, allow_incomplete=allow_incomplete
            )
        else:
            chosen = leaves(self.graph, select(self.graph, selection))
            targets = all_targets(self.graph, chosen, partition, now)
            explicit = () if partition is None else tuple(chosen)
        return self._placement.plan(
            make_spec(
                kind="plan",
                selection=describe(selection),
                targets=targets,
                expand=expand,
                force=force,
                force_deps=force_deps,
                explicit=explicit,
                allow_incomplete=allow_incomplete,
                config=config,
                io=io,
                resources=resources,
            )
        )


class AsyncFlow(AsyncFlowStone):
    """`flow.aio`: the verbs and the views of `flow`, awaitable."""

    materialize = awaitable(FlowStone.materialize)
    schedule = awaitable(FlowStone.schedule)
    job_status = awaitable(FlowStone.job_status)
    cancel_job = awaitable(FlowStone.cancel_job)
    materialize_all = awaitable(FlowStone.materialize_all)
    backfill = awaitable(FlowStone.backfill)
    plan = awaitable(FlowStone.plan)
    load = awaitable(FlowStone.load)
    exists = awaitable(FlowStone.exists)
    invalidate = awaitable(FlowStone.invalidate)
    why = awaitable(FlowStone.why)
    history = awaitable(FlowStone.history)
    reading = awaitable(FlowStone.reading)
    close = awaitable(FlowStone.close)

    def __init__(self, flow: FlowStone) -> None:
        super().__init__(flow)
        self._flow = flow
        self.runs = AsyncRunsView(flow.runs, self._pool)
        self.bulk = AsyncBulkView(flow.bulk, self._pool)
        self.executors = AsyncExecutorsView(flow.executors, self._pool)
        self.queues = AsyncQueuesView(flow.queues, self._pool)
        self.conditions = AsyncConditionsView(flow.conditions, self._pool)
        self.partitions = AsyncPartitionKeysView(flow.partitions, self._pool)
        self.checks = AsyncChecksView(flow.checks, self._pool)
        self.approvals = AsyncApprovalsView(flow.approvals, self._pool)
        self.notifications = AsyncNotificationsView(flow.notifications, self._pool)
        self.audit = AsyncAuditView(flow.audit, self._pool)
        self.retention = AsyncRetentionView(flow.retention, self._pool)
        self.launch = AsyncLaunchView(flow.launch, self._pool)
        self.lineage = AsyncLineageView(flow.lineage, self._pool)
        self.logs = AsyncLogsView(flow.logs, self._pool)
        self.versions = AsyncVersionsView(flow.versions, self._pool)
        self.schedules = AsyncSchedulesView(flow.schedules, self._pool)
        self.sensors = AsyncSensorsView(flow.sensors, self._pool)

    @cached_property
    def insights(self) -> AsyncInsightsView:
        """`flow.insights`, awaitable."""
        view_of: type[AsyncInsightsView] = import_module("flowstone.app.insights").AsyncInsightsView
        return view_of(self._flow.insights, self._pool)
