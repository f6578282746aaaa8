"""Runs: `runs ls` with the filter of the pages, `runs show` with what broke first, and both with `--watch`.

What is asked of the store is `flow.insights`, as the pages ask it. The functions that print a run as text and as
JSON come after the commands; `cancel`, `retry`, `pause` and `resume` are in `steering`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.known_names import offers, remember
from flowstone.cli.output import Column, Output, duration, moment, one_line, took
from flowstone.cli.session import Session
from flowstone.cli.steps import find, label_of_step, show_step, step_json, write_fields
from flowstone.core.clean import error_line
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord, StepRecord
from flowstone.errors import OptionsError

if TYPE_CHECKING:
    from flowstone.app import FlowStone
    from flowstone.core.paging import Page
    from flowstone.engine.insights.runs import RunCounts, RunLine, RunView

_WITHOUT_RESULT = (State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED, State.CANCELLING)
_SHOWN = 50  # steps in a listing
_FEW_STEPS = 20  # up to so many are listed without being asked for
_PAGE = 200
_MAX_PAGES = 10
_FOLDED = 3  # so many runs of an automation that went well are one line
_WATCH_SECONDS = 2.0

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILTER]...",
        help="Such as state:failed asset:orders tag:nightly by:ann automation:* since:24h.",
        autocompletion=offers("filter"),
    ),
]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="running, paused, completed, failed or cancelled."),
]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", metavar="VERB", help="The verb that asked, such as backfill.")
]
Assets = Annotated[
    list[str] | None,
    typer.Option("--asset", metavar="NAME", help="An asset that was asked for.", autocompletion=offers("assets")),
]
Automations = Annotated[
    list[str] | None,
    typer.Option("--automation", metavar="NAME", help="The schedule, sensor or condition that asked; * for any."),
]
Persons = Annotated[list[str] | None, typer.Option("--by", metavar="WHO", help="Who asked; * for any person.")]
RunTags = Annotated[list[str] | None, typer.Option("--tag", metavar="NAME", help="A tag of the run.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="Not before: an age (24h, 7d) or an ISO time.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before: an age or an ISO time.")]
Not = Annotated[
    list[str] | None, typer.Option("--not", metavar="FIELD:VALUE", help="None of these, such as kind:backfill.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Show it again as it changes, until it is over or Ctrl-C.")]


def read_filter(
    words: Sequence[str] | None,
    excluded: Sequence[str] | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    **fields: Sequence[str] | None,
) -> RunFilter:
    """Return the filter that words and options make together.

    Raises:
        OptionsError: says which of them cannot be read.

    Example:
        >>> str(read_filter(["state:failed since:24h"], ["kind:backfill"], asset=["my orders"]))
        'state:failed -kind:backfill asset:"my orders" since:24h'
    """
    given: list[str] = []
    for word in words or ():
        # quoted as one argument it may be a whole filter; split by the shell its values need no quotes
        given += RunFilter.parse(word).words() if " " in word and word.count(":") > 1 else [word]
    given += [f"{name}:{value}" for name, values in fields.items() for value in values or ()]
    given += [f"-{word.removeprefix('-')}" for word in excluded or ()]
    given += [f"{name}:{value}" for name, value in (("since", since), ("until", until)) if value is not None]
    return RunFilter.parse(given)


def ls(
    session: Session,
    words: Words = None,
    *,
    state: States = None,
    kind: Kinds = None,
    asset: Assets = None,
    automation: Automations = None,
    by: Persons = None,
    tag: RunTags = None,
    since: Since = None,
    until: Until = None,
    excluded: Not = None,
    limit: Annotated[int, typer.Option(min=1, help="How many lines, newest first.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(metavar="TEXT", help="`next` of the page before, of --json.")
    ] = None,
    unfold: Annotated[bool, typer.Option("--unfold", help="A line for each run of an automation, too.")] = False,
    watch: Watch = False,
) -> None:
    """List runs, newest first, by the filter of the pages; those of an automation that went well are folded."""
    requested = read_filter(
        words,
        excluded,
        since=since,
        until=until,
        state=state,
        kind=kind,
        asset=asset,
        automation=automation,
        by=by,
        tag=tag,
    )
    flow = session.records
    session.warn_of_memory_store()
    session.note_project(flow.settings)
    if session.out.as_json:
        if watch:
            raise OptionsError("--watch is for people: leave --json out, or ask again with --cursor.")
        page = _read(flow, requested, limit, cursor)
        _remember_runs(page.items)
        session.out.json(
            {
                "project": flow.settings.project,
                "filter": str(requested),
                "runs": [_line_json(one) for one in page.items],
                "next": page.next,
                "total": page.total,
                "total_is_at_least": page.total_is_at_least,
            }
        )
        return

    def show() -> bool:
        lines, rest = _folded(flow, requested, limit, cursor, unfold=unfold)
        session.out.table(_COLUMNS, [_row(line) for line in lines])
        if rest:
            session.out.note(f"The {rest}. --limit shows more, a filter less.", style="dim")
        return False

    _repeatedly(session.out, show) if watch else show()


def show(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.", autocompletion=offers("runs"))],
    *,
    steps: Annotated[bool, typer.Option("--steps", help="List its steps, however many.")] = False,
    state: Annotated[State | None, typer.Option(help="Only steps in this state; lists them.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many steps.")] = _SHOWN,
    watch: Watch = False,
) -> int:
    """Show a run: why steps failed, how its assets stand, who asked; few steps, or --steps, are listed."""
    flow = session.records
    session.warn_of_memory_store()
    listed = limit if steps or state is not None else 0
    if watch and session.out.as_json:
        raise OptionsError("--watch is for people: leave --json out, or `flowstone runs show RUN --json` again.")
    if not watch:
        show_run(session.out, flow, flow.runs.get(run), steps=listed, state=state)
        return DONE

    def again() -> bool:
        record = flow.runs.get(run)
        show_run(session.out, flow, record, steps=listed, state=state)
        return record.state.is_terminal

    _repeatedly(session.out, again)
    return DONE if flow.runs.get(run).state is State.COMPLETED else FAILED


def status(
    session: Session,
    identifier: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a step or of a run.", autocompletion=offers("runs"))
    ],
) -> None:
    """Show a step with its attempts, or a run with its counts."""
    flow = session.records
    session.warn_of_memory_store()
    step, run = find(flow, identifier)
    if step is not None:
        show_step(session.out, flow, step)
    elif run is not None:
        show_run(session.out, flow, run)


def backfills(
    session: Session,
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="One of them.", autocompletion=offers("runs"))
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    watch: Watch = False,
) -> int:
    """List backfills that are under way, with how far they are and how long it still takes; or show one."""
    if run is not None:
        return show(session, run, watch=watch)
    flow = session.records
    session.warn_of_memory_store()
    requested = RunFilter(kind=("backfill",), state=() if everything else ("running",))

    def listed() -> bool:
        page = _read(flow, requested, limit, None)
        if session.out.as_json:
            document = {"backfills": [_line_json(one) for one in page.items], "total": page.total}
            session.out.json(document)
            return True
        if not page.items and not everything:
            session.out.note("No backfill is under way; --all lists those that are over.")
        session.out.table(_BACKFILL_COLUMNS, [_backfill_row(one) for one in page.items])
        if page.summary:
            session.out.note(f"The {page.summary}. --limit shows more.", style="dim")
        return False

    _repeatedly(session.out, listed) if watch and not session.out.as_json else listed()
    return DONE


def _repeatedly(out: Output, show_it: Callable[[], bool]) -> None:
    """Show something every two seconds until it says that it is over; on a terminal always at the same place."""
    console = out.stdout_console()
    while True:
        if console.is_terminal:
            console.clear()
        if show_it():
            return
        time.sleep(_WATCH_SECONDS)


def _read(flow: FlowStone, requested: RunFilter, limit: int, cursor: str | None) -> Page[RunLine]:
    return flow.insights.runs(requested, cursor=cursor, limit=limit)


def _remember_runs(lines: Sequence[RunLine]) -> None:
    remember(runs=[line.id for line in lines])


class _Fold:
    """Runs of one automation that went well, as one line.

    Args:
        newest: the newest of them.
    """

    def __init__(self, newest: RunLine) -> None:
        self.newest = newest
        self.number = 1

    def row(self) -> list[str]:
        """Return the cells of its line."""
        one = self.newest
        what = f"{self.number:,} runs of {one.automation}"
        return [one.id, one.state, what, one.kind, one.automation or "", "", moment(one.created_at), ""]


def _folded(
    flow: FlowStone, requested: RunFilter, limit: int, cursor: str | None, *, unfold: bool
) -> tuple[list[RunLine | _Fold], str]:
    """Return lines of a list, and in words how much of it they are when that is not all."""
    lines: list[RunLine | _Fold] = []
    folds: dict[tuple[str, str], list[int]] = {}
    read = 0
    for _ in range(_MAX_PAGES):
        page = _read(flow, requested, min(_PAGE, limit if unfold else _PAGE), cursor)
        _remember_runs(page.items[:limit])
        for line in page.items:
            key = (line.automation or "", line.state)
            places = folds.setdefault(key, [])
            if unfold or line.automation is None or line.state != State.COMPLETED or len(places) < _FOLDED:
                if len(lines) >= limit:
                    total = (
                        f" of {'more than ' if page.total_is_at_least else ''}{page.total:,}" if page.total else ""
                    )
                    return lines, f"first {read:,}{total} runs"
                places.append(len(lines))
                lines.append(line)
            else:
                _fold(lines, places)
            read += 1
        cursor = page.next
        if cursor is None:
            return lines, ""
    return lines, f"first {read:,} runs"


def _fold(lines: list[RunLine | _Fold], places: list[int]) -> None:
    """Put one more run of an automation into its line; at first its earlier ones are joined into that."""
    first = lines[places[0]]
    if not isinstance(first, _Fold):
        first = _Fold(first)
        first.number = len(places)
        lines[places[0]] = first
        for place in sorted(places[1:], reverse=True):
            del lines[place]
    first.number += 1


_COLUMNS = (
    Column("RUN"),
    Column("STATE"),
    Column("WHAT", rank=1),
    Column("KIND", rank=4),
    Column("WHO", rank=5),
    Column("DONE", rank=2, right=True),
    Column("CREATED", rank=3),
    Column("TOOK", rank=6, right=True),
)
_BACKFILL_COLUMNS = (
    Column("RUN"),
    Column("STATE"),
    Column("WHAT", rank=1),
    Column("DONE", right=True),
    Column("FAILED", rank=2, right=True),
    Column("RATE", rank=5, right=True),
    Column("LEFT", rank=3, right=True),
    Column("AT ONCE", rank=6, right=True),
    Column("CREATED", rank=4),
)


def _row(line: RunLine | _Fold) -> list[str]:
    if isinstance(line, _Fold):
        return line.row()
    time_taken = duration(line.took_seconds)
    if line.left_seconds is not None:
        time_taken += f", {duration(line.left_seconds)} left"
    return [
        line.id,
        line_state(line),
        f"{line.selection} {line.partitions}".strip(),
        line.kind,
        line.automation or line.requested_by or "",
        _done(line.counts),
        moment(line.created_at),
        time_taken,
    ]


def _done(counts: RunCounts) -> str:
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{counts.done:,}/{counts.total:,}{failed}"


def _backfill_row(line: RunLine) -> list[str]:
    rate = line.counts.done / line.took_seconds if line.took_seconds > 0 else 0.0
    return [
        line.id,
        line_state(line),
        f"{line.selection} {line.partitions}".strip(),
        f"{line.counts.done:,}/{line.counts.total:,}",
        f"{line.counts.failed:,}" if line.counts.failed else "",
        f"{rate:,.1f}/s" if line.counts.done else "",
        duration(line.left_seconds) if line.left_seconds is not None else "",
        str(line.window or ""),
        moment(line.created_at),
    ]


def line_state(line: RunLine) -> str:
    """Return the state of a run for people: also that it is paused, or that nobody goes on with it."""
    if line.process_lost:
        return "process lost"
    return "paused" if line.paused else line.state


def show_run(out: Output, flow: FlowStone, run: RunRecord, *, steps: int = 0, state: State | None = None) -> None:
    """Write a run.

    Args:
        out: where to.
        flow: the app.
        run: the run.
        steps: how many of its steps to list; 0 lists those of a small run.
        state: only steps in this state.
    """
    view = flow.insights.run(run.id)
    listed = steps or (_FEW_STEPS if view.run.counts.total <= _FEW_STEPS else 0)
    found = flow.runs.steps(run.id, state=state, limit=listed) if listed else []
    if out.as_json:
        out.json(_run_document(flow, run, view, found if listed else None))
        return
    line = view.run
    out.line(f"run {one_line(run.id)} is {line_state(line)}")
    left = f", about {duration(line.left_seconds)} left" if line.left_seconds is not None else ""
    counts = ", ".join(f"{number:,} {name.value}" for name, number in sorted(run.counts.items()) if number)
    write_fields(
        out,
        {
            "what": f"{run.kind} {run.selection}",
            "partitions": line.partitions,
            "asked by": _who(line),
            "executor": run.executor,
            "retry of": run.retry_of or "",
            "belongs to": run.parent or "",
            "priority": str(run.priority),
            "max concurrency": str(run.max_concurrency or ""),
            "created": moment(run.created_at),
            "finished": moment(run.finished_at),
            "took": took(run.created_at, run.finished_at) or duration(line.took_seconds) + left,
            "tags": ", ".join(run.tags),
            "metadata": _text(run.metadata),
            "config": _text(run.config),
            "steps": counts,
            "waits for": "; ".join(flow.parts.waiting.of_run(run.id)) if not run.state.is_terminal else "",
            "the same again": view.command,
        },
    )
    _show_errors(out, view)
    _show_assets(out, view)
    show_scattered(out, flow.runs.latest(limit=_SHOWN, parent=run.id))
    if found:
        out.line()
        out.table(_STEP_COLUMNS, [_step_row(flow, step) for step in found])
        if len(found) == listed and len(found) < line.counts.total:
            out.note(f"The first {len(found):,} of {line.counts.total:,} steps; --limit shows more.", style="dim")
    elif view.run.counts.failed:
        failed = [
            step
            for state_of in (State.FAILED, State.CANCELLED, State.CANCELLING)
            for step in flow.runs.steps(run.id, state=state_of, limit=_SHOWN)
        ]
        out.line()
        out.table(_STEP_COLUMNS, [_step_row(flow, step) for step in failed[:_SHOWN]])


def _who(line: RunLine) -> str:
    if line.automation is not None:
        return f"the automation {line.automation}"
    way = f" ({line.via})" if line.via else ""
    return f"{line.requested_by}{way}" if line.requested_by else ""


def _show_errors(out: Output, view: RunView) -> None:
    """Write why steps failed, the most frequent reason first."""
    if not view.errors:
        return
    out.line()
    rows = []
    for one in view.errors:
        example = one.examples[0] if one.examples else None
        step = str(example.id) if example is not None else ""
        rows.append([f"{one.number:,}{'+' if one.is_at_least else ''}", one.line, ", ".join(one.assets[:5]), step])
    columns = [
        Column("FAILED", right=True),
        Column("WHY"),
        Column("ASSETS", rank=1),
        Column("FOR EXAMPLE STEP", rank=2, right=True),
    ]
    out.table(columns, rows)


def _show_assets(out: Output, view: RunView) -> None:
    if len(view.assets) < 2 and view.run.counts.total < 2:
        return
    out.line()
    columns = [
        Column("ASSET"),
        Column("STATE"),
        Column("STEPS", right=True),
        Column("OF WHICH", rank=1),
        Column("WAITS FOR", rank=2),
    ]
    rows = [
        [
            one.asset,
            one.state,
            f"{one.total:,}",
            ", ".join(f"{number:,} {name}" for name, number in one.counts.items() if number),
            ", ".join(one.waits_for),
        ]
        for one in view.assets
    ]
    out.table(columns, rows)


_STEP_COLUMNS = (
    Column("STEP"),
    Column("ASSET"),
    Column("PARTITION"),
    Column("STATE", rank=1),
    Column("ATTEMPT", rank=4, right=True),
    Column("TOOK", rank=3, right=True),
    Column("ERROR", rank=2),
)


def _step_row(flow: FlowStone, step: StepRecord) -> list[str]:
    error = error_line(step.error) or flow.parts.waiting.reason_of(step)
    return [
        str(step.id),
        step.asset,
        label_of_step(flow, step),
        step.state.value,
        f"{step.attempt} of {step.max_attempts}",
        took(step.started_at, step.finished_at),
        error if len(error) <= 100 else f"{error[:99]}…",
    ]


def show_scattered(out: Output, found: Sequence[RunRecord]) -> None:
    """List runs of items with their counts; nothing when there are none."""
    if not found:
        return
    out.line()
    columns = [
        Column("RUN OF ITEMS"),
        Column("STATE"),
        Column("WHAT", rank=2),
        Column("DONE", right=True),
        Column("FAILED", rank=1, right=True),
    ]
    rows = []
    for run in found:
        state = "paused" if run.paused and not run.state.is_terminal else run.state.value
        failed = run.counts.get(State.FAILED, 0)
        rows.append([run.id, state, run.selection, f"{run.done:,}/{run.total:,}", f"{failed:,}"])
    out.table(columns, rows)


def _text(document: Mapping[str, object]) -> str:
    return json.dumps(dict(document), ensure_ascii=False) if document else ""


def _line_json(line: RunLine) -> dict[str, object]:
    """Return a run of a list with JSON types, under the names that `runs show` uses."""
    counts = line.counts
    return {
        "kind": "run",
        "id": line.id,
        "verb": line.kind,
        "selection": line.selection,
        "partitions": line.partitions or None,
        "executor": line.executor,
        "state": line.state,
        "paused": line.paused,
        "process_lost": line.process_lost,
        "requested_by": line.requested_by,
        "via": line.via,
        "automation": line.automation,
        "retry_of": line.retry_of,
        "parent": line.parent,
        "priority": line.priority,
        "max_concurrency": line.window,
        "created_at": line.created_at.isoformat(),
        "finished_at": line.finished_at.isoformat() if line.finished_at else None,
        "took_seconds": line.took_seconds,
        "left_seconds": line.left_seconds,
        "total": counts.total,
        "done": counts.done,
        "counts": {
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "running": counts.running,
            "waiting": counts.waiting,
        },
        "tags": list(line.tags),
        "assets": list(line.assets),
    }


def _run_document(
    flow: FlowStone, run: RunRecord, view: RunView, steps: Sequence[StepRecord] | None
) -> dict[str, object]:
    """Return a run with JSON types: as in a list, with its counts by state, and what has no result."""
    found = [step for state in _WITHOUT_RESULT for step in flow.runs.steps(run.id, state=state, limit=_SHOWN)]
    failed = [step for step in found if step.state in _WITHOUT_RESULT[:2]]
    cancelled = [step for step in found if step.state not in _WITHOUT_RESULT[:2]]
    document: dict[str, object] = {
        **_line_json(view.run),
        "counts": {state.value: number for state, number in run.counts.items()},
        "metadata": dict(run.metadata),
        "config": dict(run.config),
        "errors": [
            {"error_type": one.error_type, "line": one.line, "number": one.number, "assets": list(one.assets)}
            for one in view.errors
        ],
        "command": view.command,
        "failed_steps": [step_json(flow, step) for step in failed],
        "cancelled_steps": [step_json(flow, step) for step in cancelled],
    }
    if steps is not None:
        document["steps"] = [step_json(flow, step) for step in steps]
    return document
