"""`flow.runs`: runs, their steps, and handles of single steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, overload

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts, control_of
from flowstone.app.results import Progress, RunHandle, RunResult
from flowstone.app.submit import Placement
from flowstone.app.targets import flag, run_id_of, step_id_of, texts, was_removed, whole_number
from flowstone.core.capability import Capability
from flowstone.core.clean import clean_text
from flowstone.core.declaring import duration, shown, view
from flowstone.core.generic import Value
from flowstone.core.job import Job, JobStatus
from flowstone.core.materialization import Materialization
from flowstone.core.partitions import decode_partition
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord, RunRecord, StepRecord, Target
from flowstone.engine.run_spec import BACKFILL_QUEUE, RunSpec
from flowstone.errors import (
    CapabilityError,
    OptionsError,
    RunNotFoundError,
    WaitTimeoutError,
    command,
    did_you_mean,
)
from flowstone.executors.inline import seconds_option
from flowstone.protocols import CancelsJobs, Executor, ReportsStatus

type AnyRun = str | RunRecord | RunResult | RunHandle | Job
"""What names a run: its id, or what a verb returned about it."""

type AnyStep = Job | str | int
"""What names a step: its handle, or its id."""

_EVERY = 1_000_000


@view("flow.runs")
class RunsView:
    """What ran, runs and will run.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def one():
        ...     return 1
        >>> flow = FlowStone([one])
        >>> done = flow.materialize_all("one")
        >>> [run.state.value for run in flow.runs.latest()]
        ['completed']
    """

    def __init__(self, parts: Parts, placement: Placement) -> None:
        self._parts = parts
        self._placement = placement

    def latest(self, *, limit: int = 50, parent: AnyRun | None = None, tag: str | None = None) -> list[RunRecord]:
        """Return the newest runs.

        No steps are counted for a list. Of a run that is not over, `counts` says what its counters know: what
        failed upstream is among the failed, what was reused or skipped among the completed, and what neither runs
        nor is over is pending. `get` counts.

        Args:
            limit: how many at most.
            parent: only those of the items that the steps of this run scattered.
            tag: only those that carry this tag.
        """
        found = parent if parent is None else run_id_of(parent)
        return self._parts.store.catalog.runs(limit=whole_number("limit", limit), parent=found, tag=tag)

    def get(self, run_id: AnyRun) -> RunRecord:
        """Return a run with the counts of its steps.

        Raises:
            RunNotFoundError: there is no such run.
        """
        identifier = run_id_of(run_id)
        record = self._parts.store.catalog.run(identifier)
        if record is None:
            raise RunNotFoundError("run", identifier)
        return record

    def steps(self, run_id: AnyRun, *, state: State | None = None, limit: int = 1000) -> list[StepRecord]:
        """Return steps of a run, all or those in one state."""
        given: object = state
        if given is not None and not (isinstance(given, str) and given in set(State)):
            raise OptionsError(
                f"state={shown(state)}: give a State.{did_you_mean(str(state), [one.value for one in State])}"
            )
        limit = whole_number("limit", limit)
        return self._parts.store.catalog.steps(run_id_of(run_id), state=state and State(state), limit=limit)

    def step(self, job: AnyStep) -> StepRecord:
        """Return everything recorded of a step.

        Raises:
            RunNotFoundError: there is no such step.
        """
        step_id = step_id_of(job)
        record = self._parts.store.catalog.step(step_id) if step_id is not None else None
        if record is None:
            raise RunNotFoundError("step", str(job.id if isinstance(job, Job) else job))
        return record

    def attempts(self, job: AnyStep) -> list[AttemptRecord]:
        """Return the attempts of a step that are over, in order, with their errors and times."""
        return self._parts.store.catalog.attempts(self.step(job).id)

    def status(self, job: Job[Value] | str | int) -> JobStatus[Value]:
        """Return where a job stands: since when, its attempts, its error, what it waits for, its result.

        An executor that declares the capability `status` is asked about a job that is not over: what it knows
        beyond our own tables is shown with it. Whether a job is over is what these tables say.

        Args:
            job: the handle, or the id of a step.

        Returns:
            The status; its state is `not_found` for a job that was never placed here.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def one():
            ...     return 1
            >>> flow = FlowStone([one])
            >>> status = flow.runs.status(flow.schedule("one"))
            >>> status.state.value, status.attempt, status.result.value
            ('completed', 1, 1)
        """
        try:
            record = self.step(job)
        except RunNotFoundError:
            return JobStatus(state=State.NOT_FOUND)
        state, reported = self._reported_state(record)
        result = None
        if record.state.is_success:
            result = self._parts.results.of_record(record)
        waiting_for = [*([reported] if reported else []), *self._parts.waiting.of_step(record)]
        return JobStatus(
            state=state,
            since=self._since(record),
            scheduled_at=record.scheduled_at,
            attempt=record.attempt,
            max_attempts=record.max_attempts,
            error=record.error,
            error_type=record.error_type,
            reason=record.reason,
            waiting_for=tuple(waiting_for),
            result=result,
        )

    def step_state(self, job: AnyStep) -> State:
        """Return the state of a step; `not_found` when there is none."""
        try:
            return self._reported_state(self.step(job))[0]
        except RunNotFoundError:
            return State.NOT_FOUND

    def cancel_step(self, job: AnyStep) -> State:
        """Ask for a step's end and return its state now; see `FlowStone.cancel_job`."""
        record = self.step(job)
        state = self._parts.store.ledger.request_cancel(record.id)
        if state is State.CANCELLING:
            self._reach(record)
            if self._parts.store.end_lost([record.id]):
                state = self.step(record.id).state
        scattered = self._parts.store.scatters.of_steps([record.id]).get(record.id)
        if scattered is not None and not scattered.is_over:
            self._reach_items(scattered.run_id)
        return state

    def cancel(self, run_id: AnyRun) -> RunRecord:
        """Cancel every step of a run that is not over; running ones are signalled.

        Raises:
            RunNotFoundError: there is no such run.
        """
        run_id = run_id_of(run_id)
        running = self._parts.store.ledger.cancel_run(run_id)
        self.reach(running)
        for run in self._scattered(run_id):
            self._reach_items(run.id)
        return self.get(run_id)

    def reach(self, step_ids: Sequence[int]) -> None:
        """Signal steps that run and are to stop, wherever they run; those whose process is lost are ended."""
        for step_id in step_ids:
            record = self._parts.store.catalog.step(step_id)
            if record is not None:
                self._reach(record)
        if step_ids:
            self._parts.store.end_lost(step_ids)

    def set_priority(self, run_id: AnyRun, priority: int) -> RunRecord:
        """Give a run, and what of it is not over, another priority.

        Args:
            run_id: the run.
            priority: 0 (first) to 9.

        Raises:
            RunNotFoundError: there is no such run.
            OptionsError: it is over, or the priority cannot work.
        """
        run = self.get(run_id)
        priority = whole_number("priority", priority, minimum=0, maximum=9)
        if run.state.is_terminal or not self._parts.store.bulk.set_priority([run.id], priority, {}):
            raise OptionsError(f"Run {run.id!r} is over: nothing of it has a priority any more.")
        return self.get(run.id)

    def set_window(self, run_id: AnyRun, max_concurrency: int) -> RunRecord:
        """Change how many steps of a durable run are placed at once, such as of a backfill that is too slow.

        Args:
            run_id: the run; one with a window, or a backfill or retry, which may get one at any time.
            max_concurrency: how many, from 1.

        Raises:
            RunNotFoundError: there is no such run.
            OptionsError: it is over, or has no window.
        """
        run = self.get(run_id)
        window = whole_number("max_concurrency", max_concurrency, maximum=1_000_000)
        if not self._parts.store.bulk.set_window(run.id, window):
            why = "is over" if run.state.is_terminal else "has no window on a queue"
            raise OptionsError(f"max_concurrency={window}: run {run.id!r} {why}.")
        return self.get(run.id)

    def pause(self, run_id: AnyRun) -> RunRecord:
        """Start nothing more of a durable run; what runs goes on.

        Raises:
            RunNotFoundError: there is no such run.
            CapabilityError: its executor is not durable.
            ExecutorUnavailableError: this app has no database.
        """
        run_id = run_id_of(run_id)
        control = control_of(self._parts)
        self._refuse_inline(self.get(run_id))
        control.pause_run(run_id)
        for run in self._scattered(run_id):
            control.pause_run(run.id)
        return self.get(run_id)

    def resume(self, run_id: AnyRun) -> RunRecord:
        """Go on with a paused run.

        Raises:
            RunNotFoundError: there is no such run.
            CapabilityError: its executor is not durable.
            ExecutorUnavailableError: this app has no database.
        """
        run_id = run_id_of(run_id)
        control = control_of(self._parts)
        self._refuse_inline(self.get(run_id))
        control.resume_run(run_id)
        for run in self._scattered(run_id):
            control.resume_run(run.id)
        return self.get(run_id)

    def find(self, run_id: AnyRun) -> RunRecord | None:
        """Return a run with the counts of its steps; None when there is none."""
        return self._parts.store.catalog.run(run_id_of(run_id))

    def wait(
        self,
        run_id: AnyRun,
        *,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Wait until a run is over, whoever asked for it, and return its outcome.

        Args:
            run_id: the run, its handle or its record.
            timeout_seconds: give up waiting after this; the run goes on.
            on_progress: called with how far it is.

        Returns:
            The outcome, as `materialize_all` and `backfill` return it.

        Raises:
            RunNotFoundError: there is no such run.
            WaitTimeoutError: it was not over in time.

        Example:
            >>> from flowstone import FlowStone, asset
            >>> @asset
            ... def one():
            ...     return 1
            >>> flow = FlowStone.for_testing([one])
            >>> flow.runs.wait(flow.materialize_all("one").run_id).value
            1
        """
        record = self.get(run_id)
        limit = seconds_option("timeout_seconds", timeout_seconds)
        over = self._placement.driving.watch(record.id, timeout_seconds=limit, on_progress=on_progress)
        if not over:
            raise WaitTimeoutError(f"Run {record.id!r}", limit or 0.0, record.id)
        return self._parts.results.of_run(self.get(record.id))

    def handle(self, run_id: str) -> RunHandle:
        """Return a handle of a run, as `wait=False` does.

        Args:
            run_id: the run.
        """
        return RunHandle(run_id, self).refresh()

    @overload
    def retry(
        self,
        run_id: AnyRun,
        *,
        steps: Iterable[AnyStep] | None = None,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        assets: Iterable[str] = (),
        error_type: str | None = None,
        wait: Literal[True] = True,
    ) -> RunResult: ...
    @overload
    def retry(
        self,
        run_id: AnyRun,
        *,
        steps: Iterable[AnyStep] | None = None,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        assets: Iterable[str] = (),
        error_type: str | None = None,
        wait: Literal[False],
    ) -> RunHandle: ...
    def retry(
        self,
        run_id: AnyRun,
        *,
        steps: Iterable[AnyStep] | None = None,
        executor: str | Executor = "auto",
        executor_opts: Mapping[str, Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        assets: Iterable[str] = (),
        error_type: str | None = None,
        wait: bool = True,
    ) -> RunResult | RunHandle:
        """Run again what a run did not get done, and only that, as a new run; and wait.

        What was to be computed by force is forced again; of the rest, what was committed since is reused. Keys
        of dynamic partitions that were removed since are left out. What the run was about stays: config, tags,
        metadata, parts by name.

        Args:
            run_id: the run that failed or was cancelled.
            steps: only these of its steps; None for all that it did not get done.
            executor: see `FlowStone.materialize`.
            executor_opts: see `FlowStone.materialize`.
            on_progress: called with how far it is.
            assets: only steps of these assets.
            error_type: only steps that failed with an error of this class, such as `builtins.ValueError`.
            wait: whether to wait for the end; else the answer is a `RunHandle`.

        Raises:
            RunNotFoundError: there is no such run.
            UnknownAssetError: the app no longer has an asset of it.
            OptionsError: it is a run of items, which belongs to another one.
        """
        waits, run_id = flag("wait", wait), run_id_of(run_id)
        old = self.get(run_id)
        if old.process_lost:
            self._parts.store.end_lost([step.id for step in self.steps(run_id, limit=_EVERY)])
        failed = self._not_done(run_id, assets, error_type)
        _refuse_items(old)
        if steps is not None:
            requested = {step_id_of(step) for step in steps}
            failed = [step for step in failed if step.id in requested]
            if len(failed) < len(requested):
                raise OptionsError(f"steps=: not all of them are steps that the run {run_id} did not get done.")
        targets: list[Target] = [
            (step.asset, step.partition_key)
            for step in failed
            if not was_removed(self._parts.graph[step.asset], step.partition_key)
        ]
        spec = RunSpec(
            kind="retry",
            selection=f"retry of {run_id}",
            targets=targets,
            executor=executor,
            executor_opts=executor_opts,
            force=any(step.forced for step in failed),
            usual_priority=old.priority,
            queue=BACKFILL_QUEUE if any(step.queue == BACKFILL_QUEUE for step in failed) else None,
            max_concurrency=old.max_concurrency,
            retry_of=run_id,
            details=self._parts.store.catalog.run_details(run_id),
            allow_incomplete=True,  # what was accepted then is not asked again
        )
        if not waits:
            return self.handle(self._placement.start(spec).id)
        return self._placement.run(spec, on_progress)

    def wait_for(
        self, job: Job[Value] | str | int, *, timeout_seconds: float | timedelta | None = None
    ) -> Materialization[Value]:
        """Wait until a step is over and return what it stands for.

        Args:
            job: the handle or its id.
            timeout_seconds: give up waiting after this, a timedelta or seconds; the step goes on.

        Raises:
            StepFailedError: it has no result.
            StepCancelledError: it was cancelled.
            WaitTimeoutError: it was not over in time.
        """
        record = self.step(job)
        if timeout_seconds is not None and duration(timeout_seconds) is None:
            raise OptionsError(
                f"timeout_seconds={shown(timeout_seconds)}: give a timedelta or seconds, from 0 to a year."
            )
        joined = job.deduplicated if isinstance(job, Job) else False
        self._parts.wait(record, None if timeout_seconds is None else duration(timeout_seconds))
        return self._parts.results.of_record(self.step(record.id), deduplicated=joined)

    def _reported_state(self, record: StepRecord) -> tuple[State, str | None]:
        """Return the state of a step, and what its executor says about it, when it knows more than is recorded."""
        if record.state.is_terminal:
            return record.state, None
        for executor in self._holders(record, Capability.STATUS):
            if not isinstance(executor, ReportsStatus):
                continue
            try:
                reported = executor.status(self._handle(record))
            except Exception as error:  # noqa: BLE001 - what is recorded stands
                why = clean_text(f"{type(error).__name__}: {error}", limit=200)
                return record.state, f"the executor {record.executor!r} could not say more: {why}"
            if reported is None:
                continue
            if not isinstance(reported, State) and reported in State:
                reported = State(reported)
            if not isinstance(reported, State):
                return record.state, clean_text(str(reported), limit=1000)
            if reported.is_terminal or reported is State.NOT_FOUND:
                # its word ends no step: only a commit does
                return (
                    record.state,
                    f"the executor {record.executor!r} says {reported.value}; nothing is committed yet",
                )
            return reported, None
        return record.state, None

    def _since(self, record: StepRecord) -> datetime | None:
        """Return when a step came into its state, as far as that is recorded."""
        if record.finished_at is not None:
            return record.finished_at
        if record.state in (State.RUNNING, State.CANCELLING):
            return record.started_at
        if record.state is State.AWAITING_APPROVAL:
            requests = self._parts.store.approvals.of_step(record.id)
            return requests[-1].created_at if requests else record.started_at
        if record.state is State.RETRYING:
            ended = self._parts.store.catalog.attempts(record.id)
            return ended[-1].finished_at if ended else record.started_at
        return record.started_at or record.created_at

    def _holders(self, record: StepRecord, capability: Capability) -> Iterator[Executor]:
        """Yield the executors that hold a step and declare something."""
        for executor in self._parts.executors.made():
            if executor.name == record.executor and capability in executor.capabilities:
                yield executor

    def _not_done(self, run_id: str, assets: Iterable[str], error_type: str | None) -> list[StepRecord]:
        """Return what a run did not get done: failed, not started because of a failure, or cancelled."""
        states = (State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED)
        found = [step for state in states for step in self.steps(run_id, state=state, limit=1_000_000)]
        named = set(texts("assets", assets))
        if named or error_type is not None:
            found = [
                step
                for step in found
                if (not named or step.asset in named) and error_type in (None, step.error_type)
            ]
            if not found:
                what = ", ".join([*sorted(named), *([error_type] if error_type else [])])
                raise OptionsError(f"Nothing of run {run_id!r} that was not done matches {what}.")
        return sorted(found, key=lambda step: step.id)

    def _refuse_inline(self, run: RunRecord) -> None:
        """Refuse to steer a run that lives in the process that asked for it."""
        capabilities = self._parts.executors.get(run.executor).capabilities
        if Capability.DURABLE not in capabilities:
            raise CapabilityError(run.executor, "pausing a run", capabilities)

    def _scattered(self, run_id: str) -> list[RunRecord]:
        """Return the runs of items that belong to a run and are not over."""
        found = self.latest(limit=_EVERY, parent=run_id)
        return [run for run in found if not run.state.is_terminal]

    def _reach_items(self, run_id: str) -> None:
        """Signal the items of a run that are being cancelled."""
        for step in self.steps(run_id, state=State.CANCELLING, limit=_EVERY):
            self._reach(step)

    def _reach(self, record: StepRecord) -> None:
        """Signal the running step: directly when it runs here, through its executor otherwise."""
        if self._parts.inline.cancel(record.id):
            return
        for executor in self._holders(record, Capability.CANCEL):
            if isinstance(executor, CancelsJobs):
                executor.cancel(self._handle(record))

    def _handle(self, record: StepRecord) -> Job:
        return Job(
            id=record.id,
            asset=record.asset,
            partition=decode_partition(record.partition_key),
            run_id=record.run_id,
            executor=record.executor,
            priority=record.priority,
            scheduled_at=record.scheduled_at,
        )


class AsyncRunsView(AsyncFlowStone):
    """`flow.aio.runs`: the verbs of `flow.runs`, awaitable."""

    latest = awaitable(RunsView.latest)
    get = awaitable(RunsView.get)
    steps = awaitable(RunsView.steps)
    step = awaitable(RunsView.step)
    attempts = awaitable(RunsView.attempts)
    status = awaitable(RunsView.status)
    step_state = awaitable(RunsView.step_state)
    cancel_step = awaitable(RunsView.cancel_step)
    cancel = awaitable(RunsView.cancel)
    reach = awaitable(RunsView.reach)
    set_priority = awaitable(RunsView.set_priority)
    set_window = awaitable(RunsView.set_window)
    pause = awaitable(RunsView.pause)
    resume = awaitable(RunsView.resume)
    find = awaitable(RunsView.find)
    wait = awaitable(RunsView.wait)
    handle = awaitable(RunsView.handle)
    retry = awaitable(RunsView.retry)
    wait_for = awaitable(RunsView.wait_for)


def _refuse_items(run: RunRecord) -> None:
    if run.parent is not None:
        raise OptionsError(
            f"Run {run.id!r} consists of items of run {run.parent!r}. Retry that one: it runs only items "
            f"without a result: flow.runs.retry({run.parent!r}) or `{command('retry', run.parent)}`."
        )
