"""Steering what was placed: `why`, `pause`, `resume`, `retry`, `prune`."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from flowstone.app.requests import find_asset, read_recorded, recorded_target
from flowstone.app.results import Progress
from flowstone.cli.building import ExecutorName, NoWait, note_without_worker, show_placed, show_result
from flowstone.cli.output import duration, one_line
from flowstone.cli.partitions import One, label
from flowstone.cli.progress import reporting
from flowstone.cli.session import Session
from flowstone.errors import OptionsError, command

Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Id of a run.")]
Queue = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="A queue, in the whole fleet.")]
_AGE = re.compile(r"(?P<number>\d{1,9})\s*(?P<unit>s|min|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def why(
    session: Session,
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="Name of an asset.")],
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
    session.out.line(f"{one_line(f'{asset} {shown}'.strip())}: {one_line(reasons[0])}")
    for reason in reasons[1:]:
        session.out.line(f"  {one_line(reason)}")


def pause(session: Session, run: Run = None, *, queue: Queue = None) -> None:
    """Start nothing more of a run, or of a queue in the whole fleet; what runs goes on."""
    _steer(session, run, queue, paused=True)


def resume(session: Session, run: Run = None, *, queue: Queue = None) -> None:
    """Go on with a paused run, or with a paused queue."""
    _steer(session, run, queue, paused=False)


def retry(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")],
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
    session.warn_of_memory_store()
    flow = session.flow
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
    queues = session.flow.queues
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
    runs = session.flow.runs
    record = runs.pause(run) if paused else runs.resume(run)
    if session.out.as_json:
        session.out.json({"kind": "run", "id": run, "paused": record.paused, "state": record.state.value})
        return
    goes_on = "nothing more of it starts; what runs goes on" if paused else "it goes on"
    text = f"it is over already ({record.state.value})" if record.state.is_terminal else goes_on
    session.out.line(f"run {one_line(run)}: {text}.")
