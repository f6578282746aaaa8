"""What runs by itself: `schedules`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from flowstone.app.declared_automations import DeclaredAutomations
from flowstone.app.requests import describe
from flowstone.app.schedules import ScheduleStatus
from flowstone.cli.output import Column, duration, moment, one_line
from flowstone.cli.session import Session
from flowstone.core.automation.record import AutomationKind, TickRecord
from flowstone.core.text import error_line
from flowstone.errors import OptionsError, command
from flowstone.protocols import Evaluator


class ScheduleAction(StrEnum):
    """What to do with schedules."""

    LIST = "list"
    SHOW = "show"
    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    TICKS = "ticks"


_NAMELESS = (ScheduleAction.LIST, ScheduleAction.TICKS)


def schedules(
    session: Session,
    action: Annotated[
        ScheduleAction, typer.Argument(metavar="[ACTION]", help="list, show, pause, resume, run or ticks.")
    ] = ScheduleAction.LIST,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a schedule.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many ticks, newest first.")] = 20,
) -> None:
    """List schedules, show one with its next times, pause, resume or run it, or show what its ticks came to."""
    session.warn_of_memory_store()
    flow = session.flow
    if name is None and action not in _NAMELESS:
        raise OptionsError(
            f"Which schedule? `{command('schedules', action, 'NAME')}`; `flowstone schedules` lists them."
        )
    if action is ScheduleAction.TICKS:
        show_ticks(session, flow.schedules.ticks(name, limit=limit))
    elif name is None:
        _list(session, flow.schedules.list())
    elif action in (ScheduleAction.SHOW, ScheduleAction.LIST):
        _show(session, flow.schedules.get(name))
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


def _list(session: Session, found: Sequence[ScheduleStatus]) -> None:
    if session.out.as_json:
        session.out.json({"schedules": [_status_json(one) for one in found]})
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


def _show(session: Session, one: ScheduleStatus) -> None:
    if session.out.as_json:
        session.out.json({"schedule": _status_json(one)})
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


def _status_json(one: ScheduleStatus) -> dict[str, object]:
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
