"""What looks for something to do: `sensors`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.requests import describe
from flowstone.app.sensors import SensorPreview, SensorStatus
from flowstone.cli.automation import pause_or_resume, say_run, show_ticks, tick_json
from flowstone.cli.failures import DONE, FAILED
from flowstone.cli.output import Column, duration, moment, one_line
from flowstone.cli.session import Session
from flowstone.core.automation.record import AutomationKind, RunKey
from flowstone.core.partition import encode_partition, partition_label
from flowstone.core.text import clean_text
from flowstone.errors import FlowStoneError, OptionsError, command


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


_NAMELESS = (SensorAction.LIST, SensorAction.TICKS)
_ACTIONS = "list, show, pause, resume, run, ticks, preview, set-cursor, keys or forget."


def sensors(
    session: Session,
    action: Annotated[SensorAction, typer.Argument(metavar="[ACTION]", help=_ACTIONS)] = SensorAction.LIST,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a sensor.")] = None,
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
    if name is None and action not in _NAMELESS:
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
        _list(session, flow.sensors.list())
    elif action is SensorAction.KEYS:
        _run_keys(session, flow.sensors.run_keys(name, limit=limit))
    elif action is SensorAction.FORGET:
        _forget(session, flow, name, keys or [])
    elif action in (SensorAction.SHOW, SensorAction.LIST):
        _show(session, flow.sensors.get(name))
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


def _list(session: Session, found: Sequence[SensorStatus]) -> None:
    if session.out.as_json:
        session.out.json({"sensors": [_status_json(one) for one in found]})
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


def _show(session: Session, one: SensorStatus) -> None:
    if session.out.as_json:
        session.out.json({"sensor": _status_json(one)})
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
        of = "" if request.partition is None else f" [{partition_label(request.partition)}]"
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


def _status_json(one: SensorStatus) -> dict[str, object]:
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
