"""What runs by itself: `schedules`, `sensors`, and `automation` for the conditions of assets.

The three commands have the same form: without a name a list, with one its details and ticks, with an action what
people may do to it. Each is followed by the functions that print its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.automation import DeclaredAutomations, ScheduleStatus, SensorPreview, SensorStatus
from flowstone.app.targets import describe, parse_one
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.known_names import offers
from flowstone.cli.output import Column, duration, moment, one_line
from flowstone.cli.partitions import One
from flowstone.cli.session import Session
from flowstone.core.automation.condition import Decision
from flowstone.core.automation.record import AutomationKind, AutomationRecord, RunKey, TickRecord
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.clean import clean_text, error_line
from flowstone.core.partitions import encode_partition, partition_label
from flowstone.core.selection import select
from flowstone.errors import FlowStoneError, OptionsError, command
from flowstone.protocols import Evaluator


class ScheduleAction(StrEnum):
    """What to do with schedules."""

    LIST = "list"
    SHOW = "show"
    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    TICKS = "ticks"


_SCHEDULES_NAMELESS = (ScheduleAction.LIST, ScheduleAction.TICKS)


def schedules(
    session: Session,
    action: Annotated[
        ScheduleAction, typer.Argument(metavar="[ACTION]", help="list, show, pause, resume, run or ticks.")
    ] = ScheduleAction.LIST,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Name of a schedule.", autocompletion=offers("schedules")),
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many ticks, newest first.")] = 20,
) -> None:
    """List schedules, show one with its next times, pause, resume or run it, or show what its ticks came to."""
    session.warn_of_memory_store()
    flow = session.flow
    if name is None and action not in _SCHEDULES_NAMELESS:
        raise OptionsError(
            f"Which schedule? `{command('schedules', action, 'NAME')}`; `flowstone schedules` lists them."
        )
    if action is ScheduleAction.TICKS:
        show_ticks(session, flow.schedules.ticks(name, limit=limit))
    elif name is None:
        _list_schedules(session, flow.schedules.list())
    elif action in (ScheduleAction.SHOW, ScheduleAction.LIST):
        _show_schedule(session, flow.schedules.get(name))
    elif action is ScheduleAction.RUN:
        say_run(session, AutomationKind.SCHEDULE, name, flow.schedules.run_now(name))
    else:
        pause_or_resume(session, flow.schedules, name, paused=action is ScheduleAction.PAUSE)


def show_ticks(session: Session, ticks: Sequence[TickRecord]) -> None:
    """Write ticks as a table, or as JSON."""
    if session.out.as_json:
        session.out.json({"ticks": [tick_json(tick) for tick in ticks]})
        return
    columns = [
        Column("AT"),
        Column("NAME", rank=1),
        Column("STATE"),
        Column("RUNS", rank=2),
        Column("WHY", rank=4),
        Column("TOOK", rank=5, right=True),
    ]
    rows = [
        [
            moment(tick.at) + (" by hand" if tick.by_hand else f" +{tick.repeats:,}" if tick.repeats else ""),
            tick.automation.name,
            tick.state.value,
            ", ".join(tick.run_ids),
            tick.reason or error_line(tick.error),
            duration(tick.took_seconds),
        ]
        for tick in ticks
    ]
    session.out.table(columns, rows)


def tick_json(tick: TickRecord) -> dict[str, object]:
    """Return a tick with JSON types."""
    return {
        "id": tick.id,
        "kind": tick.automation.kind,
        "name": tick.automation.name,
        "at": tick.at,
        "state": tick.state,
        "reason": tick.reason,
        "error": tick.error,
        "runs": list(tick.run_ids),
        "evaluated_at": tick.evaluated_at,
        "took_seconds": tick.took_seconds,
        "by_hand": tick.by_hand,
        "repeats": tick.repeats,
        "worker": tick.worker,
    }


def _list_schedules(session: Session, found: Sequence[ScheduleStatus]) -> None:
    if session.out.as_json:
        session.out.json({"schedules": [_schedule_json(one) for one in found]})
        return
    columns = [
        Column("SCHEDULE"),
        Column("CRON", rank=1),
        Column("ZONE", rank=3),
        Column("SELECTION", rank=2),
        Column("PAUSED"),
        Column("NEXT"),
        Column("LAST", rank=4),
    ]
    rows = [
        [
            one.schedule.name,
            one.schedule.cron,
            one.schedule.timezone,
            describe(one.schedule.selection),
            "yes" if one.paused else "",
            _next(one.next_ticks),
            f"{moment(one.last.at)} {one.last.state}" if one.last is not None else "",
        ]
        for one in found
    ]
    session.out.table(columns, rows)


def _show_schedule(session: Session, one: ScheduleStatus) -> None:
    if session.out.as_json:
        session.out.json({"schedule": _schedule_json(one)})
        return
    schedule = one.schedule
    session.out.line(f"{one_line(schedule.name)}: {schedule.cron} ({schedule.timezone})")
    if schedule.description:
        session.out.line(f"  {one_line(schedule.description)}")
    session.out.line(f"  selection: {one_line(describe(schedule.selection))}")
    session.out.line(f"  missed times: {schedule.catch_up}")
    if one.paused:
        session.out.line("  paused: nothing runs until it is resumed")
    if one.last is not None:
        session.out.line(f"  last: {moment(one.last.at)} {one.last.state}")
    for at in one.next_ticks:
        session.out.line(f"  next: {at.isoformat(sep=' ')}")


def say_run(session: Session, what: AutomationKind, name: str, tick: TickRecord | None) -> None:
    """Say what came of running a schedule or sensor now; without a tick a worker does it."""
    if session.out.as_json:
        session.out.json({"name": name, "tick": None if tick is None else tick_json(tick)})
    elif tick is None:
        session.out.line(f"{what} {one_line(name)}: a worker runs it within about a second.")
    else:
        came_to = ", ".join(tick.run_ids) or tick.reason or "nothing to do"
        session.out.line(f"{what} {one_line(name)}: {tick.state}, {one_line(came_to)}")


def pause_or_resume[One: Evaluator](
    session: Session, found: DeclaredAutomations[One], name: str, *, paused: bool
) -> None:
    """Pause or resume a schedule or sensor, and say whether that changed anything."""
    changed = found.pause(name) if paused else found.resume(name)
    if session.out.as_json:
        session.out.json({"kind": found.kind, "name": name, "paused": paused, "changed": changed})
        return
    was = "" if changed else "already "
    text = f"{was}paused; no worker evaluates it" if paused else f"{was}going on"
    session.out.line(f"{found.kind} {one_line(name)}: {text}.")


def _schedule_json(one: ScheduleStatus) -> dict[str, object]:
    schedule = one.schedule
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "selection": describe(schedule.selection),
        "catch_up": schedule.catch_up,
        "force": schedule.force,
        "paused": one.paused,
        "description": schedule.description,
        "tags": list(schedule.tags),
        "next": list(one.next_ticks),
        "last": None if one.last is None else tick_json(one.last),
    }


def _next(ticks: Sequence[datetime]) -> str:
    return ticks[0].isoformat(sep=" ") if ticks else "never"


class SensorAction(StrEnum):
    """What to do with sensors."""

    LIST = "list"
    SHOW = "show"
    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    TICKS = "ticks"
    PREVIEW = "preview"
    SET_CURSOR = "set-cursor"
    KEYS = "keys"
    FORGET = "forget"


_SENSORS_NAMELESS = (SensorAction.LIST, SensorAction.TICKS)
_ACTIONS = "list, show, pause, resume, run, ticks, preview, set-cursor, keys or forget."


def sensors(
    session: Session,
    action: Annotated[SensorAction, typer.Argument(metavar="[ACTION]", help=_ACTIONS)] = SensorAction.LIST,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of a sensor.", autocompletion=offers("sensors"))
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many ticks or run keys, newest first.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="The cursor to set; without it, set-cursor goes back to the beginning.")
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", metavar="KEY", help="A run key to forget; may be repeated.")
    ] = None,
) -> int:
    """List sensors; show, pause, resume, run or preview one; its cursor, its ticks, its run keys."""
    session.warn_of_memory_store()
    flow = session.flow
    if name is None and action not in _SENSORS_NAMELESS:
        raise OptionsError(
            f"Which sensor? `{command('sensors', action, 'NAME')}`; `flowstone sensors` lists them."
        )
    if cursor is not None and action is not SensorAction.SET_CURSOR:
        raise OptionsError(f"--cursor belongs to `flowstone sensors set-cursor NAME`, not to {str(action)!r}.")
    if keys and action is not SensorAction.FORGET:
        raise OptionsError(f"--key belongs to `flowstone sensors forget NAME`, not to {str(action)!r}.")
    if action is SensorAction.TICKS:
        show_ticks(session, flow.sensors.ticks(name, limit=limit))
    elif name is None:
        _list_sensors(session, flow.sensors.list())
    elif action is SensorAction.KEYS:
        _run_keys(session, flow.sensors.run_keys(name, limit=limit))
    elif action is SensorAction.FORGET:
        _forget(session, flow, name, keys or [])
    elif action in (SensorAction.SHOW, SensorAction.LIST):
        _show_sensor(session, flow.sensors.get(name))
    elif action in (SensorAction.PREVIEW, SensorAction.RUN):
        return _evaluate(session, action, name)
    else:
        _change(session, flow, action, name, cursor)
    return DONE


def _evaluate(session: Session, action: SensorAction, name: str) -> int:
    """Evaluate a sensor; what its function raises is reported like any other failure of the app's own code."""
    try:
        if action is SensorAction.RUN:
            say_run(session, AutomationKind.SENSOR, name, session.flow.sensors.run_now(name))
        else:
            _preview(session, name, session.flow.sensors.preview(name))
    except FlowStoneError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever user code raises
        session.trace(error)
        what = f"Sensor {name!r} raised {type(error).__name__}: {error}"
        if session.out.as_json:
            session.out.json({"error": {"type": type(error).__name__, "message": clean_text(what)}})
        session.out.error(f"{what}. --verbose shows where.")
        return FAILED
    return DONE


