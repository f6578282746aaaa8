"""How far a run is, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from flowstone.app.results import Progress
from flowstone.cli.output import Output, one_line

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
            failed = f" {progress.failed} failed" if progress.failed else ""
            speed = f"{progress.done / max(0.001, time.monotonic() - started):.0f}/s"
            waits = f" waits: {one_line(progress.waiting_for[0])}" if progress.waiting_for else ""
            bar.update(task, total=progress.total, completed=progress.done, failed=failed + waits, speed=speed)

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
            failed = f", {progress.failed} failed" if progress.failed else ""
            held_up = f", waits: {waits}" if waits else ""
            out.note(f"{title}: {progress.done} of {progress.total}{failed}{held_up}")

    return show
