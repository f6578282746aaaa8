"""`materialize` and `backfill`, and how far they are: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from flowstone.app import FlowStone, database
from flowstone.app.results import Progress, RunHandle, RunResult
from flowstone.app.submit import new_run_id
from flowstone.app.targets import leaves, parse_one, parse_several
from flowstone.cli.assets import SelectionArgument
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.known_names import offers
from flowstone.cli.output import Output, one_line, took
from flowstone.cli.partitions import First, Last, One, Several, label
from flowstone.cli.run_options import ConfigFile, ConfigValues, MetadataValues, Tags, read_about
from flowstone.cli.session import Session
from flowstone.core.capability import Capability
from flowstone.core.clean import error_line
from flowstone.core.materialization import Materialization
from flowstone.core.partitions import Partition
from flowstone.core.selection import select
from flowstone.core.state import State
from flowstone.errors import FlowStoneError, OptionsError, PartitionError, RunNotFoundError, command, selected

_PAUSE_SECONDS = 10.0


class Report(Protocol):
    """What verbs call with their progress."""

    def __call__(self, progress: Progress, /) -> None:
        """Take note of how far the run is."""


@contextmanager
def reporting(out: Output, title: str) -> Iterator[Report]:
    """Show the progress of one run while the block runs.

    Args:
        out: where to.
        title: what is being done.
    """
    console = out.stderr_console()
    if not console.is_terminal:
        yield _lines(out, one_line(title))
        return
    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}{task.fields[failed]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(one_line(title), total=None, speed="", failed="")
        started = time.monotonic()

        def show(progress: Progress) -> None:
            speed = f"{progress.done / max(0.001, time.monotonic() - started):.0f}/s"
            rest = ", ".join(("", *progress_in_words(progress)))
            bar.update(task, total=progress.total, completed=progress.done, failed=rest, speed=speed)

        yield show


def _lines(out: Output, title: str) -> Report:
    """Return a report that writes a line every ten seconds, and one as soon as it has to wait."""
    last = time.monotonic()
    waits = ""

    def show(progress: Progress) -> None:
        nonlocal last, waits
        now = time.monotonic()
        begins = bool(progress.waiting_for) and not waits
        waits = "; ".join(map(one_line, progress.waiting_for))
        if begins or now - last >= _PAUSE_SECONDS:
            last = now
            rest = ", ".join(progress_in_words(progress, reasons=len(progress.waiting_for)))
            out.note(f"{title}: {progress.done:,} of {progress.total:,}{f', {rest}' if rest else ''}")

    return show


def progress_in_words(progress: Progress, *, reasons: int = 1) -> list[str]:
    """Return how many steps failed, run and wait, and for what.

    Args:
        progress: how far a run is.
        reasons: how many reasons why it waits.

    Example:
        >>> counts = {State.COMPLETED: 5, State.FAILED: 1, State.RUNNING: 2, State.PENDING: 4}
        >>> progress_in_words(Progress("r1", 12, counts, ("no worker serves the queue 'gpu'",)))
        ['1 failed', '2 running', "4 waiting: no worker serves the queue 'gpu'"]
    """
    waiting = progress.total - progress.done - progress.running
    found = [f"{progress.failed:,} failed"] if progress.failed else []
    found += [f"{progress.running:,} running"] if progress.running else []
    why = "; ".join(map(one_line, progress.waiting_for[:reasons]))
    found += [f"{waiting:,} waiting" + (f": {why}" if why else "")] if waiting or why else []
    return found


Force = Annotated[bool, typer.Option("--force", help="Compute what is selected although it is committed.")]
ForceDeps = Annotated[bool, typer.Option("--force-deps", help="Compute what is upstream as well.")]
WaitForInputs = Annotated[
    bool | None,
    typer.Option(
        "--wait-for-inputs/--no-wait-for-inputs",
        help="Wait for inputs that are missing, instead of ending with an error. "
        "By default backfill does on a durable executor, materialize does not.",
        show_default=False,
    ),
]
AllowIncomplete = Annotated[
    bool,
    typer.Option("--allow-incomplete", help="Compute what is not over, from what is there so far."),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="auto, sync, async, serial, oban, or a registered one.",
        autocompletion=offers("executors"),
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Place the work and return; needs a durable executor.")]
Width = Annotated[int | None, typer.Option("--max-concurrency", min=1, help="Most steps at once.")]
_SHOWN_ERRORS = 10


@dataclass(frozen=True, slots=True)
class Chosen:
    """Options that `materialize` and `backfill` pass on to the verb as they are."""

    executor: str
    force: bool
    run_id: str
    allow_incomplete: bool
    about: Mapping[str, Any]

    def options(self) -> dict[str, Any]:
        """Return them as keywords."""
        return {
            "executor": self.executor,
            "force": self.force,
            "run_id": self.run_id,
            "allow_incomplete": self.allow_incomplete,
            **self.about,
        }


def materialize(
    session: Session,
    selection: SelectionArgument,
    *,
    partition: One = None,
    force: Force = False,
    force_deps: ForceDeps = False,
    executor: ExecutorName = "auto",
    max_concurrency: Width = None,
    wait_for_inputs: WaitForInputs = None,
    allow_incomplete: AllowIncomplete = False,
    config: ConfigValues = None,
    config_file: ConfigFile = None,
    tag: Tags = None,
    metadata: MetadataValues = None,
    no_wait: NoWait = False,
) -> int:
    """Compute one asset whose inputs are there (NAME), or what is missing upstream as well (+NAME, tag:x)."""
    flow = session.flow
    names = select(flow.graph, selection)
    requested = parse_one(flow.graph, leaves(flow.graph, names), partition)
    about = read_about(config, config_file, tag, metadata)
    how = Chosen(executor, force=force, run_id=new_run_id(), allow_incomplete=allow_incomplete, about=about)
    if selection in flow.graph and not force_deps:
        if no_wait:
            return _schedule_one(session, flow, selection, requested, how, wait_for_inputs=wait_for_inputs)
        return _materialize_one(session, flow, selection, requested, how, wait_for_inputs=bool(wait_for_inputs))
    if no_wait:
        handle = flow.materialize_all(
            selection,
            wait=False,
            partition=requested,
            force_deps=force_deps,
            max_concurrency=max_concurrency,
            **how.options(),
        )
        return show_placed(session, handle)
    run = partial(
        flow.materialize_all,
        selection,
        partition=requested,
        force_deps=force_deps,
        max_concurrency=max_concurrency,
        **how.options(),
    )
    return _wait_for_run(session, how, f"materialize {selection}", run)


def backfill(
    session: Session,
    selection: SelectionArgument,
    *,
    partitions: Several = None,
    first: First = None,
    last: Last = None,
    everything: Annotated[bool, typer.Option("--all", help="All complete partitions.")] = False,
    force: Force = False,
    executor: ExecutorName = "auto",
    max_concurrency: Width = None,
    wait_for_inputs: WaitForInputs = None,
    allow_incomplete: AllowIncomplete = False,
    config: ConfigValues = None,
    config_file: ConfigFile = None,
    tag: Tags = None,
    metadata: MetadataValues = None,
    no_wait: NoWait = False,
) -> int:
    """Compute many partitions of the selected assets (+NAME adds what is upstream)."""
    flow = session.flow
    names = select(flow.graph, selection)
    several = parse_several(flow.graph, names, listed=partitions, first=first, last=last)
    if everything and several is not None:
        raise OptionsError("Give either --all or the partitions, not both.")
    if not everything and several is None and any(flow.graph[name].partitions for name in names):
        raise OptionsError("Which partitions? Give --partitions A,B, or --from A --to B, or --all.")
    about = read_about(config, config_file, tag, metadata)
    how = Chosen(executor, force=force, run_id=new_run_id(), allow_incomplete=allow_incomplete, about=about)
    if no_wait:
        handle = flow.backfill(
            selection,
            wait=False,
            partitions=several,
            max_concurrency=max_concurrency,
            wait_for_inputs=wait_for_inputs,
            **how.options(),
        )
        return show_placed(session, handle)
    run = partial(
        flow.backfill,
        selection,
        partitions=several,
        max_concurrency=max_concurrency,
        wait_for_inputs=wait_for_inputs,
        **how.options(),
    )
    return _wait_for_run(session, how, f"backfill {selection}", run)


def _wait_for_run(session: Session, how: Chosen, title: str, run: Callable[..., RunResult]) -> int:
    """Run a verb with its progress shown; return the exit code."""
    with reporting(session.out, title) as report:
        result = _interruptible(session, how, lambda: run(on_progress=report))
    return show_result(session.out, session.flow, result)


def show_placed(session: Session, handle: RunHandle) -> int:
    """Write that a run was placed, and how to follow it; return the exit code."""
    note_without_worker(session, "oban")
    progress = handle.progress()
    if session.out.as_json:
        session.out.json({"run_id": handle.id, "state": handle.state.value, "total": progress.total})
    else:
        follow = command("status", handle.id)
        session.out.line(f"Run {handle.id} is placed: {progress.total:,} steps. Follow it: {follow}")
    return DONE


def show_result(out: Output, flow: FlowStone, result: RunResult) -> int:
    """Write the outcome of a run and return the exit code."""
    errors = result.errors
    if out.as_json:
        document: dict[str, object] = dict(result.to_json())
        document["errors"] = [_error_json(flow, target, text) for target, text in errors.items()]
        out.json(document)
    else:
        counts = ", ".join(f"{number:,} {state.value}" for state, number in sorted(result.record.counts.items()))
        out.line(f"Run {result.run_id} {result.state.value}: {counts or 'nothing to do'}.")
        for (name, key), text in list(errors.items())[:_SHOWN_ERRORS]:
            target = f"{name} {label(key, flow.graph[name])}".strip()
            out.note(f"{one_line(target)}: {one_line(error_line(text))}", style="red")
        if len(errors) > _SHOWN_ERRORS:
            out.note(
                f"... and {len(errors) - _SHOWN_ERRORS:,} more: see `{command('status', result.run_id)}`",
                style="red",
            )
    return DONE if result.ok else FAILED


def note_without_worker(session: Session, executor: str) -> bool:
    """Say when nobody is there to do durable work; return whether the work is durable."""
    durable = _is_durable(session.flow, executor)
    if durable and not any(worker["kind"] == "node" for worker in database.workers(session.flow.settings)):
        session.out.note("No worker is alive, so this waits for one: flowstone worker --app ...", style="yellow")
    return durable


def _schedule_one(
    session: Session,
    flow: FlowStone,
    name: str,
    partition: Partition,
    how: Chosen,
    *,
    wait_for_inputs: bool | None,
) -> int:
    if not _is_durable(flow, how.executor):
        raise OptionsError(
            "--no-wait: what runs in this process ends with it. Give the app a database (FLOWSTONE_DATABASE_URL), "
            "where workers do the work, or leave --no-wait out."
        )
    note_without_worker(session, how.executor)
    job = flow.schedule(name, partition=partition, wait_for_inputs=wait_for_inputs, **how.options())
    if session.out.as_json:
        state = flow.job_status(job).value
        session.out.json(
            {"step_id": str(job.id), "run_id": job.run_id, "state": state, "joined": job.deduplicated}
        )
    else:
        joined = " (the same work was under way)" if job.deduplicated else ""
        follow = command("status", str(job.id))
        session.out.line(f"Step {job.id} of run {job.run_id} is placed{joined}. Follow it: {follow}")
    return DONE


def _materialize_one(
    session: Session, flow: FlowStone, name: str, partition: Partition, how: Chosen, *, wait_for_inputs: bool
) -> int:
    if flow.graph[name].partitions is not None and partition is None:
        raise PartitionError(
            f"Asset {name!r} is partitioned: say which with --partition, or use "
            f"`{command('backfill', selected(name), all=True)}` for all of them."
        )
    try:
        done = _interruptible(
            session,
            how,
            lambda: flow.materialize(name, partition=partition, wait_for_inputs=wait_for_inputs, **how.options()),
        )
    except (Exception, SystemExit) as error:
        # what the asset raised is recorded; anything else is about the request and reported by the caller
        if not _failed_inside(flow, how.run_id):
            raise
        session.trace(error)
        return _show_failure(session.out, flow, how.run_id)
    if session.out.as_json:
        session.out.json({**done.to_json(), "partition": label(done.partition_key, flow.graph[name]) or None})
    else:
        _show_one(session.out, flow, done)
    return DONE


def _show_one(out: Output, flow: FlowStone, done: Materialization) -> None:
    target = f"{done.asset} {label(done.partition_key, flow.graph[done.asset])}".strip()
    skipped = f"skipped, {one_line(done.reason or 'there was nothing to do')}"
    verb = {State.REUSED: "reused, it was committed already", State.SKIPPED: skipped}
    time = took(done.started_at, done.finished_at) if done.state is State.COMPLETED else ""
    joined = " (the same work was under way)" if done.deduplicated else ""
    out.line(
        f"{one_line(target)}: {verb.get(done.state, done.state.value)}{f' in {time}' if time else ''}{joined}."
    )
    if done.stored is not None and done.stored.location:
        out.line(f"step {done.step_id}, run {done.run_id}, stored by {done.stored.io}: {done.stored.location}")


def _show_failure(out: Output, flow: FlowStone, run_id: str) -> int:
    step = flow.runs.steps(run_id)[-1]
    text = step.error or step.reason or step.state.value
    if out.as_json:
        shown = label(step.partition_key, flow.graph[step.asset]) or None
        document: dict[str, object] = {
            "asset": step.asset,
            "partition": shown,
            "run_id": run_id,
            "step_id": str(step.id),
            "state": step.state.value,
            "error": text,
        }
        out.json(document)
    out.note(text.rstrip())
    more = f" Details: {command('status', str(step.id))}" if flow.parts.store.shared else ""
    target = f"{step.asset} {label(step.partition_key, flow.graph[step.asset])}".strip()
    out.error(f"{one_line(target)} ended as {step.state.value}.{more}")
    return FAILED


def _failed_inside(flow: FlowStone, run_id: str) -> bool:
    """Whether the run was placed and a step of it ended without a result."""
    try:
        return flow.runs.get(run_id).state in (State.FAILED, State.CANCELLED)
    except (RunNotFoundError, FlowStoneError):
        return False


def _interruptible[T](session: Session, how: Chosen, call: Callable[[], T]) -> T:
    """Run a verb; say beforehand when nobody is there to do the work, and after Ctrl-C what goes on without us."""
    durable = note_without_worker(session, how.executor)
    try:
        return call()
    except KeyboardInterrupt:
        if durable:
            session.out.note(f"What was placed goes on without this. Stop it: {command('cancel', how.run_id)}")
        raise


def _is_durable(flow: FlowStone, executor: str) -> bool:
    """Whether the work outlives this process, on the executor that this name leads to."""
    name = flow.settings.executor if executor == "auto" else executor
    if name == "auto":
        return flow.parts.store.durable
    return Capability.DURABLE in flow.parts.executors.get(name).capabilities


def _error_json(flow: FlowStone, target: tuple[str, str], text: str) -> dict[str, object]:
    return {"asset": target[0], "partition": label(target[1], flow.graph[target[0]]) or None, "error": text}