def _change(session: Session, flow: FlowStone, action: SensorAction, name: str, cursor: str | None) -> None:
    if action is SensorAction.SET_CURSOR:
        _set_cursor(session, flow, name, cursor)
    else:
        pause_or_resume(session, flow.sensors, name, paused=action is SensorAction.PAUSE)


def _run_keys(session: Session, found: Sequence[RunKey]) -> None:
    if session.out.as_json:
        rows = [
            {"run_key": one.run_key, "run_id": one.run_id, "used_at": one.used_at.isoformat()} for one in found
        ]
        session.out.json({"run_keys": rows})
        return
    columns = [Column("RUN KEY"), Column("RUN", rank=2), Column("USED")]
    session.out.table(columns, [[one.run_key, one.run_id, moment(one.used_at)] for one in found])


def _forget(session: Session, flow: FlowStone, name: str, keys: Sequence[str]) -> None:
    if not keys:
        listed = command("sensors", "keys", name)
        raise OptionsError(f"Which run keys? Pass --key KEY, as often as there are keys; `{listed}` lists them.")
    forgotten = flow.sensors.forget_run_keys(name, keys)
    if session.out.as_json:
        session.out.json({"forgotten": list(forgotten)})
        return
    for key in keys:
        what = "may trigger again" if key in forgotten else "was not used"
        session.out.line(f"{one_line(key)}: {what}")


