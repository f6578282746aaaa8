"""One step: what went wrong, what it said, what it read and made; and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowstone.app.logs import LogPage, RunLogPage
from flowstone.core.logs import LogLine
from flowstone.core.state import State
from flowstone.engine.insights.steps import StepDetail
from flowstone.errors import OptionsError
from flowstone.web.fields import number
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, PlainFile, Role, action, page, url

_LINES = 200
_CHARACTERS = 48_000
_EVERY = 5_000
_TOPICS = ("runs", "steps", "approvals", "workers", "audit", "logs")
_RETRIED = frozenset({State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class StepQuery:
    """Which step, and which lines of its log.

    Args:
        id: the step.
        attempt: whose log; the newest attempt by default.
        before: only lines before this place, the `previous` of a page of lines.
    """

    id: int
    attempt: int | None = number(None, minimum=1, maximum=1_000_000)
    before: str | None = None


@dataclass(frozen=True, slots=True)
class StepModel:
    """A step and the last lines that one of its attempts logged.

    Args:
        step: everything that is recorded of it.
        log: lines of one attempt.
        can_retry: whether it ended without a result and can be run again by itself.
        can_cancel: whether it is not over.
    """

    step: StepDetail
    log: LogPage
    can_retry: bool
    can_cancel: bool


@page("/step", template="step.html", query=StepQuery, role=Role.VIEWER, title="Step", rail="Runs", topics=_TOPICS)
def step(request: PageRequest[StepQuery]) -> StepModel:
    """Return a step with the last lines of its log."""
    query, insights = request.query, request.insights
    found = insights.step(query.id)
    log = insights.logs(query.id, query.attempt, before=query.before, newest=True, limit=_LINES)
    return StepModel(
        step=found,
        log=_within(log),
        can_retry=State(found.state) in _RETRIED and not found.item and found.declared,
        can_cancel=not found.is_over,
    )


def _within(log: LogPage) -> LogPage:
    """Return the last lines of a page that are not too much for one view."""
    size, first = 0, len(log.lines)
    while first and (size := size + len(log.lines[first - 1].text) + 20) <= _CHARACTERS:
        first -= 1
    if first == 0 or first == len(log.lines):
        return log
    kept = log.lines[first:]
    return replace(log, lines=kept, previous=f"{kept[0].token}.{kept[0].number}")


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which log.

    Args:
        id: the step.
        attempt: whose log; the newest attempt by default.
    """

    id: int
    attempt: int | None = number(None, minimum=1, maximum=1_000_000)


@page("/step/log", template="step.html", query=LogQuery, role=Role.VIEWER, title="Log of a step", rail="Runs")
def step_log(request: PageRequest[LogQuery]) -> PlainFile:
    """Return all that is kept of the log of an attempt, as text."""
    query = request.query
    log = request.insights.logs(query.id, query.attempt, limit=_EVERY)
    return PlainFile("step.log", "".join(f"{_as_text(line)}\n" for line in log.lines))


def _as_text(line: LogLine) -> str:
    left_out = f"[... {line.left_out:,} lines left out ...]\n" if line.left_out else ""
    moment = line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{left_out}{moment} {line.source} {line.text}"


@dataclass(frozen=True, slots=True)
class RunLogQuery:
    """Which run, and which lines.

    Args:
        id: the run.
        after: only what is behind this place, the `next` of a page.
        newest: the last lines instead of the first ones.
        file: all of it as a file.
    """

    id: str
    after: str | None = None
    newest: bool = False
    file: bool = False


@page(
    "/run/log",
    template="run_log.html",
    query=RunLogQuery,
    role=Role.VIEWER,
    title="Log of a run",
    rail="Runs",
    topics=_TOPICS,
)
def run_log(request: PageRequest[RunLogQuery]) -> RunLogPage | PlainFile:
    """Return lines that the steps of a run have logged, in the order in which they were written."""
    query, insights = request.query, request.insights
    if query.file:
        whole = insights.run_logs(query.id, limit=_EVERY)
        texts = [f"{one.label} #{one.attempt} {_as_text(one.line)}\n" for one in whole.lines]
        return PlainFile("run.log", "".join(texts))
    return insights.run_logs(query.id, after=query.after, newest=query.newest, limit=_LINES)


@dataclass(frozen=True, slots=True)
class StepForm:
    """Which step.

    Args:
        id: the step.
    """

    id: int


def _confirm_cancel(call: ActionCall[StepForm]) -> Confirm:
    found = call.flow.insights.step(call.form.id)
    running = found.state in (State.RUNNING, State.CANCELLING)
    return Confirm(
        f"Cancel {found.name}?",
        "Cancel the step",
        details=(
            "It runs: its function is asked to stop." if running else "It has not started, and will not.",
            "What depends on it in its run ends without a result.",
        ),
        danger=True,
    )


@action("/steps/cancel", title="Cancel a step", form=StepForm, role=Role.OPERATOR, confirm=_confirm_cancel)
def cancel_step(call: ActionCall[StepForm]) -> Done:
    """Cancel a step."""
    found = call.flow.insights.step(call.form.id)
    if found.is_over:
        return Done(f"{found.name} was over already: {found.state}.", url("step", id=found.id))
    state = call.flow.cancel_job(found.id)
    return Done(f"{found.name} is {state.value}.", url("step", id=found.id))


def _confirm_retry(call: ActionCall[StepForm]) -> Confirm:
    found = call.flow.insights.step(call.form.id)
    return Confirm(
        f"Run {found.name} again?",
        "Run 1 step",
        details=("A new run computes this step alone, with the config of its run. What it made before stays.",),
    )


@action("/steps/retry", title="Run a step again", form=StepForm, role=Role.OPERATOR, confirm=_confirm_retry)
def retry_step(call: ActionCall[StepForm]) -> Done:
    """Run a step again that ended without a result."""
    found = call.flow.insights.step(call.form.id)
    if found.item:
        raise OptionsError("It is an item: retry the run of the step that scattered it.")
    handle = call.flow.runs.retry(found.run.id, steps=[found.id], wait=False)
    return Done(f"{found.name} is placed again, in run {handle.id}.", url("run", id=handle.id))


def _confirm_invalidate(call: ActionCall[StepForm]) -> Confirm:
    found = call.flow.insights.step(call.form.id)
    return Confirm(
        f"Take {found.name} out of use?",
        "Take it out of use",
        details=(
            "Nobody reads this version any more, and the next run computes the partition anew.",
            "Its record and its value stay, and a version can be restored.",
        ),
        danger=True,
    )


@action(
    "/steps/invalidate",
    title="Take a version out of use",
    form=StepForm,
    role=Role.OPERATOR,
    confirm=_confirm_invalidate,
)
def invalidate_step(call: ActionCall[StepForm]) -> Done:
    """Take the version out of use that a step committed, if it still is the one in use."""
    flow = call.flow
    found = flow.insights.step(call.form.id)
    if not found.is_current:
        return Done(f"{found.name}: this version is not the one in use.", url("step", id=found.id))
    record = flow.runs.step(found.id)
    number_of = flow.parts.store.ledger.invalidate([(record.asset, record.partition_key)])
    done = "is out of use" if number_of else "was out of use already"
    return Done(f"{found.name} {done}.", url("step", id=found.id))
