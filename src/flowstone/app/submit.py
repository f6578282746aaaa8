"""From a request to placed steps, and through the executor to their end."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flowstone import telemetry
from flowstone.app.asynchronous import caller_loop
from flowstone.app.build import Parts
from flowstone.app.details import UNSAID, CheckedDetails, Given
from flowstone.app.driving import Driving, Placed, as_range, terms_of
from flowstone.app.results import Progress, RunResult
from flowstone.app.targets import (
    NORMAL_PRIORITY,
    Order,
    PartitionTargets,
    backfill_targets,
    describe,
    refuse_items,
)
from flowstone.core.automation.record import PreparedRun
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.capability import Capability
from flowstone.core.control import describe_target
from flowstone.core.limits import Limit
from flowstone.core.outcome import PROCESS_LOST
from flowstone.core.retry import NO_RETRY
from flowstone.core.run_details import NO_DETAILS, RunDetails
from flowstone.core.selection import select
from flowstone.core.state import State
from flowstone.core.step import NewRange, NewRun, NewStep, PlacedStep, Target
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.planner import Plan, Request
from flowstone.errors import CapabilityError, DefinitionError, OptionsError, PlanOutdatedError
from flowstone.executors.inline import (
    NO_PLACING_OPTIONS,
    PLACING_OPTIONS,
    check_call,
    check_portable,
    seconds_option,
)
from flowstone.executors.select import limits_of
from flowstone.protocols import Executor, Ledger, OpensRuns
from flowstone.stores.postgres.queue import shapes_at_work
from flowstone.stores.postgres.store import PostgresStore

log = logging.getLogger("flowstone")


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_EVERY = 1_000_000
_REPLAN_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 1.0
_COMPARED_SECONDS = 300.0
_WINDOWED = ("backfill", "retry")
_WAITED_FOR = ("materialize", "materialize_all")
DEFAULT_WINDOW = 1000
"""Most steps of a durable backfill on the queue at once when nothing else was asked for: two backfills take turns
instead of queueing one behind the other, and the queue stays short."""


class Prepared(NamedTuple):
    """A planned and checked order that is not recorded yet."""

    run: NewRun
    plan: Plan
    executor: Executor
    options: dict[str, Any]
    order: Order


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

    def plan(self, order: Order) -> Plan:
        """Plan an order without placing anything.

        Raises:
            OptionsError: what it says of its run cannot work.
        """
        checked = self._checked(order)
        plan = self._plan(order, checked)
        self._parts.details.complete(checked.details, plan.running())
        return plan

    def _checked(self, order: Order) -> CheckedDetails:
        """Return what an order says of its run, checked."""
        if order.details is not None:
            return self._parts.details.of(order.details, order.assets)
        if order.given.says_nothing:
            return UNSAID
        return self._parts.details.read(order.given, order.assets, expand=order.expand)

    def check_request(self, request: RunRequest) -> None:
        """Refuse a request whose config or parts could not work, long before it is placed.

        Raises:
            OptionsError: see `FlowStone.materialize`.
        """
        names = select(self._parts.graph, request.selection)
        self._parts.details.read(_given(request), names, expand=names)

    def _plan(self, order: Order, checked: CheckedDetails) -> Plan:
        # what was not over at a tick that is made up for may be over by now, or when a step is to start
        now = present = datetime.now(UTC)
        if order.now is not None or order.scheduled_at is not None:
            present = max(now, order.now or now, order.scheduled_at or now)
        return self._parts.planner.plan(
            Request(
                targets=order.targets,
                now=order.now or now,
                present=present,
                explicit=order.explicit,
                allow_incomplete=order.allow_incomplete,
                expand=order.expand,
                force=order.force,
                force_deps=order.force_deps,
                same_config=checked.same_config,
            )
        )

    def place(self, order: Order, *, connection: object = None) -> Placed:
        """Plan an order, check it, and record its run with all steps in one transaction.

        Args:
            order: the order.
            connection: records the run inside the transaction that is open there.

        Raises:
            DependencyNotReadyError: inputs are missing that nothing in the plan provides.
            CapabilityError: the executor does not offer what is asked for.
            FlowStoneError: anything else that could not work; nothing was placed.
        """
        executor = self.executor(order.executor)
        if order.executor_opts:
            order = _with_options(order, executor)
        if self._parts.store.durable:
            self.warn_of_disagreements()
        within = None if connection is None else self._within(connection, executor)
        if Capability.DURABLE in executor.capabilities and self._parts.store.ranges is not None:
            whole = as_range(order, self._parts.graph, executor, self._parts.reader)
            if whole is not None:
                open_range = self._parts.store.ranges.open_run if within is None else within.open_range
                return self._place_whole(order, whole, executor, open_range)
        ledger: Ledger | OpensRuns = self._parts.store.ledger if within is None else within
        ready = self.prepare(order, executor)
        try:
            placed = ledger.open_run(ready.run, ready.plan.steps)
        except PlanOutdatedError as error:
            ready, placed = self._planned_again(order, executor, ledger, error)
        if ready.plan.missing and not ready.run.durable:
            self._let_wait(ready.plan, placed)
        if telemetry.listeners:
            telemetry.emit("run.start", {"steps": len(placed)}, {"run_id": ready.run.id, "kind": order.kind})
            if all(one.state.is_terminal for one in placed):
                self._emit_ended(ready.run.id)
        return Placed(
            ready.run.id,
            ready.executor,
            ready.options,
            placed,
            ready.plan,
            ready.order,
            ready.run.details,
            self._parts.store.catalog.run_details,
        )

    def _planned_again(
        self, order: Order, executor: Executor, ledger: Ledger | OpensRuns, error: PlanOutdatedError
    ) -> tuple[Prepared, list[PlacedStep]]:
        """Plan and place again while others commit or end steps of the plan before it is placed."""
        deadline, pause = time.monotonic() + _REPLAN_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            log.debug("A request is planned again: %s", error)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads those that collided
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)
            ready = self.prepare(order, executor)
            try:
                return ready, ledger.open_run(ready.run, ready.plan.steps)
            except PlanOutdatedError as again:
                if time.monotonic() >= deadline:
                    raise
                error = again

    def _let_wait(self, plan: Plan, placed: Sequence[PlacedStep]) -> None:
        """Let the steps whose inputs are missing wait for them in this process."""
        waiting = [
            one.id
            for one, planned in zip(placed, plan.steps, strict=True)
            if (planned.asset, planned.partition) in plan.missing and not one.deduplicated
        ]
        self._parts.inline.let_wait(waiting)

    def prepare(self, order: Order, executor: Executor) -> Prepared:
        """Plan an order for an executor and check it; nothing is recorded.

        Raises:
            FlowStoneError: see `place`.
        """
        if order.executor_opts:
            order = _with_options(order, executor)
        durable = Capability.DURABLE in executor.capabilities
        options, retry = checked_options(order, executor)
        refuse_items(self._parts.graph, order.targets)
        checked = self._checked(order)
        plan = self._plan(order, checked)
        running = plan.running()
        details = self._parts.details.complete(checked.details, running)
        if plan.missing:
            self._refuse_missing(order, plan, durable)
        if durable:
            self._check_portable_values(running, details)
        if durable and order.max_concurrency is None and order.kind in _WINDOWED:
            order = replace(order, max_concurrency=DEFAULT_WINDOW)
        extra = limits_of(executor) if durable else None
        for step in plan.steps:
            self._complete(step, order, retry, extra)
        if details is not NO_DETAILS:
            self._mark(plan.steps, running, details, checked)
        run = self._run(order, order.run_id or new_run_id(), executor, durable, details)
        if durable:
            self._note_shapes(run, running)
        return Prepared(run, plan, executor, options, order)

    def prepare_request(
        self, request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None
    ) -> PreparedRun:
        """See `flowstone.protocols.PrepareRun`."""
        order = self.requested(request, run_id=run_id, kind=kind, executor="oban", now=now)
        ready = self.prepare(order, self.executor(order.executor))
        return PreparedRun(ready.run, ready.plan.steps, request.run_key)

    def requested(
        self, request: RunRequest, *, run_id: str, kind: str, executor: str = "auto", now: datetime | None = None
    ) -> Order:
        """Return a request as an order; `now` decides which partitions are complete."""
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
        return Order(
            kind=kind,
            selection=describe(request.selection),
            targets=targets,
            executor=executor,
            expand=names,
            force=request.force,
            run_id=run_id,
            priority=request.priority,
            max_concurrency=request.max_concurrency,
            watched=False,
            explicit=explicit,
            allow_incomplete=request.allow_incomplete,
            now=now,
            given=_given(request),
        )

    def prepare_targets(
        self, asset: str, partitions: Sequence[str], *, run_id: str, kind: str, max_concurrency: int | None = None
    ) -> PreparedRun:
        """See `flowstone.protocols.PrepareTargets`."""
        order = self.order_for(asset, partitions, run_id=run_id, kind=kind, executor="oban")
        order = replace(order, max_concurrency=max_concurrency)
        ready = self.prepare(order, self.executor(order.executor))
        return PreparedRun(ready.run, ready.plan.steps)

    def order_for(
        self,
        asset: str,
        partitions: Sequence[str],
        *,
        kind: str,
        run_id: str | None = None,
        executor: str = "auto",
    ) -> Order:
        """Return an order for some encoded partitions of one asset, computed although committed."""
        return Order(
            kind=kind,
            selection=asset,
            targets=[(asset, key) for key in partitions],
            executor=executor,
            force=True,
            run_id=run_id,
            watched=run_id is None,
        )

    def start(self, order: Order, *, connection: object = None) -> Placed:
        """Place an order that goes on without its caller; see `place`.

        Raises:
            OptionsError: what its executor runs ends with this process.
        """
        executor = self.executor(order.executor)
        if Capability.DURABLE not in executor.capabilities:
            raise OptionsError(
                f"wait=False: the executor {executor.name!r} runs steps in this process, and what is not over "
                "dies with it. Use executor='oban', which needs a database; or await flow.aio.backfill(...)."
            )
        return self.place(order, connection=connection)

    def run(self, order: Order, on_progress: Callable[[Progress], None] | None = None) -> RunResult:
        """Place an order, take it to its end, and return the outcome."""
        if on_progress is not None and not callable(on_progress):
            raise OptionsError(f"on_progress={on_progress!r}: give a function of one Progress.")
        catalog = self._parts.store.catalog
        while True:
            placed = self.place(order)
            self.driving.drive(placed, on_progress)
            record = catalog.run(placed.run_id)
            assert record is not None
            if record.state is State.COMPLETED or not self.lost_what_it_joined(placed):
                break
            order = replace(order, run_id=None, retry_of=placed.run_id)
        return RunResult(
            record=record,
            targets=order.targets if isinstance(order.targets, PartitionTargets) else tuple(order.targets),
            find=self._parts.results.of_record,
            steps=lambda state: catalog.steps(placed.run_id, state=state, limit=_EVERY),
            label=self._parts.graph.label,
        )

    def lost_what_it_joined(self, placed: Placed) -> bool:
        """Return whether a step that a request joined was lost with its process, so that it is to be made anew."""
        for step in placed.steps:
            if step.deduplicated and not step.state.is_terminal:
                record = self._parts.store.catalog.step(step.id)
                if record is not None and record.error_type == PROCESS_LOST:
                    log.warning(
                        "Run %s waited for %s of run %s, whose process was lost; it goes on as another run.",
                        placed.run_id,
                        describe_target(record.asset, record.partition),
                        record.run_id,
                    )
                    return True
        return False

    def _within(self, connection: object, executor: Executor) -> OpensRuns:
        if Capability.DURABLE not in executor.capabilities:
            raise OptionsError(
                f"connection=: the executor {executor.name!r} runs steps in this process, not when a transaction "
                "commits. Use executor='oban', which needs a database."
            )
        return self._parts.store.within(connection, caller_loop.get())

    def _place_whole(
        self, order: Order, whole: NewRange, executor: Executor, open_range: Callable[[NewRun, NewRange], int]
    ) -> Placed:
        """Record a large backfill as a range; its steps are made as workers begin them."""
        options, _ = checked_options(order, executor)
        refuse_items(self._parts.graph, order.targets[:1])
        checked = self._checked(order)
        details = self._parts.details.complete(checked.details, [whole.asset])
        self._check_portable_values([whole.asset], details)
        run = self._run(order, order.run_id or new_run_id(), executor, True, details)
        self._note_shapes(run, [whole.asset])
        config_hash = self._parts.details.config_hash(details, self._parts.graph[whole.asset])
        whole = replace(whole, config_hash=config_hash, same_config=whole.asset in checked.same_config)
        total = open_range(run, whole)
        if telemetry.listeners:
            telemetry.emit("run.start", {"steps": total}, {"run_id": run.id, "kind": order.kind})
        catalog = self._parts.store.catalog
        return Placed(run.id, executor, options, [], Plan([]), order, details, catalog.run_details)

    # --- pieces -------------------------------------------------------------------------------------------

    def _emit_ended(self, run_id: str) -> None:
        """Say that a run is over in which nothing was left to do."""
        record = self._parts.store.catalog.run(run_id)
        if record is not None and record.state.is_terminal:
            telemetry.emit_run_ended(record)

    def _run(self, order: Order, run_id: str, executor: Executor, durable: bool, details: RunDetails) -> NewRun:
        priority = order.usual_priority if order.priority is None else order.priority
        return NewRun(
            id=run_id,
            kind=order.kind,
            selection=order.selection,
            executor=executor.name,
            created_at=datetime.now(UTC),
            durable=durable,
            priority=NORMAL_PRIORITY if priority is None else priority,
            max_concurrency=order.max_concurrency,
            watched=order.watched,
            deps_timeout_seconds=self._parts.settings.deps_timeout_seconds,
            retry_of=order.retry_of,
            details=details,
            assets=order.assets,
            unique_seconds=order.placing.unique_seconds,
        )

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
        self, steps: Sequence[NewStep], running: Iterable[str], details: RunDetails, checked: CheckedDetails
    ) -> None:
        """Note with each step what stands for how its run computes it."""
        reader, graph = self._parts.details, self._parts.graph
        hashes = {name: reader.config_hash(details, graph[name]) for name in running}
        for step in steps:
            step.same_config = step.asset in checked.same_config
            step.config_hash = checked.same_config[step.asset] if step.same_config else hashes.get(step.asset)

    def _refuse_missing(self, order: Order, plan: Plan, durable: bool) -> None:
        """Refuse a request whose inputs nobody is about to make, unless it asks to wait for them.

        Raises:
            DependencyNotReadyError: names what is missing for the first step that cannot start.
        """
        waits = order.wait_for_inputs
        if waits is None:
            waits = durable and order.kind not in _WAITED_FOR
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

    def _complete(self, step: NewStep, order: Order, retry: bool, extra: Mapping[str, Limit] | None) -> None:
        """Fill in what the asset, the call and the executor say of a planned step."""
        asset = self._parts.graph.assets[step.asset]
        policy = (asset.retry or DEFAULT_RETRY) if retry else NO_RETRY
        step.queue, step.priority, step.max_attempts = terms_of(order, asset, policy)
        step.scheduled_at = order.scheduled_at
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


def _given(request: RunRequest) -> Given:
    """Return what a request of an automation says of its run."""
    return Given(
        request.config,
        request.tags,
        request.metadata,
        request.io,
        request.resources,
        request.hooks,
        request.hooks_config,
    )


def _with_options(order: Order, executor: Executor) -> Order:
    """Take up what the options of a call say about how its jobs are placed, on an executor with a queue.

    Raises:
        OptionsError: one of them cannot work, is unknown, or says again what the call says itself.
    """
    options = order.executor_opts
    if not isinstance(options, Mapping):
        raise OptionsError(f"executor_opts={options!r}: give a mapping of options by name.")
    if Capability.QUEUE not in executor.capabilities or order.placing != NO_PLACING_OPTIONS:
        return order
    return order.with_options(options)


def _others(options: dict[str, Any], executor: Executor) -> dict[str, Any]:
    """Return the options of a call that are for its executor to look at when the job is placed."""
    if Capability.QUEUE not in executor.capabilities:
        return options
    found = {name: value for name, value in options.items() if name not in PLACING_OPTIONS}
    if "wait_timeout" in found:
        found["wait_timeout"] = seconds_option("wait_timeout", found["wait_timeout"])
    return found


def checked_options(order: Order, executor: Executor) -> tuple[dict[str, Any], bool]:
    """Return the options for the executor, and whether retry policies hold; refuse what it could not do.

    Raises:
        OptionsError: an option is unknown or cannot work.
        CapabilityError: the executor does not declare what is asked for.
    """
    options = dict(order.executor_opts) if order.executor_opts else {}
    capabilities = executor.capabilities
    retry = options.pop("retry", False)
    if not isinstance(retry, bool):
        raise OptionsError(f"retry={retry!r}: give True or False; how often and when is the asset's RetryPolicy.")
    if options:
        check_call(executor, options)
        options = _others(options, executor)
        if Capability.DURABLE in capabilities:
            check_portable(executor.name, options)
    needed = []
    if retry:
        needed.append(Capability.RETRY)
    if order.scheduled_at is not None:
        needed.append(Capability.SCHEDULED_AT)
    # a priority that was given to whatever executor there is may be one that it has no use for
    if order.priority is not None and order.executor != "auto":
        needed.append(Capability.PRIORITY)
    for capability in needed:
        if capability not in capabilities:
            raise CapabilityError(executor.name, capability.value, capabilities)
    return options, retry or Capability.DURABLE in capabilities


def new_run_id() -> str:
    """Return a run id: the second it was made, readable, and 50 random bits.

    Example:
        >>> len(new_run_id())
        26
    """
    bits = int.from_bytes(os.urandom(7))
    tail = "".join([_PAIRS[(bits >> shift) & 1023] for shift in range(0, 50, 10)])
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{tail}"