def _list_sensors(session: Session, found: Sequence[SensorStatus]) -> None:
    if session.out.as_json:
        session.out.json({"sensors": [_sensor_json(one) for one in found]})
        return
    columns = [
        Column("SENSOR"),
        Column("EVERY", rank=2, right=True),
        Column("SELECTION", rank=3),
        Column("PAUSED"),
        Column("LAST"),
        Column("WHY", rank=4),
    ]
    rows = [
        [
            one.sensor.name,
            duration(one.sensor.every_seconds),
            _selection(one),
            "yes" if one.paused else "",
            f"{moment(one.last.evaluated_at)} {one.last.state}" if one.last is not None else "",
            (one.last.reason or "") if one.last is not None else "",
        ]
        for one in found
    ]
    session.out.table(columns, rows)


def _show_sensor(session: Session, one: SensorStatus) -> None:
    if session.out.as_json:
        session.out.json({"sensor": _sensor_json(one)})
        return
    sensor, out, record = one.sensor, session.out, one.record
    out.line(f"{one_line(sensor.name)}: every {duration(sensor.every_seconds)}")
    if sensor.description:
        out.line(f"  {one_line(sensor.description)}")
    if sensor.selection is not None:
        out.line(f"  selection: {one_line(_selection(one))}")
    if one.paused:
        out.line("  paused: it is not evaluated until it is resumed")
    if record is not None:
        out.line(f"  cursor: {'none yet' if record.cursor is None else one_line(record.cursor)}")
        if record.failures:
            out.line(f"  failed {record.failures} times in a row", style="red")
    if one.last is not None:
        again = f", {one.last.repeats} more times the same" if one.last.repeats else ""
        out.line(f"  last: {moment(one.last.evaluated_at)} {one.last.state}{again}")
        if one.last.reason:
            out.line(f"    {one_line(one.last.reason)}")
        if one.last.error:
            out.line(one.last.error.rstrip())


