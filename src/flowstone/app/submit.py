"""From a request to placed steps, and through the executor to their end."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flowstone import telemetry
from flowstone.app.asynchronous import caller_loop
from flowstone.app.build import Parts
from flowstone.app.details import NOTHING_GIVEN
from flowstone.app.driving import Driving, SubmittedRun, as_range, terms_of
from flowstone.app.results import Progress, RunResult
from flowstone.app.targets import backfill_targets, describe, refuse_items
from flowstone.core.actor import actor_variable
from flowstone.core.automation.record import PreparedRun
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.capability import Capability
from flowstone.core.forks import renew_after_fork
from flowstone.core.limits import Limit
from flowstone.core.outcome import PROCESS_LOST
from flowstone.core.partitions import NO_PARTITION, PartitionKey
from flowstone.core.retry import NO_RETRY
from flowstone.core.run_details import NO_DETAILS, RunDetails
from flowstone.core.selection import select
from flowstone.core.state import State
from flowstone.core.step import NewRange, NewRun, NewStep, PlacedStep, Target, make_run
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.planner import Plan
from flowstone.engine.run_spec import NORMAL_PRIORITY, PartitionTargets, RunSpec
from flowstone.engine.step_log import emit_placed
from flowstone.errors import CapabilityError, DefinitionError, OptionsError, PlanOutdatedError
from flowstone.executors.inline import (
    NO_PLACING_OPTIONS,
    PLACING_OPTIONS,
    PlacingOptions,
    check_call,
    check_portable,
    placing_options,
    seconds_option,
)
from flowstone.executors.select import limits_of
from flowstone.protocols import Executor, Ledger, OpensRuns
from flowstone.stores.postgres.queue import shapes_at_work
from flowstone.stores.postgres.store import PostgresStore

log = logging.getLogger("flowstone")


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_second = 0, ""
_DURABLE = Capability.DURABLE  # read once: a member is looked up by the class of its enumeration each time
# of its own, so that a program that seeds the random numbers of its process does not repeat run ids
_random = random.Random()  # noqa: S311 - names runs, keeps no secret
_bits = _random.getrandbits
renew_after_fork(_random, lambda own: own.seed())
_EVERY = 1_000_000
_REPLAN_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 1.0
_COMPARED_SECONDS = 300.0
_DIRECT = ("backfill", "retry")
"""Kinds of runs whose steps workers begin without jobs of their own."""
_WAITED_FOR = ("materialize", "materialize_all")
DEFAULT_WINDOW = 1000
"""Most steps of a durable backfill on the queue at once when nothing else was asked for: two backfills take turns
instead of queueing one behind the other, and the queue stays short."""


class Placement:
    """Plans, records and drives the requests of one app."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._compare_at = 0.0
        self._auto = parts.settings.executor
        if self._auto == "auto":
            self._auto = "oban" if parts.store.durable else "sync"
        self.driving = Driving(parts)

    def executor(self, requested: str | Executor) -> Executor:
        """Resolve an executor; `auto` is Oban when the store is shared and can carry it, else sync."""
        return self._parts.executors.get(
            self._auto if isinstance(requested, str) and requested == "auto" else requested
        )

    def chosen(self, requested: str | Executor) -> str | Executor:
        """Return what `auto` stands for, and anything else as it is."""
        return self._auto if isinstance(requested, str) and requested == "auto" else requested

    def plan(self, spec: RunSpec) -> Plan:
        """Plan a run without placing anything.

        Raises:
            OptionsError: what it says of its run cannot work.
        """
        details = self._parts.details.read(spec)
        plan = self._plan(spec, self._parts.details.same_config(spec, details))
        self._parts.details.complete(details, plan.running())
        return plan

    def check_request(self, request: RunRequest) -> None:
        """Refuse a request whose config or parts could not work, long before it is placed.

        Raises:
            OptionsError: see `FlowStone.materialize`.
        """
        names = select(self._parts.graph, request.selection)
        targets = [(name, NO_PARTITION) for name in names]  # of whatever partition
        self._parts.details.read(self._spec_of(request, targets, kind="check", expand=names))

    def _plan(
        self, spec: RunSpec, same_config: Mapping[str, str | None], scheduled_at: datetime | None = None
    ) -> Plan:
        # what was not over at a tick that is made up for may be over by now, or when a step is to start
        now = present = datetime.now(UTC)
        if spec.now is not None or scheduled_at is not None:
            present = max(now, spec.now or now, scheduled_at or now)
        return self._parts.planner.plan(spec, now=spec.now or now, present=present, same_config=same_config)

    def submit(
        self, spec: RunSpec, *, connection: object = None, instead_of: SubmittedRun | None = None
    ) -> SubmittedRun:
        """Plan a run, check it, and record it with all its steps in one transaction.

        Args:
            spec: what is asked for.
            connection: records the run inside the transaction that is open there.
            instead_of: run of the same request that this one goes on for.

        Raises:
            DependencyNotReadyError: inputs are missing that nothing in the plan provides.
            CapabilityError: the executor does not offer what is asked for.
            FlowStoneError: anything else that could not work; nothing was placed.
        """
        executor = self.executor(spec.executor)
        placing = placing_of(spec, executor)
        if self._parts.store.durable:
            self.warn_of_disagreements()
        within = None if connection is None else self._within(connection, executor)
        if _DURABLE in executor.capabilities and self._parts.store.ranges is not None:
            whole = as_range(spec, placing, self._parts.graph, executor, self._parts.reader)
            if whole is not None:
                open_range = self._parts.store.ranges.open_run if within is None else within.open_range
                return self._submit_whole(spec, placing, whole, executor, open_range, instead_of)
        ledger: Ledger | OpensRuns = self._parts.store.ledger if within is None else within
        run, plan = self.prepare(spec, executor, placing, instead_of=instead_of)
        try:
            placed = ledger.open_run(run, plan.steps)
        except PlanOutdatedError as error:
            run, plan, placed = self._planned_again(
                lambda: self.prepare(spec, executor, placing, instead_of=instead_of), ledger, error
            )
        if plan.missing and not run.durable:
            self._let_wait(plan, placed)
        if telemetry.listeners:
            emit_placed(run, plan.steps, placed)
            if all(one.state.is_terminal for one in placed):
                self._emit_ended(run.id)
        options = options_for(spec, executor) if spec.executor_opts else {}
        return SubmittedRun(spec, run, plan, executor, options, placed, self._parts.store.catalog.run_details)

    def _planned_again(
        self, prepare: Callable[[], tuple[NewRun, Plan]], ledger: Ledger | OpensRuns, error: PlanOutdatedError
    ) -> tuple[NewRun, Plan, list[PlacedStep]]:
        """Plan and place again while others commit or end steps of the plan before it is placed."""
        deadline, pause = time.monotonic() + _REPLAN_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            log.debug("A request is planned again: %s", error)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads those that collided
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)
            run, plan = prepare()
            try:
                return run, plan, ledger.open_run(run, plan.steps)
            except PlanOutdatedError as again:
                if time.monotonic() >= deadline:
                    raise
                error = again

    def _let_wait(self, plan: Plan, placed: Sequence[PlacedStep]) -> None:
        """Let the steps whose inputs are missing wait for them in this process."""
        waiting = [
            one.id
            for one, planned in zip(placed, plan.steps, strict=True)
            if (planned.asset, planned.partition_key) in plan.missing and not one.deduplicated
        ]
        self._parts.inline.let_wait(waiting)

    def prepare(
        self,
        spec: RunSpec,
        executor: Executor,
        placing: PlacingOptions | None = None,
        *,
        instead_of: SubmittedRun | None = None,
    ) -> tuple[NewRun, Plan]:
        """Plan a run for an executor and check it; nothing is recorded.

        Args:
            spec: what is asked for.
            executor: where it is to run.
            placing: how its jobs are placed; see `placing_of`.
            instead_of: see `submit`.

        Raises:
            FlowStoneError: see `submit`.
        """
        if placing is None:
            placing = placing_of(spec, executor)
        durable = _DURABLE in executor.capabilities
        retry = check_options_for(spec, placing, executor)
        refuse_items(self._parts.graph, spec.targets)
        given = NO_DETAILS if spec.is_plain else self._parts.details.read(spec)
        same_config = NOTHING_GIVEN if given is NO_DETAILS else self._parts.details.same_config(spec, given)
        plan = self._plan(spec, same_config, placing.scheduled_at)
        running = plan.running()
        details = self._parts.details.complete(given, running) if self._parts.details.configured else given
        if plan.missing:
            self._refuse_missing(spec, plan, durable)
        if durable:
            self._check_portable_values(running, details)
        extra = limits_of(executor) if durable else None
        self._complete(plan.steps, spec, placing, retry, extra)
        if details is not NO_DETAILS:
            self._mark(plan.steps, running, details, same_config)
        run = self._run(spec, placing, executor, details, instead_of)
        if run.direct and run.max_concurrency is None and any(step.limits for step in plan.steps):
            run.max_concurrency = DEFAULT_WINDOW
        if durable:
            self._note_shapes(run, running)
        return run, plan

    def prepare_request(
        self, request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None
    ) -> PreparedRun:
        """Prepare the run of a request without placing it."""
        spec = self.requested(request, run_id=run_id, kind=kind, executor="oban", now=now)
        run, plan = self.prepare(spec, self.executor(spec.executor))
        return PreparedRun(run, plan.steps, request.run_key)

    def requested(
        self, request: RunRequest, *, run_id: str, kind: str, executor: str = "auto", now: datetime | None = None
    ) -> RunSpec:
        """Return what a request asks for; `now` decides which partitions are complete."""
        partitions = None if request.partition is None else [request.partition]
        present = datetime.now(UTC)
        complete_at = now or present
        targets, names, explicit = backfill_targets(
            self._parts.graph,
            request.selection,
            partitions,
            complete_at,
            allow_incomplete=request.allow_incomplete,
            present=max(present, complete_at),
        )
        return self._spec_of(
            request,
            targets,
            kind=kind,
            expand=names,
            executor=executor,
            run_id=run_id,
            explicit=explicit,
            now=now,
        )

    def _spec_of(
        self,
        request: RunRequest,
        targets: Sequence[Target],
        *,
        kind: str,
        expand: Collection[str],
        executor: str = "auto",
        run_id: str | None = None,
        explicit: Collection[str] = (),
        now: datetime | None = None,
    ) -> RunSpec:
        return RunSpec(
            kind=kind,
            selection=describe(request.selection),
            targets=targets,
            executor=executor,
            expand=expand,
            force=request.force,
            run_id=run_id,
            priority=request.priority,
            max_concurrency=request.max_concurrency,
            watched=False,
            explicit=explicit,
            allow_incomplete=request.allow_incomplete,
            now=now,
            config=request.config,
            tags=request.tags,
            metadata=request.metadata,
            io=request.io,
            resources=request.resources,
            hooks=request.hooks,
            hooks_config=request.hooks_config,
        )

    def prepare_targets(
        self,
        asset: str,
        partitions: Sequence[PartitionKey],
        *,
        run_id: str,
        kind: str,
        max_concurrency: int | None = None,
    ) -> PreparedRun:
        """Prepare a run of some encoded partitions of one asset without placing it."""
        spec = RunSpec(
            kind=kind,
            selection=asset,
            targets=[(asset, key) for key in partitions],
            executor="oban",
            force=True,
            run_id=run_id,
            max_concurrency=max_concurrency,
            watched=False,
        )
        run, plan = self.prepare(spec, self.executor(spec.executor))
        return PreparedRun(run, plan.steps)

    def start(self, spec: RunSpec, *, connection: object = None) -> SubmittedRun:
        """Submit a run that goes on without its caller; see `submit`.

        Raises:
            OptionsError: what its executor runs ends with this process.
        """
        executor = self.executor(spec.executor)
        if _DURABLE not in executor.capabilities:
            raise OptionsError(
                f"wait=False: the executor {executor.name!r} runs steps in this process, and what is not over "
                "dies with it. Use executor='oban', which needs a database; or await flow.aio.backfill(...)."
            )
        return self.submit(spec, connection=connection)

    def run(self, spec: RunSpec, on_progress: Callable[[Progress], None] | None = None) -> RunResult:
        """Submit a run, take it to its end, and return the outcome."""
        if on_progress is not None and not callable(on_progress):
            raise OptionsError(f"on_progress={on_progress!r}: give a function of one Progress.")
        run = None
        while True:
            run = self.submit(spec, instead_of=run)
            self.driving.drive(run, on_progress)
            record = self._parts.store.catalog.run(run.id)
            assert record is not None
            if record.state is State.COMPLETED or not self.lost_what_it_joined(run):
                break
        targets = spec.targets if isinstance(spec.targets, PartitionTargets) else tuple(spec.targets)
        return self._parts.results.of_run(record, targets)

    def lost_what_it_joined(self, run: SubmittedRun) -> bool:
        """Return whether a step that a request joined was lost with its process, so that it is to be made anew."""
        for step in run.steps:
            if step.deduplicated and not step.state.is_terminal:
                record = self._parts.store.catalog.step(step.id)
                if record is not None and record.error_type == PROCESS_LOST:
                    log.warning(
                        "Run %s waited for %s of run %s, whose process was lost; it goes on as another run.",
                        run.id,
                        self._parts.graph.describe(record.asset, record.partition_key),
                        record.run_id,
                    )
                    return True
        return False

    def _within(self, connection: object, executor: Executor) -> OpensRuns:
        if _DURABLE not in executor.capabilities:
            raise OptionsError(
                f"connection=: the executor {executor.name!r} runs steps in this process, not when a transaction "
                "commits. Use executor='oban', which needs a database."
            )
        return self._parts.store.within(connection, caller_loop.get())

    def _submit_whole(
        self,
        spec: RunSpec,
        placing: PlacingOptions,
        whole: NewRange,
        executor: Executor,
        open_range: Callable[[NewRun, NewRange], int],
        instead_of: SubmittedRun | None,
    ) -> SubmittedRun:
        """Record a large backfill as a range; its steps are made as workers begin them."""
        check_options_for(spec, placing, executor)
        refuse_items(self._parts.graph, spec.targets[:1])
        given = self._parts.details.read(spec)
        same_config = self._parts.details.same_config(spec, given)
        details = self._parts.details.complete(given, [whole.asset])
        self._check_portable_values([whole.asset], details)
        run = self._run(spec, placing, executor, details, instead_of)
        self._note_shapes(run, [whole.asset])
        config_hash = self._parts.details.config_hash(details, self._parts.graph[whole.asset])
        whole = replace(whole, config_hash=config_hash, same_config=whole.asset in same_config)
        total = open_range(run, whole)
        if telemetry.listeners:
            telemetry.emit("run.start", {"steps": total}, {"run_id": run.id, "kind": spec.kind})
        options = options_for(spec, executor)
        return SubmittedRun(spec, run, Plan([]), executor, options, [], self._parts.store.catalog.run_details)

    # --- pieces -------------------------------------------------------------------------------------------

    def _emit_ended(self, run_id: str) -> None:
        """Say that a run is over in which nothing was left to do."""
        record = self._parts.store.catalog.run(run_id)
        if record is not None and record.state.is_terminal:
            telemetry.emit_run_ended(record)

    def _run(
        self,
        spec: RunSpec,
        placing: PlacingOptions,
        executor: Executor,
        details: RunDetails,
        instead_of: SubmittedRun | None,
    ) -> NewRun:
        durable = _DURABLE in executor.capabilities
        priority = spec.usual_priority if placing.priority is None else placing.priority
        actor = actor_variable.get()
        run_id = new_run_id() if spec.run_id is None or instead_of is not None else spec.run_id
        if (
            telemetry.tracer is not None
            and (placing_span := telemetry.tracer.place(run_id, spec.kind)) is not None
        ):
            details = replace(details, traceparent=placing_span)
        run = make_run(
            id=run_id,
            kind=spec.kind,
            selection=spec.selection,
            executor=executor.name,
            created_at=datetime.now(UTC),
            durable=durable,
            direct=durable and spec.kind in _DIRECT,
            priority=NORMAL_PRIORITY if priority is None else priority,
            max_concurrency=spec.max_concurrency,
            watched=spec.watched,
            deps_timeout_seconds=self._parts.settings.deps_timeout_seconds,
            retry_of=spec.retry_of if instead_of is None else instead_of.id,
            details=details,
            assets=spec.assets,
            unique_seconds=placing.unique_seconds,
        )
        if actor is not None:
            run.requested_by, run.requested_via = actor.name, actor.via
        return run

    def warn_of_disagreements(self) -> None:
        """Log which assets living workers and applications declare otherwise; at first, and seldom later."""
        store = self._parts.store
        if not isinstance(store, PostgresStore) or time.monotonic() < self._compare_at:
            return
        self._compare_at = time.monotonic() + _COMPARED_SECONDS
        at_work = shapes_at_work(store.database)
        for disagreement in self._parts.shapes.disagreements((who, assets) for who, _, assets in at_work):
            log.warning("%s. Workers run only steps that were placed with what they declare.", disagreement)

    def _note_shapes(self, run: NewRun, names: Iterable[str]) -> None:
        """Record what is declared here of the assets of a run, for workers that may have other code."""
        shapes = self._parts.shapes
        run.shapes = {name: shapes.digest(name) for name in names}
        # what is tried again has the partitions of an earlier run, which may have been declared otherwise
        if run.retry_of is None:
            run.keys = {name: keys for name in run.shapes if (keys := shapes.keys_digest(name)) is not None}

    def _mark(
        self,
        steps: Sequence[NewStep],
        running: Iterable[str],
        details: RunDetails,
        same_config: Mapping[str, str | None],
    ) -> None:
        """Note with each step what stands for how its run computes it."""
        reader, graph = self._parts.details, self._parts.graph
        hashes = {name: reader.config_hash(details, graph[name]) for name in running}
        for step in steps:
            step.same_config = step.asset in same_config
            step.config_hash = same_config[step.asset] if step.same_config else hashes.get(step.asset)

    def _refuse_missing(self, spec: RunSpec, plan: Plan, durable: bool) -> None:
        """Refuse a request whose inputs nobody is about to make, unless it asks to wait for them.

        Raises:
            DependencyNotReadyError: names what is missing for the first step that cannot start.
        """
        waits = spec.wait_for_inputs
        if waits is None:
            waits = durable and spec.kind not in _WAITED_FOR
        if waits:
            return
        for target, missing in plan.missing.items():
            nobody = [read for read in missing if not self._is_under_way(read)] if durable else missing
            if nobody:
                raise self._parts.graph.not_ready(target, nobody, datetime.now(UTC))

    def _is_under_way(self, target: Target) -> bool:
        status = self._parts.store.target_statuses.status([target]).get(target)
        if status is not None and status.newest is not None and not status.newest.state.is_terminal:
            return True
        ranges = self._parts.store.ranges
        return ranges is not None and ranges.waiting(target) is not None

    def _complete(
        self,
        steps: Iterable[NewStep],
        spec: RunSpec,
        placing: PlacingOptions,
        retry: bool,
        extra: Mapping[str, Limit] | None,
    ) -> None:
        """Fill in what the assets, the call and the executor say of planned steps."""
        assets, policy = self._parts.graph.assets, NO_RETRY
        for step in steps:
            asset = assets[step.asset]
            if retry:
                policy = asset.retry or DEFAULT_RETRY
            step.queue, step.priority, step.max_attempts = terms_of(spec, placing, asset, policy)
            step.scheduled_at = placing.scheduled_at
            step.code_version = asset.code_version
            step.limits = {**asset.concurrency, **extra} if extra else asset.concurrency or None
            if asset.tags:
                step.tags = tuple(sorted(asset.tags))

    def _check_portable_values(self, names: Iterable[str], details: RunDetails) -> None:
        declared = [self._parts.graph[name] for name in names]
        for asset in (*declared, *(one for each in declared for one in each.companions)):
            manager = self._parts.values.manager(asset, details.io)
            if not manager.shared:
                raise DefinitionError(
                    f"Asset {asset.name!r} keeps its values with the IO manager {manager.name!r}, which other "
                    'processes cannot read, so workers cannot run it. Give it io="postgres" or io="filesystem".',
                    where=asset.where,
                )


