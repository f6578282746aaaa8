"""Runs and their steps: looking at them, and steering them.

Steering (`why`, `pause`, `resume`, `retry`, `prune`) comes first, then the listings (`runs`, `history`, `status`,
`cancel`), then the functions that print a run, a step, an attempt as text and as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.results import Progress
from flowstone.app.targets import find_asset, read_recorded, recorded_asset, recorded_target
from flowstone.cli.known_names import offers
from flowstone.cli.materialize import (
    ExecutorName,
    NoWait,
    note_without_worker,
    reporting,
    show_placed,
    show_result,
)
from flowstone.cli.output import Column, Output, duration, moment, one_line, took
from flowstone.cli.partitions import One, label
from flowstone.cli.session import Session
from flowstone.core.clean import error_line
from flowstone.core.route import RouteDecision, decision_of
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord, RunRecord, StepRecord
from flowstone.errors import OptionsError, RunNotFoundError, command

Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run.", autocompletion=offers("runs"))]
Queue = Annotated[
    str | None,
    typer.Option("--queue", metavar="NAME", help="A queue, in the whole fleet.", autocompletion=offers("queues")),
]
_AGE = re.compile(r"(?P<number>\d{1,9})\s*(?P<unit>s|min|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def why(
    session: Session,
    asset: Annotated[
        str, typer.Argument(metavar="ASSET", help="Name of an asset.", autocompletion=offers("assets"))
    ],
    *,
    partition: One = None,
) -> None:
    """Say why an asset (or one partition of it) does not run, or what it is doing."""
    flow = session.flow
    session.warn_of_memory_store()
    found = find_asset(flow.graph, asset)
    catalog = flow.parts.store.catalog
    requested = None if partition is None else read_recorded(found, partition, catalog)
    reasons = flow.why(found, requested)
    shown = label(recorded_target(found, requested, catalog)[1], found)
    if session.out.as_json:
        session.out.json({"asset": asset, "partition": shown or None, "reasons": reasons})
        return
    session.out.line(f"{one_line(f'{asset} {shown}'.strip())}: {one_line(reasons[0])}", hang=2)
    for reason in reasons[1:]:
        session.out.line(f"  {one_line(reason)}", hang=4)


def pause(session: Session, run: Run = None, *, queue: Queue = None) -> None:
    """Start nothing more of a run, or of a queue in the whole fleet; what runs goes on."""
    _steer(session, run, queue, paused=True)


def resume(session: Session, run: Run = None, *, queue: Queue = None) -> None:
    """Go on with a paused run, or with a paused queue."""
    _steer(session, run, queue, paused=False)


def retry(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.", autocompletion=offers("runs"))],
    *,
    executor: ExecutorName = "auto",
    no_wait: NoWait = False,
) -> int:
    """Run again, as a new run, what a run did not get done: failed, waiting for what failed, cancelled."""
    flow = session.flow
    session.warn_of_memory_store()
    flow.runs.get(run)
    if no_wait:
        return show_placed(session, flow.runs.retry(run, executor=executor, wait=False))
    durable = note_without_worker(session, executor)
    placed: list[str] = []
    with reporting(session.out, f"retry {run}") as report:

        def on_progress(progress: Progress) -> None:
            placed[:] = [progress.run_id]
            report(progress)

        try:
            result = flow.runs.retry(run, executor=executor, on_progress=on_progress)
        except KeyboardInterrupt:
            if durable and placed:
                session.out.note(f"What was placed goes on without this. Stop it: {command('cancel', placed[0])}")
            raise
    return show_result(session.out, flow, result)


def prune(
    session: Session,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Such as 30d or 12h; default: the setting retention_days."
        ),
    ] = None,
    asset: Annotated[
        str | None,
        typer.Option("--asset", metavar="NAME", help="All that is recorded of an asset that is declared no more."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete the history of runs that ended long ago, with their values; what is needed is kept."""
    flow = session.records
    session.warn_of_memory_store()
    if asset is not None:
        if older_than is not None:
            raise OptionsError("Give --asset or --older-than: all of an asset that is gone, or what is old.")
        gone = flow.retention.prune_asset(asset, dry_run=dry_run)
        if session.out.as_json:
            session.out.json({**asdict(gone), "asset": asset})
            return
        done = "Would delete" if dry_run else "Deleted"
        values = f"{gone.values:,} values of {gone.size_bytes:,} bytes"
        session.out.line(f"{done} {gone.steps:,} steps of {one_line(asset)} with {values}.")
        return
    age = timedelta(days=flow.settings.retention_days) if older_than is None else read_age(older_than)
    pruned = flow.retention.prune(older_than=age, dry_run=dry_run)
    if session.out.as_json:
        session.out.json({**asdict(pruned), "older_than_seconds": age.total_seconds()})
        return
    done = "Would delete" if dry_run else "Deleted"
    counts = f"{pruned.steps:,} steps and {pruned.runs:,} runs"
    session.out.line(f"{done} {counts} that ended more than {duration(age.total_seconds())} ago,")
    session.out.line(f"with {pruned.values:,} values of {pruned.size_bytes:,} bytes, and {pruned.ticks:,} ticks.")
    if dry_run:
        session.out.note("Not counted: leftovers of attempts that died while they stored a value.")
    if pruned.leftovers:
        session.out.line(
            f"Deleted {pruned.leftovers:,} leftovers of attempts that died while they stored a value."
        )
    for name, number in pruned.out_of_reach.items():
        declared = name in flow.parts.managers
        why = "it failed, see the log" if declared else "this app does not declare it"
        session.out.line(
            f"Out of reach: {number:,} values of the IO manager {name!r} stay where they are ({why})."
        )
    if pruned.not_swept:
        names = ", ".join(map(repr, pruned.not_swept))
        session.out.line(f"Not looked at: leftovers of the IO manager {names}, which has no sweep().")


