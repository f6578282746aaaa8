"""One run, what broke first; the same of a backfill with its partitions; and what can be done to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowstone.core.capability import Capability
from flowstone.core.paging import Page
from flowstone.core.state import State
from flowstone.engine.insights.runs import AssetOfRun, RunView, StepLine
from flowstone.errors import FlowStoneError
from flowstone.web.fields import number
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

_ASSETS = 30
_STEPS = 30
_RETRIED = ("failed", "cancelled")


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which run, and which of its steps are listed.

    Args:
        id: the run.
        asset: only steps of these assets.
        state: only steps in these states.
        error: only steps with an error of this class.
        next: the cursor of a page of steps.
    """

    id: str
    asset: tuple[str, ...] = ()
    state: tuple[
        Literal[
            "waiting",
            "scheduled",
            "pending",
            "running",
            "retrying",
            "awaiting_approval",
            "cancelling",
            "completed",
            "reused",
            "failed",
            "upstream_failed",
            "skipped",
            "cancelled",
        ],
        ...,
    ] = ()
    error: str | None = None
    next: str | None = None


@dataclass(frozen=True, slots=True)
class RunModel:
    """A run.

    Args:
        view: everything about it.
        assets: its assets, the first ones.
        more_assets: how many there are besides.
        steps: some of its steps: as the query says, else those that failed, else the first ones.
        only_failed: whether only failed steps are listed although nobody asked for that.
        can_cancel: whether it is not over.
        can_retry: whether something of it was not done.
        can_pause: whether it is on a queue, goes on, and is not paused.
        can_resume: whether it is paused.
    """

    view: RunView
    assets: tuple[AssetOfRun, ...]
    more_assets: int
    steps: Page[StepLine]
    only_failed: bool
    can_cancel: bool
    can_retry: bool
    can_pause: bool
    can_resume: bool


@page("/run", template="run.html", title="Run", query=RunQuery, role=Role.VIEWER, rail="Runs")
def run(request: PageRequest[RunQuery]) -> RunModel:
    """Return a run with some of its steps."""
    return _model(request, with_partitions=False)


@page("/backfill", template="backfill.html", title="Backfill", query=RunQuery, role=Role.VIEWER, rail="Runs")
def backfill(request: PageRequest[RunQuery]) -> RunModel:
    """Return a backfill with the states of its partitions."""
    return _model(request, with_partitions=True)


def _model(request: PageRequest[RunQuery], *, with_partitions: bool) -> RunModel:
    query = request.query
    view = request.insights.run(query.id, with_partitions=with_partitions)
    line = view.run
    only_failed = bool(view.errors) and not (query.state or query.asset or query.error)
    steps = request.insights.run_steps(
        query.id,
        states=(State.FAILED,) if only_failed else tuple(State(one) for one in query.state),
        assets=query.asset,
        error_type=query.error,
        cursor=query.next,
        limit=_STEPS,
    )
    is_over = line.finished_at is not None
    on_queue = not is_over and line.parent is None and _on_queue(request, line.executor)
    return RunModel(
        view=view,
        assets=view.assets[:_ASSETS],
        more_assets=max(0, len(view.assets) - _ASSETS),
        steps=steps,
        only_failed=only_failed,
        can_cancel=not is_over,
        can_retry=is_over and line.state in _RETRIED and line.parent is None,
        can_pause=on_queue and not line.paused,
        can_resume=on_queue and line.paused,
    )


def _on_queue(request: PageRequest[RunQuery], executor: str) -> bool:
    try:
        return Capability.DURABLE in request.flow.parts.executors.get(executor).capabilities
    except FlowStoneError:
        return False


@dataclass(frozen=True, slots=True)
class RunForm:
    """Which run.

    Args:
        id: the run.
    """

    id: str


