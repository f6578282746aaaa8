"""The items that the steps of a run scattered, in listings."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.cli.output import Column, Output
from flowstone.core.state import State
from flowstone.core.step import RunRecord


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
