"""From a request to placed steps, and through the executor to their end."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowstone import telemetry
from flowstone.app.order import NORMAL_PRIORITY, Order
from flowstone.app.results import Progress
from flowstone.app.wiring import Parts
from flowstone.core.asset import Asset
from flowstone.core.capability import Capability
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.partition import decode_partition
from flowstone.core.retry import NO_RETRY
from flowstone.core.state import State
from flowstone.core.step import NewRun, NewStep, PlacedStep
from flowstone.engine.driver import Drive
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.planner import Plan, PlannedStep, Request
from flowstone.errors import CapabilityError, DefinitionError, DependencyNotReadyError, OptionsError
from flowstone.executors.options import check_portable
from flowstone.protocols import ChecksOptions, Executor

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_POLL_SECONDS = 0.5


@dataclass(slots=True)
class Placed:
    """Steps that were placed, with the executor that holds them."""

    run_id: str
    executor: Executor
    options: dict[str, Any]
    steps: list[PlacedStep]
    plan: Plan
    order: Order
    refusal: BaseException | None = None
    """Why the executor did not start a step; this ended the run."""

    def job(self, position: int) -> Job:
        """Return the handle of a step by its position in the plan."""
        planned, placed = self.plan.steps[position], self.steps[position]
        return Job(
            id=str(placed.id),
            asset=planned.asset,
            partition=decode_partition(planned.partition),
            run_id=placed.run_id,
            executor=self.executor.name,
            priority=NORMAL_PRIORITY if self.order.priority is None else self.order.priority,
            scheduled_at=self.order.scheduled_at,
            deduplicated=placed.deduplicated,
        )


class Placement:
    """Plans, records and drives the requests of one app."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def executor(self, wanted: str | Executor) -> Executor:
        """Resolve an executor; `auto` is Oban when the store is shared and can carry it, else sync."""
        if wanted == "auto":
            wanted = self._parts.settings.executor
        if wanted == "auto":
            wanted = "oban" if self._parts.store.durable else "sync"
        return self._parts.executors.get(wanted)

    def plan(self, order: Order) -> Plan:
        """Plan an order without placing anything."""
        return self._parts.planner.plan(
            Request(
                targets=order.targets,
                now=datetime.now(UTC),
                expand=order.expand,
                force=order.force,
                force_deps=order.force_deps,
            )
        )

    def place(self, order: Order) -> Placed:
        """Plan an order, check it, and record its run with all steps in one transaction.

        Raises:
            DependencyNotReadyError: inputs are missing that nothing in the plan provides.
            CapabilityError: the executor does not offer what is asked for.
            FlowStoneError: anything else that could not work; nothing was placed.
        """
        executor = self.executor(order.executor)
        options = dict(order.executor_opts or {})
        durable = Capability.DURABLE in executor.capabilities
        retry = bool(options.pop("retry", False)) or durable
        _check(order, executor, options)
        plan = self.plan(order)
        if plan.missing and not durable:
            target = next(iter(plan.missing))
            raise DependencyNotReadyError(*target, plan.missing[target])
        if durable:
            self._check_portable_values(plan)
        run_id = order.run_id or new_run_id()
        steps = [self._step(order, planned, retry) for planned in plan.steps]
        run = NewRun(
            id=run_id,
            kind=order.kind,
            selection=order.selection,
            executor=executor.name,
            created_at=datetime.now(UTC),
            durable=durable,
            priority=NORMAL_PRIORITY if order.priority is None else order.priority,
            max_concurrency=order.max_concurrency,
            watched=order.watched,
            deps_timeout_seconds=self._parts.settings.deps_timeout_seconds,
        )
        placed = self._parts.store.ledger.open_run(run, steps)
        if telemetry.listening():
            telemetry.emit("run.start", {"steps": len(placed)}, {"run_id": run_id, "kind": order.kind})
        return Placed(run_id, executor, options, placed, plan, order)

    def execute(self, placed: Placed, job: Job) -> Materialization:
        """Run a placed step through its executor and wait for it."""
        with self._refusals(placed, job):
            return placed.executor.execute(job, **placed.options)

    def schedule(self, placed: Placed, job: Job) -> Job:
        """Hand a placed step to its executor."""
        with self._refusals(placed, job):
            return placed.executor.schedule(job, **placed.options)

    @contextmanager
    def _refusals(self, placed: Placed, job: Job) -> Iterator[None]:
        """End the run when an executor of this process raises about a step without having started it.

        Nobody else would run that step, and every later request would join it and wait for ever.
        """
        try:
            yield
        except BaseException as error:
            if Capability.DURABLE not in placed.executor.capabilities:
                record = self._parts.store.catalog.step(int(job.id))
                if record is not None and record.state in _NOT_STARTED:
                    placed.refusal = error
                    self._parts.store.ledger.cancel_run(placed.run_id)
            raise

    def drive(self, placed: Placed, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Run a placed run to its end in this process, or wait for the workers to do so.

        Args:
            placed: the run.
            on_progress: told about it after each step here, a few times a second for durable runs.
        """
        started = time.perf_counter()
        if Capability.DURABLE in placed.executor.capabilities:
            self._watch(placed, on_progress)
        else:
            self._drive(placed, on_progress)
        if telemetry.listening():
            took = {"duration_seconds": time.perf_counter() - started}
            telemetry.emit("run.stop", took, {"run_id": placed.run_id, "kind": placed.order.kind})

    # --- pieces -------------------------------------------------------------------------------------------

    def _step(self, order: Order, planned: PlannedStep, retry: bool) -> NewStep:
        asset = self._parts.graph[planned.asset]
        policy = (asset.retry or DEFAULT_RETRY) if retry else NO_RETRY
        return NewStep(
            planned.asset,
            planned.partition,
            planned.inputs,
            planned.reuse,
            order.queue if order.queue and asset.queue == "assets" else asset.queue,
            _priority(order, asset),
            policy.max_attempts,
            order.scheduled_at,
            planned.forced,
            asset.code_version,
            asset.concurrency or None,
        )

    def _check_portable_values(self, plan: Plan) -> None:
        for name in {planned.asset for planned in plan.steps if planned.reuse is None}:
            asset = self._parts.graph[name]
            manager = self._parts.values.manager(asset)
            if not manager.shared:
                raise DefinitionError(
                    f"Asset {name!r} keeps its values with the IO manager {manager.name!r}, which other processes "
                    'cannot read, so workers cannot run it. Give it io="postgres" or io="filesystem".',
                    where=asset.where,
                )

    def _drive(self, placed: Placed, on_progress: Callable[[Progress], None] | None) -> None:
        position = {step.id: index for index, step in enumerate(placed.steps)}
        report = self._reporter(placed, on_progress)
        ready = [step.id for step in placed.steps if step.state in _STARTABLE and not step.deduplicated]
        joined = [step.id for step in placed.steps if step.deduplicated and not step.state.is_terminal]
        drive = Drive(
            run_id=placed.run_id,
            ready=ready,
            width=_width(placed),
            joined=joined,
            execute=lambda job: self.execute(placed, job),
            job=lambda step_id: placed.job(position[step_id]),
            on_done=report,
        )
        try:
            report()
            self._parts.driver.drive(drive, position)
        except BaseException:
            # an interrupt at the terminal, or on_progress raised: nobody will run the rest
            self._parts.store.ledger.cancel_run(placed.run_id)
            raise
        if placed.refusal is not None:
            raise placed.refusal

    def _reporter(self, placed: Placed, on_progress: Callable[[Progress], None] | None) -> Callable[[], None]:
        if on_progress is None:
            return lambda: None
        lock = threading.Lock()

        def report() -> None:
            with lock:
                self._report(placed.run_id, on_progress)

        return report

    def _report(self, run_id: str, on_progress: Callable[[Progress], None]) -> None:
        record = self._parts.store.catalog.run(run_id)
        if record is not None:
            on_progress(Progress(run_id, record.total, record.counts))

    def _watch(self, placed: Placed, on_progress: Callable[[Progress], None] | None) -> None:
        timeout = placed.options.get("wait_timeout")
        deadline = time.monotonic() + timeout if timeout else None
        over = False
        while not over and (deadline is None or time.monotonic() < deadline):
            if on_progress is not None:
                self._report(placed.run_id, on_progress)
            pause = _POLL_SECONDS if deadline is None else min(_POLL_SECONDS, deadline - time.monotonic())
            over = self._parts.store.catalog.wait([], run_id=placed.run_id, timeout_seconds=max(0.01, pause))
        if on_progress is not None:
            self._report(placed.run_id, on_progress)


_STARTABLE = (State.PENDING, State.SCHEDULED)
_NOT_STARTED = (*_STARTABLE, State.RETRYING)


def _check(order: Order, executor: Executor, options: dict[str, Any]) -> None:
    """Refuse what the executor could not do, before anything is placed."""
    if options and isinstance(executor, ChecksOptions):
        executor.check(options)
    if Capability.DURABLE in executor.capabilities:
        check_portable(executor.name, options)
    if order.max_concurrency is not None and order.max_concurrency < 1:
        raise OptionsError(f"max_concurrency={order.max_concurrency!r}: give at least 1, or None.")
    if order.scheduled_at is not None and Capability.SCHEDULED_AT not in executor.capabilities:
        raise CapabilityError(executor.name, "scheduled_at", executor.capabilities)


def _width(placed: Placed) -> int:
    """How many steps run at once: what was asked for, else what the executor does by itself."""
    if Capability.SEQUENTIAL in placed.executor.capabilities:
        return 1
    if placed.order.max_concurrency is not None:
        return placed.order.max_concurrency
    if Capability.CONCURRENT in placed.executor.capabilities:
        return int(getattr(placed.executor, "max_concurrency", 32))
    return 1


def _priority(order: Order, asset: Asset) -> int:
    if order.priority is not None:
        return order.priority
    return NORMAL_PRIORITY if asset.priority is None else asset.priority


def new_run_id() -> str:
    """Return a run id: the second it was made, readable, and 50 random bits.

    Example:
        >>> len(new_run_id())
        26
    """
    bits = secrets.randbits(50)
    tail = "".join([_ALPHABET[(bits >> shift) & 31] for shift in range(0, 50, 5)])
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{tail}"