def placing_of(spec: RunSpec, executor: Executor) -> PlacingOptions:
    """Return how the jobs of a run are placed: what its verb says, and the options of the call for a queue.

    Raises:
        OptionsError: an option cannot work, is unknown, or says again what the call says itself.
    """
    if not spec.executor_opts or Capability.QUEUE not in executor.capabilities:
        if spec.priority is None and spec.scheduled_at is None:
            return NO_PLACING_OPTIONS
        return PlacingOptions(priority=spec.priority, scheduled_at=spec.scheduled_at)
    placing = placing_options(spec.executor_opts)
    for name in ("priority", "scheduled_at"):
        value, again = getattr(spec, name), getattr(placing, name)
        if value is not None and again is not None:
            twice = f"{name}={value!r} and executor_opts={{{name!r}: {again!r}}}"
            raise OptionsError(f"{twice} say the same thing twice; leave one of them out.")
    return replace(
        placing,
        priority=spec.priority if placing.priority is None else placing.priority,
        scheduled_at=spec.scheduled_at if placing.scheduled_at is None else placing.scheduled_at,
    )


def options_for(spec: RunSpec, executor: Executor) -> dict[str, Any]:
    """Return the options of a call that are for its executor, not for how jobs are placed or tried again.

    Raises:
        OptionsError: the call is to wait for a time that makes no sense.
    """
    options = {name: value for name, value in (spec.executor_opts or {}).items() if name != "retry"}
    if Capability.QUEUE not in executor.capabilities:
        return options
    found = {name: value for name, value in options.items() if name not in PLACING_OPTIONS}
    if "wait_timeout" in found:
        found["wait_timeout"] = seconds_option("wait_timeout", found["wait_timeout"])
    return found


