"""Steering what runs: `cancel`, `retry`, `pause`, `resume`; runs, steps and queues."""

from __future__ import annotations

from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.results import Progress
from flowstone.cli.bulk import DryRun, Expect, RunsOrFilter, Yes, all_matching, filter_in
from flowstone.cli.calls import DONE
from flowstone.cli.known_names import offers
from flowstone.cli.materialize import (
    ExecutorName,
    NoWait,
    note_without_worker,
    reporting,
    show_placed,
    show_result,
)
from flowstone.cli.output import one_line
from flowstone.cli.runs import Watch, show
from flowstone.cli.session import Session
from flowstone.cli.steps import find
from flowstone.core.bulk import BulkAction
from flowstone.core.state import State
from flowstone.core.step import RunRecord
from flowstone.errors import OptionsError, command

Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run.", autocompletion=offers("runs"))]

Queue = Annotated[
    str | None,
    typer.Option("--queue", metavar="NAME", help="A queue, in the whole fleet.", autocompletion=offers("queues")),
]

IdOrFilter = Annotated[
    list[str],
    typer.Argument(
        metavar="ID|FILTER...",
        help="Id of a step or of a run, or words of a filter, such as state:running kind:backfill.",
        autocompletion=offers("runs"),
    ),
]


def cancel(
    session: Session,
    words: IdOrFilter,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    expect: Expect = None,
    watch: Watch = False,
) -> int:
    """End a step, a run, or all runs that match a filter; queued work never starts, running work is signalled."""
    flow = session.records
    session.warn_of_memory_store()
    text = filter_in(words)
    if text is not None:
        return all_matching(session, flow, BulkAction.CANCEL, text, yes=yes, dry_run=dry_run, expect=expect)
    _refuse_without_filter(dry_run, expect)
    _cancel_one(session, flow, words[0], watch=watch)
    return DONE


def priority(
    session: Session,
    words: RunsOrFilter,
    *,
    to: Annotated[int, typer.Option("--to", min=0, max=9, help="0 (first) to 9.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    expect: Expect = None,
) -> int:
    """Give a run, or all runs that match a filter, another priority: what of them is not over follows."""
    flow = session.records
    session.warn_of_memory_store()
    text = filter_in(words)
    if text is not None:
        return all_matching(
            session, flow, BulkAction.PRIORITY, text, yes=yes, dry_run=dry_run, expect=expect, priority=to
        )
    _refuse_without_filter(dry_run, expect)
    changed = flow.runs.set_priority(words[0], to)
    if session.out.as_json:
        session.out.json({"kind": "run", "id": changed.id, "priority": changed.priority})
    else:
        session.out.line(f"run {one_line(changed.id)}: what of it is not over has priority {changed.priority}.")
    return DONE


def window(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.", autocompletion=offers("runs"))],
    steps: Annotated[int, typer.Argument(metavar="STEPS", min=1, help="How many of its steps at once.")],
) -> None:
    """Change how many steps of a backfill, or of another run with --max-concurrency, are placed at once."""
    flow = session.records
    session.warn_of_memory_store()
    changed = flow.runs.set_window(run, steps)
    if session.out.as_json:
        session.out.json({"kind": "run", "id": changed.id, "max_concurrency": changed.max_concurrency})
    else:
        session.out.line(f"run {one_line(changed.id)}: at most {changed.max_concurrency} of its steps at once.")


def _refuse_without_filter(dry_run: bool, expect: int | None) -> None:
    if dry_run or expect is not None:
        raise OptionsError("--dry-run and --expect are for a filter, such as state:running; this is one id.")


def _cancel_one(session: Session, flow: FlowStone, identifier: str, *, watch: bool) -> None:
    step, run = find(flow, identifier)
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
        if watch:
            show(session, identifier if step is None else step.run_id, watch=True)


def retry(
    session: Session,
    words: RunsOrFilter,
    *,
    executor: ExecutorName = "auto",
    no_wait: NoWait = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    expect: Expect = None,
    watch: Watch = False,
) -> int:
    """Run again, as a new run, what a run did not get done: failed, waiting for what failed, cancelled.

    With a filter that is done for all runs that match, without waiting for them.
    """
    flow = session.flow
    session.warn_of_memory_store()
    text = filter_in(words)
    if text is not None:
        return all_matching(session, flow, BulkAction.RETRY, text, yes=yes, dry_run=dry_run, expect=expect)
    _refuse_without_filter(dry_run, expect)
    run = words[0]
    flow.runs.get(run)
    if watch:
        placed_run = flow.runs.retry(run, executor=executor, wait=False)
        return show(session, placed_run.id, watch=True)
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


def pause(session: Session, run: Run = None, *, queue: Queue = None) -> None:
    """Start nothing more of a run, or of a queue in the whole fleet; what runs goes on."""
    _steer(session, run, queue, paused=True)


def resume(session: Session, run: Run = None, *, queue: Queue = None) -> None:
    """Go on with a paused run, or with a paused queue."""
    _steer(session, run, queue, paused=False)


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
