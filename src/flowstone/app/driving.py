"""Submitted runs, taken to their end: through an executor of this process, or by waiting for the workers.

`SubmittedRun` is a run that is recorded, with its steps and the executor that has them; `Driving` takes it to its
end. Between them stands `as_range`, which decides whether a large backfill is recorded in a few rows instead of a
row for each step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from flowstone.app.build import Parts
from flowstone.app.results import Progress, ProgressReports
from flowstone.app.waiting import WaitNotice
from flowstone.core.asset import Asset
from flowstone.core.capability import Capability
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.job import Job, StepId, make_job
from flowstone.core.materialization import Materialization
from flowstone.core.partitions import decode_partition
from flowstone.core.retry import RetryPolicy
from flowstone.core.run_details import RunDetails
from flowstone.core.state import State
from flowstone.core.step import NewRange, NewRun, PlacedStep, StepRecord
from flowstone.engine.driver import Drive
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.planner import Plan
from flowstone.engine.run_spec import NORMAL_PRIORITY, PartitionTargets, RunSpec
from flowstone.engine.values import InputReader
from flowstone.errors import DatabaseUnavailableError, OptionsError, RunNotFoundError
from flowstone.executors.inline import PlacingOptions
from flowstone.executors.select import concurrency_of, limits_of
from flowstone.protocols import Executor


@dataclass(slots=True)
class SubmittedRun:
    """A run that is recorded, with the executor that holds its steps.

    Args:
        spec: what was asked for.
        run: the run as it was opened.
        plan: its steps as they were planned; none of a range, whose steps are made when workers begin them.
        executor: holds its steps.
        options: those of the call that are for the executor.
        steps: what each step of the plan became.
        details_of: says what another run is about, whose work this one joined.
    """

    spec: RunSpec
    run: NewRun
    plan: Plan
    executor: Executor
    options: dict[str, Any]
    steps: Sequence[PlacedStep]
    details_of: Callable[[str], RunDetails]

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.run.id

    @property
    def requested_for(self) -> int:
        """Position of the first target among the steps, which may hold skipped inputs before it."""
        if len(self.plan.steps) == 1:
            return 0
        target = self.spec.targets[0]
        return next(at for at, one in enumerate(self.plan.steps) if (one.asset, one.partition_key) == target)

    def job(self, position: int) -> Job:
        """Return the handle of a step by its position."""
        planned, placed = self.plan.steps[position], self.steps[position]
        details = self.run.details if placed.run_id == self.run.id else self.details_of(placed.run_id)
        return make_job(
            StepId(placed.id),
            planned.asset,
            decode_partition(planned.partition_key) if planned.partition_key else None,
            placed.run_id,
            self.executor.name,
            planned.priority,
            planned.scheduled_at,
            placed.deduplicated,
            dict(details.metadata) if details.metadata else {},
        )


LARGE = 1000
_SAMPLE = 100
"""From so many partitions on a durable backfill of one asset is kept as a range."""


def as_range(
    spec: RunSpec, placing: PlacingOptions, graph: AssetGraph, executor: Executor, reader: InputReader
) -> NewRange | None:
    """Return a request as a range, when it is a large backfill of one asset whose steps need nothing special.

    Fleet-wide limits are kept on the queue, step by step, so assets that have some are placed that way.

    Args:
        spec: the request.
        placing: how its jobs are placed.
        graph: the assets.
        executor: the durable executor that will hold it.
        reader: knows what the partitions read.
    """
    targets = spec.targets
    if spec.kind != "backfill" or not isinstance(targets, PartitionTargets) or placing.scheduled_at is not None:
        return None
    asset = graph[targets.asset]
    if spec.wait_for_inputs is False:
        return None  # whether inputs are missing is seen step by step
    if asset.concurrency or limits_of(executor):
        return None
    if graph.reads_itself(asset.name):
        return None  # each of its steps waits for the one before
    if graph.routers(asset.name) or any(one.optional for one in asset.dependencies):
        return None  # some of its steps may be over before they begin
    if next(islice(targets, LARGE - 1, None), None) is None:
        return None
    if _reads_unfinished(targets, graph, reader):
        return None  # the planner leaves the last ones out
    queue, priority, max_attempts = terms_of(spec, placing, asset, asset.retry or DEFAULT_RETRY)
    return NewRange(
        asset=asset.name,
        partitions=targets.partitions(),
        queue=queue,
        priority=priority,
        max_attempts=max_attempts,
        forced=spec.force,
        code_version=asset.code_version,
        tags=tuple(sorted(asset.tags)),
        unique_seconds=placing.unique_seconds,
    )


def _reads_unfinished(targets: PartitionTargets, graph: AssetGraph, reader: InputReader) -> bool:
    """Whether one of the last targets reads a partition that is not over, as a forecast does."""
    if all(plan.same_key or not plan.ends for plan in reader.plans(targets.asset)):
        return False
    now = datetime.now(UTC)
    over = Completeness(graph, now)
    last = deque(targets, maxlen=_SAMPLE)
    return any(not over.is_over(*read) for target in last for read in reader.targets(*target, now))


def terms_of(spec: RunSpec, placing: PlacingOptions, asset: Asset, policy: RetryPolicy) -> tuple[str, int, int]:
    """Return queue, priority and attempts of a step: what the call says, else the verb, else its asset.

    An asset that names a queue of its own stays there, unless the call says otherwise.
    """
    queue, priority, max_attempts = asset.queue, asset.priority, policy.max_attempts
    if placing.queue is not None:
        queue = placing.queue
    elif spec.queue and queue == "assets":
        queue = spec.queue
    if placing.priority is not None:
        priority = placing.priority
    elif spec.usual_priority is not None:
        priority = spec.usual_priority
    elif priority is None:
        priority = NORMAL_PRIORITY
    if placing.max_attempts is not None:
        max_attempts = placing.max_attempts
    return queue, priority, max_attempts


_POLL_SECONDS = 0.5
_REPORT_SECONDS = 0.1
_LOST_SECONDS = 2.0
_STARTABLE = (State.PENDING, State.SCHEDULED)
_NOT_STARTED = (*_STARTABLE, State.RETRYING, State.AWAITING_APPROVAL)


class Driving:
    """Runs, or waits for, what was placed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def execute(self, run: SubmittedRun, job: Job, *, alone: bool = False) -> Materialization:
        """Run a placed step through its executor and wait for it; `alone` when it is all of its run."""
        try:
            done: object = run.executor.execute(job, **run.options) if run.options else run.executor.execute(job)
        except BaseException as error:
            self._not_started(run, job, error)
            raise
        finally:
            if alone and self._parts.delivery is not None:
                self._parts.delivery.after_run()
        if not isinstance(done, Materialization):
            # whatever it is, only what was committed counts
            self._not_started(run, job, _returned(run, "execute", done))
            return self._parts.results.of_record(self._record(job))
        return done

    def schedule(self, run: SubmittedRun, job: Job) -> Job:
        """Hand a placed step to its executor."""
        try:
            handed: object = run.executor.schedule(job, **run.options)
        except BaseException as error:
            self._not_started(run, job, error)
            raise
        if isinstance(handed, Job):
            if self._parts.delivery is not None and Capability.DURABLE not in run.executor.capabilities:
                self._parts.delivery.start()
            return handed
        refused = _returned(run, "schedule", handed)
        self._not_started(run, job, refused)
        raise refused

    def _not_started(self, run: SubmittedRun, job: Job, error: BaseException) -> None:
        """Record that an executor of this process did not start a step, when that is what happened.

        Nobody else would run that step, and every later request would join it and wait for ever. The rest of its
        run goes on; what depends on the step does not start.
        """
        if Capability.DURABLE in run.executor.capabilities:
            return
        record = self._record(job)
        if record.state not in _NOT_STARTED:
            return
        if isinstance(error, KeyboardInterrupt):  # a person at the terminal ends it
            self._parts.store.ledger.request_cancel(record.id)
        else:
            self._parts.inline.refused(record, error, by=run.executor.name)

    def _record(self, job: Job) -> StepRecord:
        record = self._parts.store.catalog.step(int(job.id))
        if record is None:
            raise RunNotFoundError("step", str(job.id))
        return record

    def drive(self, run: SubmittedRun, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Run a placed run to its end in this process, or wait for the workers to do so.

        Args:
            run: the run.
            on_progress: called with it at the start, at the end, and a few times a second between.
        """
        if Capability.DURABLE in run.executor.capabilities:
            self.watch(
                run.id,
                timeout_seconds=run.options.get("wait_timeout") or None,
                on_progress=on_progress,
                held_up=lambda: self._held_up(run),
                joined=[step.id for step in run.steps if step.deduplicated and not step.state.is_terminal],
            )
        else:
            self._drive(run, on_progress)

    def _drive(self, run: SubmittedRun, on_progress: Callable[[Progress], None] | None) -> None:
        position = {step.id: index for index, step in enumerate(run.steps)}
        report = self._reporter(run, on_progress)
        ready = [step.id for step in run.steps if step.state in _STARTABLE and not step.deduplicated]
        joined = [step.id for step in run.steps if step.deduplicated and not step.state.is_terminal]
        drive = Drive(
            run_id=run.id,
            ready=ready,
            width=_width(run),
            joined=joined,
            execute=lambda step_id: self.execute(run, run.job(position[step_id])),
            on_done=report,
        )
        try:
            if report is not None:
                report()
            self._parts.driver.drive(drive, position)
            if report is not None:
                report(last=True)
        except BaseException:
            # an interrupt at the terminal, or on_progress raised: nobody will run the rest
            for step_id in self._parts.store.ledger.cancel_run(run.id):
                self._parts.inline.cancel(step_id)
            raise
        finally:
            if self._parts.delivery is not None:
                self._parts.delivery.after_run()

    def _reporter(
        self, run: SubmittedRun, on_progress: Callable[[Progress], None] | None
    ) -> Callable[..., None] | None:
        if on_progress is None:
            return None
        lock = threading.Lock()
        due = 0.0
        reports = self._reports(run.id, on_progress)

        def report(*, last: bool = False) -> None:
            nonlocal due
            with lock:
                # counting the steps of a large run after each of them would cost more than running them
                if last or time.monotonic() >= due:
                    self._report(run.id, reports)
                    due = time.monotonic() + _REPORT_SECONDS

        return report

    def _reports(self, run_id: str, on_progress: Callable[[Progress], None]) -> ProgressReports:
        catalog = self._parts.store.catalog
        return ProgressReports(lambda state, limit: catalog.steps(run_id, state=state, limit=limit), on_progress)

    def _report(self, run_id: str, reports: ProgressReports, waiting_for: tuple[str, ...] = ()) -> None:
        try:
            record = self._parts.store.catalog.run(run_id)
            if record is not None:
                reports.report(record, waiting_for)
        except DatabaseUnavailableError:
            return  # whoever waits for the run says so, or gives up

    def _held_up(self, run: SubmittedRun) -> list[str]:
        """Return what a durable run waits for; of a large backfill that nobody has begun, its first partition."""
        found = self._parts.waiting.of_run(run.id)
        if found or run.steps:
            return found
        record = self._parts.store.catalog.run(run.id)
        begun = record is None or any(record.counts.get(state) for state in State if state is not State.PENDING)
        return [] if begun else self._parts.waiting.of_target(run.spec.targets[0])

    def watch(
        self,
        run_id: str,
        *,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        held_up: Callable[[], list[str]] | None = None,
        joined: Sequence[int] = (),
    ) -> bool:
        """Wait until a run is over; return whether it is.

        Args:
            run_id: the run.
            timeout_seconds: give up waiting after this.
            on_progress: called with it at the start, at the end, and now and then between.
            held_up: says what it waits for; by default what is recorded of its steps.
            joined: steps of other runs that it waits for, whose processes may be lost.
        """
        deadline = time.monotonic() + timeout_seconds if timeout_seconds is not None else None
        over = False
        reports = None if on_progress is None else self._reports(run_id, on_progress)
        due = time.monotonic() + _LOST_SECONDS
        notice = WaitNotice(f"Run {run_id}", held_up or (lambda: self._parts.waiting.of_run(run_id)))
        while not over and (deadline is None or time.monotonic() < deadline):
            if reports is not None:
                self._report(run_id, reports, notice.reasons)
            pause = _POLL_SECONDS if deadline is None else min(_POLL_SECONDS, deadline - time.monotonic())
            over = self._parts.store.catalog.wait([], run_id=run_id, timeout_seconds=max(0.01, pause))
            if not over:
                notice()
                if joined and time.monotonic() >= due:
                    self._parts.store.end_lost(joined)
                    due = time.monotonic() + _LOST_SECONDS
        if reports is not None:
            self._report(run_id, reports)
        return over


def _returned(run: SubmittedRun, method: str, got: object) -> OptionsError:
    needed = "the Materialization that run(job) returns" if method == "execute" else "the Job"
    return OptionsError(
        f"The executor {run.executor.name!r} returned {got!r} from {method}() instead of {needed}, and did not "
        "run the step."
    )


def _width(run: SubmittedRun) -> int:
    """How many steps run at once: what was asked for, else what the executor does by itself."""
    if Capability.SEQUENTIAL in run.executor.capabilities:
        return 1
    if run.spec.max_concurrency is not None:
        return run.spec.max_concurrency
    if Capability.CONCURRENT in run.executor.capabilities:
        return concurrency_of(run.executor)
    return 1