@dataclass(frozen=True, slots=True)
class RetryForm:
    """Which run, and what of it.

    Args:
        id: the run.
        asset: only these assets; all when empty.
        error: only steps with an error of this class.
    """

    id: str
    asset: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PriorityForm:
    """Which run, and its new priority.

    Args:
        id: the run.
        priority: 0 (first) to 9.
    """

    id: str
    priority: int = number(4, maximum=9)


@dataclass(frozen=True, slots=True)
class WindowForm:
    """Which backfill, and how many of its steps at once.

    Args:
        id: the run.
        window: how many.
    """

    id: str
    window: int = number(50, minimum=1, maximum=1_000_000)


def _confirm_cancel(call: ActionCall[RunForm]) -> Confirm:
    line = call.flow.insights.run(call.form.id).run
    return Confirm(
        f"Cancel run {line.id}?",
        "Cancel the run",
        details=(
            f"{line.selection} {line.partitions}".rstrip(),
            f"{line.counts.waiting:,} of its steps have not started, and never will.",
            f"{line.counts.running:,} run, and are asked to stop.",
        ),
        danger=True,
    )


@action("/run/cancel", title="Cancel a run", form=RunForm, role=Role.OPERATOR, confirm=_confirm_cancel)
def cancel(call: ActionCall[RunForm]) -> Done:
    """Cancel a run."""
    before = call.flow.insights.run(call.form.id).run
    if before.finished_at is not None:
        return Done(f"Run {before.id} was over already: {before.state}.", url("run", id=before.id))
    after = call.flow.runs.cancel(before.id)
    return Done(f"Run {after.id} is {after.state.value}.", url("run", id=after.id))


def _confirm_retry(call: ActionCall[RetryForm]) -> Confirm:
    form = call.form
    line = call.flow.insights.run(form.id).run
    only = " ".join(part for part in (", ".join(form.asset), form.error or "") if part)
    number_of = line.counts.failed + line.counts.cancelled
    return Confirm(
        f"Retry what run {line.id} did not get done?",
        "Retry" if only else f"Run {number_of:,} steps",
        details=(
            f"Only {only}."
            if only
            else f"{line.counts.failed:,} failed, {line.counts.cancelled:,} were cancelled.",
            "A new run computes them, with the config and tags of this one; what was committed since is reused.",
        ),
    )


@action("/run/retry", title="Retry a run", form=RetryForm, role=Role.OPERATOR, confirm=_confirm_retry)
def retry(call: ActionCall[RetryForm]) -> Done:
    """Run again what a run did not get done."""
    form = call.form
    handle = call.flow.runs.retry(form.id, assets=form.asset, error_type=form.error, wait=False)
    return Done(f"Run {handle.id} repeats what {form.id} did not get done.", url("run", id=handle.id))


@action("/run/pause", title="Pause a run", form=RunForm, role=Role.OPERATOR)
def pause(call: ActionCall[RunForm]) -> Done:
    """Start nothing more of a run."""
    call.flow.runs.pause(call.form.id)
    return Done("Nothing more of it is started; what runs goes on.", url("run", id=call.form.id))


@action("/run/resume", title="Resume a run", form=RunForm, role=Role.OPERATOR)
def resume(call: ActionCall[RunForm]) -> Done:
    """Go on with a paused run."""
    call.flow.runs.resume(call.form.id)
    return Done("It goes on.", url("run", id=call.form.id))


@action("/run/priority", title="Change the priority of a run", form=PriorityForm, role=Role.OPERATOR)
def prioritize(call: ActionCall[PriorityForm]) -> Done:
    """Give a run another priority."""
    changed = call.flow.runs.set_priority(call.form.id, call.form.priority)
    return Done(f"Its priority is {changed.priority} now.", url("run", id=changed.id))


@action("/run/window", title="Change the window of a backfill", form=WindowForm, role=Role.OPERATOR)
def set_window(call: ActionCall[WindowForm]) -> Done:
    """Change how many steps of a backfill are placed at once."""
    changed = call.flow.runs.set_window(call.form.id, call.form.window)
    return Done(f"{changed.max_concurrency:,} of its steps run at once now.", url("backfill", id=changed.id))