def _preview(session: Session, name: str, found: SensorPreview) -> None:
    if session.out.as_json:
        session.out.json({"name": name, "preview": _preview_json(found)})
        return
    out = session.out
    if not found.requests:
        out.line(f"sensor {one_line(name)} would skip: {one_line(found.skip_reason or 'it asks for nothing')}")
    for request, steps in zip(found.requests, found.steps, strict=True):
        of = "" if request.partition is None else f" [{_preview_label(session, request)}]"
        key = "" if request.run_key is None else f", run key {one_line(request.run_key)}"
        out.line(f"would run {one_line(describe(request.selection))}{of}: {steps:,} steps{key}")
    for change in found.partitions:
        what = "remove" if change.remove else "add"
        out.line(f"would {what} {one_line(change.key)} of the partitions {one_line(change.definition)}")
    out.line(f"cursor then: {'none' if found.cursor is None else one_line(found.cursor)}")


def _set_cursor(session: Session, flow: FlowStone, name: str, cursor: str | None) -> None:
    flow.sensors.set_cursor(name, cursor)
    if session.out.as_json:
        session.out.json({"kind": "sensor", "name": name, "cursor": cursor})
    else:
        where = "from the beginning" if cursor is None else f"from {one_line(cursor)}"
        session.out.line(f"sensor {one_line(name)}: goes on {where}; run keys that were used do not run again.")


def _selection(one: SensorStatus) -> str:
    return "" if one.sensor.selection is None else describe(one.sensor.selection)


def _sensor_json(one: SensorStatus) -> dict[str, object]:
    sensor, record = one.sensor, one.record
    return {
        "name": sensor.name,
        "every_seconds": sensor.every_seconds,
        "timeout_seconds": sensor.timeout_seconds,
        "selection": None if sensor.selection is None else describe(sensor.selection),
        "requires": list(sensor.requires),
        "paused": one.paused,
        "description": sensor.description,
        "cursor": None if record is None else record.cursor,
        "due_at": None if record is None else record.due_at,
        "failures": 0 if record is None else record.failures,
        "last": None if one.last is None else tick_json(one.last),
    }


def _preview_label(session: Session, request: RunRequest) -> str:
    """Return the partition of a request as the first selected asset that has partitions writes it."""
    graph = session.flow.graph
    for name in select(graph, request.selection):
        if graph[name].partitions is not None:
            return graph.label(name, encode_partition(request.partition))
    return partition_label(request.partition)


def _preview_json(found: SensorPreview) -> dict[str, object]:
    return {
        "requests": [
            {
                "selection": describe(request.selection),
                "partition": encode_partition(request.partition),
                "run_key": request.run_key,
                "steps": steps,
            }
            for request, steps in zip(found.requests, found.steps, strict=True)
        ],
        "cursor": found.cursor,
        "partitions": [
            {"definition": one.definition, "key": one.key, "remove": one.remove} for one in found.partitions
        ],
        "skip_reason": found.skip_reason,
    }


