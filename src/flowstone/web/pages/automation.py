"""Schedules, sensors and conditions: what runs by itself, when next, what its last evaluations came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from flowstone.app.flow import FlowStone
from flowstone.app.targets import find_asset
from flowstone.core.definition import read_partition
from flowstone.core.paging import Page
from flowstone.core.partitions import encode_partition
from flowstone.engine.insights.automation import AutomationDetails, AutomationSummary
from flowstone.errors import OptionsError
from flowstone.web.fields import number, text
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class AutomationQuery:
    """Which automations are shown.

    Args:
        kind: only of this kind.
        state: only in this state.
        text: only those with this in name, description or selection.
        next: where the page begins.
        limit: how many.
    """

    kind: Literal["schedule", "sensor", "condition"] | None = None
    state: Literal["failing", "late", "paused", "active", "new"] | None = None
    text: str | None = None
    next: str | None = None
    limit: int = number(30, minimum=1, maximum=100)


@dataclass(frozen=True, slots=True)
class AutomationModel:
    """What runs by itself.

    Args:
        counts: how many are in each state.
        page: those that fit.
    """

    counts: dict[str, int]
    page: Page[AutomationSummary]


@page("/automation", template="automation.html", query=AutomationQuery, role=Role.VIEWER, title="Automation",
      rail="Automation")  # fmt: skip
def automation(request: PageRequest[AutomationQuery]) -> AutomationModel:
    """Return schedules, sensors and conditions with their last ticks."""
    query, insights = request.query, request.insights
    found = insights.automations(
        kind=query.kind, state=query.state, text=query.text, cursor=query.next, limit=query.limit
    )
    return AutomationModel(insights.automation_counts(), found)


@dataclass(frozen=True, slots=True)
class OneQuery:
    """Which automation is shown.

    Args:
        kind: its kind.
        name: its name; of a condition that of its asset.
        partition: of a condition: the partition whose facts are shown, as people write it.
    """

    kind: Literal["schedule", "sensor", "condition"]
    name: str
    partition: str | None = None


@page("/automation/details", template="automation_details.html", query=OneQuery, role=Role.VIEWER,
      title="Automation", rail="Automation")  # fmt: skip
def details(request: PageRequest[OneQuery]) -> AutomationDetails:
    """Return one automation with its last ticks, its cursor, or the facts of its condition."""
    query = request.query
    partition = None
    if query.partition is not None and query.kind == "condition":
        definition = find_asset(request.flow.graph, query.name).partitions
        partition = None if definition is None else encode_partition(read_partition(definition, query.partition))
    return request.insights.automation(query.kind, query.name, partition=partition)


@dataclass(frozen=True, slots=True)
class OneAutomation:
    """Which automation something is done to.

    Args:
        kind: its kind.
        name: its name; of a condition that of its asset.
    """

    kind: Literal["schedule", "sensor", "condition"]
    name: str


def _place(form: OneAutomation) -> str:
    return url("automation/details", kind=form.kind, name=form.name)


def _pause(call: ActionCall[OneAutomation]) -> Confirm:
    return Confirm(
        f"Pause {call.form.kind} {call.form.name}?",
        "Pause it",
        ("No worker evaluates it until it is resumed. What it has placed already goes on.",),
    )


@action("/automation/pause", title="Pause an automation", form=OneAutomation, role=Role.OPERATOR, confirm=_pause)
def pause(call: ActionCall[OneAutomation]) -> Done:
    """Evaluate an automation no more until it is resumed."""
    changed = _view(call.flow, call.form.kind).pause(call.form.name)
    outcome = "is paused now" if changed else "was paused already"
    return Done(f"{call.form.kind.capitalize()} {call.form.name} {outcome}.", _place(call.form))


@action("/automation/resume", title="Resume an automation", form=OneAutomation, role=Role.OPERATOR)
def resume(call: ActionCall[OneAutomation]) -> Done:
    """Go on with a paused automation: a schedule as its catch-up says, a sensor from its cursor."""
    changed = _view(call.flow, call.form.kind).resume(call.form.name)
    outcome = "goes on now" if changed else "was not paused"
    return Done(f"{call.form.kind.capitalize()} {call.form.name} {outcome}.", _place(call.form))


class _Pausable(Protocol):
    def pause(self, name: str, /) -> bool: ...

    def resume(self, name: str, /) -> bool: ...


def _view(flow: FlowStone, kind: str) -> _Pausable:
    views: dict[str, _Pausable] = {
        "schedule": flow.schedules,
        "sensor": flow.sensors,
        "condition": flow.conditions,
    }
    return views[kind]


def _run_now(call: ActionCall[OneAutomation]) -> Confirm:
    details = "It is evaluated beside its regular times, even while it is paused."
    return Confirm(f"Run {call.form.kind} {call.form.name} now?", "Run now", (details,))


@action("/automation/run-now", title="Run a schedule or a sensor now", form=OneAutomation, role=Role.OPERATOR,
        confirm=_run_now)  # fmt: skip
def run_now(call: ActionCall[OneAutomation]) -> Done:
    """Have a schedule or a sensor evaluated now, beside its regular times."""
    form = call.form
    if form.kind == "condition":
        raise OptionsError("A condition is evaluated by itself whenever something changes: materialize the asset.")
    view = call.flow.schedules if form.kind == "schedule" else call.flow.sensors
    tick = view.run_now(form.name)
    if tick is None:
        return Done(f"A worker evaluates {form.kind} {form.name} within about a second.", _place(form))
    came = {"requested": f"placed {', '.join(tick.run_ids)}", "skipped": f"placed nothing: {tick.reason}"}
    return Done(f"{form.kind.capitalize()} {form.name} {came.get(tick.state.value, 'failed')}.", _place(form))


@dataclass(frozen=True, slots=True)
class OneSensor:
    """Which sensor something is done to.

    Args:
        name: its name.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What an evaluation would do.

    Args:
        requests: what each run would be: selection, partition, run key, number of steps.
        cursor: the cursor it would leave.
        added: keys of dynamic partitions that it would add.
        removed: keys that it would remove.
        skip_reason: why there is nothing to do.
    """

    requests: tuple[str, ...]
    cursor: str | None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skip_reason: str | None = None


def _preview(call: ActionCall[OneSensor]) -> Confirm:
    details = "Its function is called in this process. What it asks for is planned; nothing is placed or recorded."
    return Confirm(f"Evaluate sensor {call.form.name} without doing anything?", "Preview", (details,))


@action("/automation/preview", title="Preview a sensor", form=OneSensor, role=Role.OPERATOR, confirm=_preview,
        audit=False)  # fmt: skip
def preview(call: ActionCall[OneSensor]) -> Done:
    """Evaluate a sensor from its cursor without recording or placing anything."""
    name = call.form.name
    found = call.flow.sensors.preview(name)
    requests = tuple(
        f"{one.selection or 'its selection'}"
        f"{'' if one.partition is None else f' {one.partition}'}"
        f"{'' if one.run_key is None else f' (key {one.run_key})'}: {steps:,} steps"
        for one, steps in zip(found.requests, found.steps, strict=True)
    )
    result = Preview(
        requests=requests,
        cursor=found.cursor,
        added=tuple(one.key for one in found.partitions if not one.remove),
        removed=tuple(one.key for one in found.partitions if one.remove),
        skip_reason=found.skip_reason,
    )
    more = f" and {len(requests) - _SHOWN:,} more" if len(requests) > _SHOWN else ""
    outcome = f"would place {len(requests):,} runs: {'; '.join(requests[:_SHOWN])}{more}"
    if not requests:
        outcome = f"would place nothing: {found.skip_reason or 'it asks for nothing'}"
    cursor = "" if found.cursor is None else f" Its cursor would be {found.cursor[:200]}."
    return Done(
        f"Sensor {name} {outcome}.{cursor} Nothing was done.",
        url("automation/details", kind="sensor", name=name),
        result,
    )


@dataclass(frozen=True, slots=True)
class NewCursor:
    """The cursor of a sensor.

    Args:
        name: of the sensor.
        cursor: the new one; empty for the beginning.
    """

    name: str
    cursor: str | None = text(None, maximum=10_000)


def _set_cursor(call: ActionCall[NewCursor]) -> Confirm:
    target = "the beginning" if call.form.cursor is None else call.form.cursor[:200]
    return Confirm(
        f"Let sensor {call.form.name} go on from {target}?",
        "Set the cursor",
        (
            "An evaluation that is under way concludes nothing.",
            "Run keys that were used do not trigger again.",
        ),
        danger=True,
    )


@action("/automation/set-cursor", title="Set the cursor of a sensor", form=NewCursor, role=Role.OPERATOR,
        confirm=_set_cursor)  # fmt: skip
def set_cursor(call: ActionCall[NewCursor]) -> Done:
    """Let a sensor go on from another cursor."""
    call.flow.sensors.set_cursor(call.form.name, call.form.cursor)
    target = "the beginning" if call.form.cursor is None else call.form.cursor[:200]
    place = url("automation/details", kind="sensor", name=call.form.name)
    return Done(f"Sensor {call.form.name} goes on from {target}.", place)


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Run keys of a sensor.

    Args:
        name: of the sensor.
        key: the keys.
    """

    name: str
    key: tuple[str, ...] = ()


@action("/automation/forget-key", title="Let a run key trigger again", form=RunKeys, role=Role.OPERATOR)
def forget_key(call: ActionCall[RunKeys]) -> Done:
    """Let run keys of a sensor trigger again; their runs stay recorded."""
    forgotten = call.flow.sensors.forget_run_keys(call.form.name, call.form.key)
    outcome = f"{', '.join(forgotten[:_SHOWN])} may trigger again" if forgotten else "none of these keys was used"
    return Done(
        f"Sensor {call.form.name}: {outcome}.", url("automation/details", kind="sensor", name=call.form.name)
    )