def check_options_for(spec: RunSpec, placing: PlacingOptions, executor: Executor) -> bool:
    """Refuse what an executor could not do; return whether retry policies hold.

    Raises:
        OptionsError: an option is unknown or cannot work.
        CapabilityError: the executor does not declare what is asked for.
    """
    options = dict(spec.executor_opts) if spec.executor_opts else {}
    capabilities = executor.capabilities
    retry = options.pop("retry", False)
    if not isinstance(retry, bool):
        raise OptionsError(f"retry={retry!r}: give True or False; how often and when is the asset's RetryPolicy.")
    if options:
        check_call(executor, options)
        options = options_for(spec, executor)
        if _DURABLE in capabilities:
            check_portable(executor.name, options)
    needed = []
    if retry:
        needed.append(Capability.RETRY)
    if placing.scheduled_at is not None:
        needed.append(Capability.SCHEDULED_AT)
    # a priority that was given to whatever executor there is may be one that it has no use for
    if placing.priority is not None and spec.executor != "auto":
        needed.append(Capability.PRIORITY)
    for capability in needed:
        if capability not in capabilities:
            raise CapabilityError(executor.name, capability.value, capabilities)
    return retry or _DURABLE in capabilities


def new_run_id() -> str:
    """Return a run id: the second it was made, readable, and 50 random bits.

    Example:
        >>> len(new_run_id())
        26
    """
    global _second  # noqa: PLW0603 - the text of the newest second
    now = int(time.time())
    second, text = _second
    if now != second:
        text = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now))
        _second = now, text
    return text + "".join([_PAIRS[_bits(10)] for _ in range(5)])