def automation(
    session: Session,
    asset: Annotated[
        str | None,
        typer.Argument(metavar="[ASSET]", help="An asset with a condition.", autocompletion=offers("assets")),
    ] = None,
    *,
    partition: One = None,
    ticks: Annotated[bool, typer.Option("--ticks", help="What it asked for so far.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Ask for nothing on its behalf.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with it.")] = False,
) -> None:
    """Show for each asset with a condition whether it would be requested now, and why; nothing is started."""
    session.warn_of_memory_store()
    flow = session.flow
    if asset is None:
        if partition is not None or ticks or pause or resume:
            raise OptionsError("Which asset? `flowstone automation ASSET ...`; `flowstone automation` lists them.")
        _list_conditions(session, flow)
    elif pause and resume:
        raise OptionsError("--pause and --resume: give one of them.")
    elif pause or resume:
        _pause(session, flow, asset, paused=pause)
    elif ticks:
        show_ticks(session, flow.conditions.ticks(asset))
    else:
        _explain(session, flow, asset, partition)


def _list_conditions(session: Session, flow: FlowStone) -> None:
    records = flow.conditions.list()
    decisions = {record.id.name: flow.conditions.evaluate(record.id.name) for record in records}
    if session.out.as_json:
        found = [_json(flow, one, decisions[one.id.name][:1], decisions[one.id.name]) for one in records]
        session.out.json({"automation": found})
        return
    columns = [
        Column("ASSET"),
        Column("CONDITION", rank=2),
        Column("PAUSED", rank=1),
        Column("REQUESTED"),
        Column("NEWEST", rank=3),
    ]
    session.out.table(columns, [_row(flow, one, decisions[one.id.name]) for one in records])
    if not records:
        session.out.note("No asset of this app has a condition. Give it one: @asset(automation=eager()).")


def _row(flow: FlowStone, record: AutomationRecord, decisions: Sequence[Decision]) -> list[str]:
    name = record.id.name
    number_requested = sum(one.requested for one in decisions)
    number = (
        f"{number_requested} of {len(decisions)}"
        if flow.graph[name].partitions
        else ("yes" if number_requested else "no")
    )
    condition = repr(flow.graph[name].automation)
    return [name, condition, "yes" if record.paused else "", number, decisions[0].reason if decisions else ""]


def _explain(session: Session, flow: FlowStone, asset: str, partition: str | None) -> None:
    chosen = None if partition is None else [parse_one(flow.graph, [asset], partition)]
    decisions = flow.conditions.evaluate(asset, partitions=chosen)
    (record,) = [one for one in flow.conditions.list() if one.id.name == asset]
    if session.out.as_json:
        session.out.json(_json(flow, record, decisions, decisions))
        return
    session.out.line(f"{one_line(asset)}: {flow.graph[asset].automation!r}{' (paused)' if record.paused else ''}")
    for line in decisions[0].explain() if decisions else ["none of its partitions is complete yet"]:
        session.out.line(f"  {one_line(line)}")
    if len(decisions) > 1:
        number_requested = sum(one.requested for one in decisions)
        session.out.line(
            f"{number_requested} of the {len(decisions)} newest would be requested; --partition explains others."
        )


def _json(
    flow: FlowStone, record: AutomationRecord, shown: Sequence[Decision], decisions: Sequence[Decision]
) -> dict[str, object]:
    name = record.id.name
    return {
        "asset": name,
        "condition": repr(flow.graph[name].automation),
        "paused": record.paused,
        "evaluated": len(decisions),
        "requested": sum(one.requested for one in decisions),
        "wanted": sum(one.requested for one in decisions),  # deprecated
        "decisions": [one.to_json() for one in shown],
    }


def _pause(session: Session, flow: FlowStone, asset: str, *, paused: bool) -> None:
    changed = flow.conditions.pause(asset) if paused else flow.conditions.resume(asset)
    if session.out.as_json:
        session.out.json({"kind": "condition", "name": asset, "paused": paused, "changed": changed})
        return
    was = "" if changed else "already "
    text = f"{was}paused; no worker asks for it" if paused else f"{was}going on"
    session.out.line(f"condition of {one_line(asset)}: {text}.")
