"""`flowstone logs`: what a step, or a run, logs; with `--follow` until it is over."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from flowstone.app.logs import line_to_json
from flowstone.cli.output import one_line
from flowstone.core.logs import LogLine
from flowstone.errors import OptionsError, RunNotFoundError

if TYPE_CHECKING:
    from flowstone.app import FlowStone
    from flowstone.app.logs import RunLogLine
    from flowstone.cli.session import Session

_POLL_SECONDS = 0.5
_LAST_POLLS = 4
"""How often a follower asks again when all is over: lines are written a moment after the commit."""
_OVERLAP = timedelta(seconds=3)
_REMEMBERED = 5_000
_PAGE = 1_000


def logs(
    session: Session,
    which: Annotated[str, typer.Argument(metavar="RUN|STEP", help="Id of a run, or of a step.")],
    *,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="N", min=1, help="Of a step: which attempt; default: the newest."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is over.")] = False,
    times: Annotated[bool, typer.Option("--times", "-t", help="Begin lines with their time.")] = False,
) -> None:
    """Show what a step, or every step of a run, logs; with --follow until it is over, across attempts.

    With --json one document, with --json --follow a line of JSON for each line that was logged.
    """
    flow = session.records
    session.warn_of_memory_store()
    if which.isdecimal() and flow.parts.store.catalog.step(int(which[:18])) is not None:
        _step(session, flow, int(which[:18]), attempt, follow=follow, times=times)
        return
    if flow.parts.store.catalog.run(which) is None:
        raise RunNotFoundError("step" if which.isdecimal() else "run", which)
    if attempt is not None:
        raise OptionsError("--attempt: give it with a step. The log of a run has all attempts of its steps.")
    _run(session, flow, which, follow=follow, times=times)


def _step(
    session: Session, flow: FlowStone, step_id: int, attempt: int | None, *, follow: bool, times: bool
) -> None:
    if session.out.as_json and not follow:
        page = flow.logs.of(step_id, attempt, limit=5_000)
        session.out.json(page.to_json())
        return
    shown = 0
    for number, line in _lines_of_step(flow, step_id, attempt, follow=follow):
        if session.out.as_json:
            session.out.json_line({"step_id": str(step_id), "attempt": number, **line_to_json(line)})
            continue
        if shown and number != shown:
            session.out.note(f"Attempt {number}:")
        shown = number
        session.out.line(_shown(line, times=times))
    if not shown:
        session.out.note(_nothing(flow))


def _lines_of_step(
    flow: FlowStone, step_id: int, attempt: int | None, *, follow: bool
) -> Iterator[tuple[int, LogLine]]:
    """Yield lines with the number of their attempt; when following, until the step, or the attempt, is over."""
    number, place, quiet = attempt, None, 0
    while True:
        page = flow.logs.of(step_id, number, after=place, limit=_PAGE)
        number = page.attempt or None
        for line in page.lines:
            yield page.attempt, line
        place = page.next
        if page.more:
            continue
        if not follow:
            return
        step = flow.runs.step(step_id)
        if page.over and not page.lines and attempt is None and step.attempt > page.attempt and quiet >= 1:
            number, place, quiet = page.attempt + 1, None, 0
            continue
        over = step.state.is_terminal or (attempt is not None and page.over)
        quiet = quiet + 1 if page.over and not page.lines else 0
        if over and quiet >= _LAST_POLLS:
            return
        _pause(flow, step_id)


def _run(session: Session, flow: FlowStone, run_id: str, *, follow: bool, times: bool) -> None:
    found = []
    nothing = True
    for one in _lines_of_run(flow, run_id, follow=follow):
        nothing = False
        if session.out.as_json and follow:
            session.out.json_line(one.to_json())
        elif session.out.as_json:
            found.append(one.to_json())
        else:
            again = f" #{one.attempt}" if one.attempt > 1 else ""
            session.out.line(f"{one_line(one.label)}{again} | {_shown(one.line, times=times)}")
    if session.out.as_json and not follow:
        session.out.json({"run_id": run_id, "lines": found})
    elif nothing:
        session.out.note(_nothing(flow))


def _lines_of_run(flow: FlowStone, run_id: str, *, follow: bool) -> Iterator[RunLogLine]:
    """Yield the lines of a run; what another worker commits late within a few seconds is not missed."""
    place: str | None = None
    seen: set[tuple[int, int, int, int]] = set()
    remembered: deque[tuple[int, int, int, int]] = deque()
    quiet = 0
    while True:
        page = flow.logs.of_run(run_id, after=place, limit=_PAGE)
        new = 0
        for one in page.lines:
            key = (one.step_id, one.attempt, one.line.token, one.line.number)
            if key not in seen:
                new += 1
                yield one
                if follow:
                    seen.add(key)
                    remembered.append(key)
        while len(remembered) > _REMEMBERED + len(page.lines):
            seen.discard(remembered.popleft())
        if page.more:
            place = page.next
            continue
        if not follow:
            return
        place = _earlier(page.next)
        quiet = quiet + 1 if page.over and not new else 0
        if quiet >= _LAST_POLLS:
            return
        _pause(flow, None, run_id)


def _earlier(place: str | None) -> str | None:
    if place is None:
        return None
    at, _, _ = place.partition("~")
    return f"{(datetime.fromisoformat(at) - _OVERLAP).isoformat()}~0~0~0~0"


def _pause(flow: FlowStone, step_id: int | None, run_id: str | None = None) -> None:
    """Wait a moment, or until it is over; what is over already is asked again soon."""
    started = time.monotonic()
    steps = [] if step_id is None else [step_id]
    flow.parts.store.catalog.wait(steps, run_id=run_id, timeout_seconds=_POLL_SECONDS)
    time.sleep(max(0.0, _POLL_SECONDS / 2 - (time.monotonic() - started)))


def _shown(line: LogLine, *, times: bool) -> str:
    left_out = f"[... {line.left_out:,} lines left out ...]\n" if line.left_out else ""
    moment = f"{line.at.astimezone():%Y-%m-%d %H:%M:%S} " if times else ""
    source = "" if line.source in ("stdout", "stderr", "INFO") else f"{line.source} "
    return f"{left_out}{moment}{source}{line.text}"


def _nothing(flow: FlowStone) -> str:
    if not flow.settings.log_days:
        return "Nothing: logs are not kept here (log_days = 0 in the settings)."
    return "Nothing was logged, or it was longer ago than logs are kept (the setting log_days)."