def read_age(text: str) -> timedelta:
    """Read an age such as `30d`.

    Args:
        text: a whole number and s, min (or m), h, d or w.

    Raises:
        OptionsError: it is something else.

    Example:
        >>> read_age("12h")
        datetime.timedelta(seconds=43200)
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise OptionsError(f"--older-than {text!r}: give a number and s, min, h, d or w, such as 30d.")
    # no calendar goes further back
    return timedelta(seconds=min(int(match["number"]) * _UNITS[match["unit"]], 10_000 * 365 * 86400))


def _steer(session: Session, run: str | None, queue: str | None, *, paused: bool) -> None:
    if (run is None) == (queue is None):
        verb = "pause" if paused else "resume"
        raise OptionsError(f"Say what: `flowstone {verb} RUN` or `flowstone {verb} --queue NAME`, one of them.")
    if queue is not None:
        _steer_queue(session, queue, paused=paused)
    elif run is not None:
        _steer_run(session, run, paused=paused)


def _steer_queue(session: Session, queue: str, *, paused: bool) -> None:
    queues = session.records.queues
    if paused:
        queues.pause(queue)
    else:
        queues.resume(queue)
    if session.out.as_json:
        session.out.json({"kind": "queue", "id": queue, "paused": paused})
    else:
        goes_on = "nothing more of it starts; what runs goes on" if paused else "it goes on"
        session.out.line(f"queue {one_line(queue)}: {goes_on}.")


def _steer_run(session: Session, run: str, *, paused: bool) -> None:
    runs = session.records.runs
    record = runs.pause(run) if paused else runs.resume(run)
    if session.out.as_json:
        session.out.json({"kind": "run", "id": run, "paused": record.paused, "state": record.state.value})
        return
    goes_on = "nothing more of it starts; what runs goes on" if paused else "it goes on"
    text = f"it is over already ({record.state.value})" if record.state.is_terminal else goes_on
    session.out.line(f"run {one_line(run)}: {text}.")


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
    out.table(columns, [_row(run) for run in found])


def _row(run: RunRecord) -> list[str]:
    state = "paused" if run.paused and not run.state.is_terminal else run.state.value
    failed = run.counts.get(State.FAILED, 0)
    return [run.id, state, run.selection, f"{run.done:,}/{run.total:,}", f"{failed:,}"]


Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a step or of a run.", autocompletion=offers("runs"))]
_FAILURES = (State.FAILED, State.UPSTREAM_FAILED)
_WITHOUT_RESULT = (*_FAILURES, State.CANCELLED, State.CANCELLING)
_SHOWN = 50  # failed steps in a listing
_SEARCHED = 10_000  # runs looked through for a state


def runs(
    session: Session,
    run_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One run, with what failed in it.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    state: Annotated[State | None, typer.Option(help="Only runs in this state.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs with this tag.")] = None,
) -> None:
    """List the latest runs, or show one."""
    flow = session.records
    session.warn_of_memory_store()
    if run_id is not None:
        _show_run(session.out, flow, flow.runs.get(run_id))
        return
    found = flow.runs.latest(limit=_SEARCHED if state else limit, tag=tag)
    found = [run for run in found if state is None or run.state is state][:limit]
    if session.out.as_json:
        session.out.json({"project": flow.settings.project, "runs": [_run_json(run) for run in found]})
        return
    session.note_project(flow.settings)
    columns = [
        Column("RUN"),
        Column("STATE"),
        Column("WHAT", rank=1),
        Column("KIND", rank=3),
        Column("EXECUTOR", rank=5),
        Column("DONE", rank=2, right=True),
        Column("CREATED", rank=4),
        Column("TOOK", rank=6, right=True),
    ]
    session.out.table(columns, [_run_row(run) for run in found])


def history(
    session: Session,
    asset: Annotated[
        str,
        typer.Argument(
            metavar="ASSET", help="An asset, also one that is declared no more.", autocompletion=offers("assets")
        ),
    ],
    *,
    partition: One = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """List the committed versions of an asset, or of one partition, newest first."""
    flow = session.flow
    session.warn_of_memory_store()
    found = recorded_asset(flow.graph, flow.parts.store.catalog, asset)
    key = None if partition is None else read_recorded(found, partition, flow.parts.store.catalog)
    versions = flow.history(found.name, partition=key, limit=limit)
    if session.out.as_json:
        listed = [one.to_json() for one in versions]
        session.out.json({"asset": found.name, "declared": found.name in flow.graph, "versions": listed})
        return
    session.note_project(flow.settings)
    if found.name not in flow.graph:
        session.out.note(f"{one_line(found.name)} is declared no more.")
    columns = [
        Column("STEP"),
        Column("PARTITION"),
        Column("COMMITTED"),
        Column("CODE VERSION", rank=1),
        Column("RUN", rank=2),
    ]
    rows = [
        [
            str(one.step_id),
            label(one.key, found),
            moment(one.finished_at),
            one.code_version or "",
            one.run_id,
        ]
        for one in versions
    ]
    session.out.table(columns, rows)


def status(session: Session, identifier: Id) -> None:
    """Show a step with its attempts, or a run with its counts."""
    flow = session.records
    session.warn_of_memory_store()
    step, run = _find(flow, identifier)
    if step is not None:
        _show_step(session.out, flow, step)
    elif run is not None:
        _show_run(session.out, flow, run)


def cancel(session: Session, identifier: Id) -> None:
    """Ask for the end of a step or of a whole run; queued work never starts, running work is signalled."""
    flow = session.records
    session.warn_of_memory_store()
    step, run = _find(flow, identifier)
    before: State
    counts: dict[State, int] = {}
    if step is not None:
        kind, before, after = "step", step.state, flow.cancel_job(identifier)
    else:
        assert run is not None
        ended = flow.runs.cancel(identifier)
        kind, before, after, counts = "run", run.state, ended.state, ended.counts
    if session.out.as_json:
        document: dict[str, object] = {"kind": kind, "id": identifier}
        document |= {"before": before.value, "state": after.value}
        if run is not None:
            document["counts"] = {state.value: number for state, number in counts.items()}
        session.out.json({**document, "recorded": not before.is_terminal})
        return
    name = f"{kind} {one_line(identifier)}"
    if before.is_terminal:
        session.out.line(f"{name} is {after.value}: it was over already.")
        return
    session.out.line(f"The cancel is recorded: {name} is {after.value}.")
    if counts:
        session.out.line(f"  {_became(run, counts)}")
    if State.CANCELLING in (after, *counts):
        session.out.line(f"  What runs was asked to stop. When it has: {command('status', identifier)}")


def _became(before: RunRecord | None, counts: dict[State, int]) -> str:
    """Return what a cancel of a run did to its steps, for people.

    Example:
        >>> _became(None, {State.CANCELLED: 3, State.COMPLETED: 1})
        '3 cancelled before they started, 1 completed'
    """
    earlier = before.counts.get(State.CANCELLED, 0) if before is not None else 0
    now = counts.get(State.CANCELLED, 0) - earlier
    found = [f"{now:,} cancelled before {'it' if now == 1 else 'they'} started"] if now else []
    others = {**counts, State.CANCELLED: earlier}
    found += [f"{number:,} {state.value}" for state, number in sorted(others.items()) if number]
    return ", ".join(found)


def _find(flow: FlowStone, identifier: str) -> tuple[StepRecord | None, RunRecord | None]:
    """Return the step or the run with this id.

    Raises:
        RunNotFoundError: there is neither.
    """
    try:
        return flow.runs.step(identifier), None
    except RunNotFoundError:
        pass
    try:
        return None, flow.runs.get(identifier)
    except RunNotFoundError:
        raise RunNotFoundError("step or run", identifier) from None


def _show_run(out: Output, flow: FlowStone, run: RunRecord) -> None:
    found = [step for state in _WITHOUT_RESULT for step in flow.runs.steps(run.id, state=state, limit=_SHOWN)]
    if out.as_json:
        failed = [step for step in found if step.state in _FAILURES]
        cancelled = [step for step in found if step.state not in _FAILURES]
        document = {**_run_json(run), "failed_steps": [_step_json(flow, step) for step in failed]}
        out.json({**document, "cancelled_steps": [_step_json(flow, step) for step in cancelled]})
        return
    out.line(f"run {one_line(run.id)} is {_state(run)}")
    _fields(
        out,
        {
            "what": f"{run.kind} {run.selection}",
            "executor": run.executor,
            "retry of": run.retry_of or "",
            "belongs to": run.parent or "",
            "priority": str(run.priority),
            "max concurrency": str(run.max_concurrency or ""),
            "created": moment(run.created_at),
            "finished": moment(run.finished_at),
            "took": took(run.created_at, run.finished_at),
            "tags": ", ".join(run.tags),
            "metadata": _document(run.metadata),
            "config": _document(run.config),
            "steps": ", ".join(f"{number:,} {state.value}" for state, number in sorted(run.counts.items())),
        },
    )
    show_scattered(out, flow.runs.latest(limit=_SHOWN, parent=run.id))
    if found:
        out.line()
        columns = [
            Column("STEP"),
            Column("ASSET"),
            Column("PARTITION"),
            Column("STATE", rank=1),
            Column("ERROR", rank=2),
        ]
        out.table(columns, [_failed_row(flow, step) for step in found])


def _failed_row(flow: FlowStone, step: StepRecord) -> list[str]:
    error = error_line(step.error) or flow.parts.waiting.reason_of(step)
    shown = error if len(error) <= 100 else f"{error[:99]}…"
    return [str(step.id), step.asset, _label(flow, step), step.state.value, shown]


def _show_step(out: Output, flow: FlowStone, step: StepRecord) -> None:
    attempts = flow.runs.attempts(step.id)
    if out.as_json:
        out.json({**_step_json(flow, step), "attempts": [_attempt_json(one) for one in attempts]})
        return
    out.line(f"step {step.id} is {step.state.value}")
    scheduled = "next attempt" if step.state is State.RETRYING else "scheduled for"
    _fields(
        out,
        {
            "asset": f"{step.asset} {_label(flow, step)}".strip(),
            "run": step.run_id,
            "executor": step.executor,
            "queue": f"{step.queue}, priority {step.priority}",
            "attempt": f"{step.attempt} of {step.max_attempts}",
            scheduled: moment(step.scheduled_at),
            "started": moment(step.started_at),
            "finished": moment(step.finished_at),
            "worker": step.worker or "",
            "stored": f"{step.stored.io}: {step.stored.location}" if step.stored else "",
            "route": route_text(decision_of(step.stored)),
            "reason": flow.parts.waiting.reason_of(step),
            "invalidated": moment(step.invalidated_at),
            "waits for": "; ".join(waits) if (waits := flow.runs.status(step.id).waiting_for) else "",
        },
    )
    if attempts:
        out.line()
        columns = [
            Column("ATTEMPT", right=True),
            Column("STATE"),
            Column("STARTED", rank=2),
            Column("TOOK", rank=3, right=True),
            Column("NEXT ATTEMPT", rank=1),
            Column("WORKER", rank=4),
            Column("ERROR"),
        ]
        out.table(columns, [_attempt_row(one) for one in attempts])
    if step.error:
        out.line()
        out.line(step.error.rstrip())


def route_text(decision: RouteDecision | None) -> str:
    """Return a decision on one line; empty for none.

    Example:
        >>> route_text(RouteDecision(("full",), ("delta",), "empty table"))
        'to full, not to delta (empty table)'
    """
    if decision is None:
        return ""
    chosen = f"to {', '.join(decision.chosen)}" if decision.chosen else "to nobody"
    others = f", not to {', '.join(decision.not_chosen)}" if decision.not_chosen else ""
    return chosen + others + (f" ({decision.reason})" if decision.reason else "")


def _attempt_row(one: AttemptRecord) -> list[str]:
    return [
        str(one.attempt),
        one.state.value,
        moment(one.started_at),
        took(one.started_at, one.finished_at),
        moment(one.retry_at),
        one.worker or "",
        error_line(one.error),
    ]


def _fields(out: Output, fields: dict[str, str]) -> None:
    shown = {name: value for name, value in fields.items() if value}
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        out.line(f"  {name.ljust(width)}  {one_line(value)}", hang=width + 4)


def _run_row(run: RunRecord) -> list[str]:
    done = f"{run.done:,}/{run.total:,}"
    time = took(run.created_at, run.finished_at)
    return [run.id, _state(run), run.selection, run.kind, run.executor, done, moment(run.created_at), time]


def _state(run: RunRecord) -> str:
    if run.process_lost:
        return "process lost"
    return "paused" if run.paused and not run.state.is_terminal else run.state.value


def _label(flow: FlowStone, step: StepRecord) -> str:
    return label(step.partition_key, flow.graph.assets.get(step.asset))


def _document(document: Mapping[str, object]) -> str:
    return json.dumps(dict(document), ensure_ascii=False) if document else ""


def _run_json(run: RunRecord) -> dict[str, object]:
    return {
        "kind": "run",
        "id": run.id,
        "verb": run.kind,
        "selection": run.selection,
        "executor": run.executor,
        "state": run.state.value,
        "paused": run.paused,
        "process_lost": run.process_lost,
        "retry_of": run.retry_of,
        "parent": run.parent,
        "priority": run.priority,
        "max_concurrency": run.max_concurrency,
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "total": run.total,
        "done": run.done,
        "counts": {state.value: number for state, number in run.counts.items()},
        "tags": list(run.tags),
        "metadata": dict(run.metadata),
        "config": dict(run.config),
    }


def _step_json(flow: FlowStone, step: StepRecord) -> dict[str, object]:
    moments = {
        name: at.isoformat() if at else None
        for name, at in (
            ("created_at", step.created_at),
            ("scheduled_at", step.scheduled_at),
            ("started_at", step.started_at),
            ("finished_at", step.finished_at),
        )
    }
    return {
        "kind": "step",
        "id": str(step.id),
        "run_id": step.run_id,
        "asset": step.asset,
        "partition": _label(flow, step) or None,
        "state": step.state.value,
        "attempt": step.attempt,
        "max_attempts": step.max_attempts,
        "priority": step.priority,
        "queue": step.queue,
        "executor": step.executor,
        **moments,
        "worker": step.worker,
        "waiting_on": step.waiting_on,
        "waiting_for": list(flow.runs.status(step.id).waiting_for) if not step.state.is_terminal else [],
        "invalidated_at": step.invalidated_at.isoformat() if step.invalidated_at else None,
        "reason": flow.parts.waiting.reason_of(step) or None,
        "error": step.error,
        "error_type": step.error_type,
        "route": decision.to_json() if (decision := decision_of(step.stored)) else None,
        "stored": dict(step.stored.to_json()) if step.stored else None,
    }


def _attempt_json(one: AttemptRecord) -> dict[str, object]:
    return {
        "attempt": one.attempt,
        "state": one.state.value,
        "started_at": one.started_at.isoformat(),
        "finished_at": one.finished_at.isoformat(),
        "worker": one.worker,
        "error": one.error,
        "error_type": one.error_type,
        "retry_at": one.retry_at.isoformat() if one.retry_at else None,
    }
