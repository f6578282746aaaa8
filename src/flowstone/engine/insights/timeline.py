"""The time line of a run: when its steps ran, and which of them it could not have been over sooner without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.core.insights.runs import StepGroup, StepSpan
from flowstone.core.partitions import decode_partition, partition_label
from flowstone.core.state import State

_ROWS = 30
NEVER = datetime.max.replace(tzinfo=UTC)
WORST_FIRST = (
    State.FAILED,
    State.UPSTREAM_FAILED,
    State.AWAITING_APPROVAL,
    State.CANCELLING,
    State.RETRYING,
    State.RUNNING,
    State.PENDING,
    State.SCHEDULED,
    State.WAITING,
    State.CANCELLED,
    State.SKIPPED,
    State.COMPLETED,
    State.REUSED,
)
"""States of steps, what matters most first."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the time line.

    Args:
        asset: the asset.
        partition: the partition of the step, where the row is one; empty without.
        state: its state.
        start: when it began; None before that.
        end: when it was over; None while it is not.
        step: the step, where the row is one.
        is_critical: whether the run could not have been over sooner without it.
    """

    asset: str
    partition: str
    state: str
    start: datetime | None
    end: datetime | None
    step: int | None
    is_critical: bool


type Label = Callable[[str, str], str]
"""Returns the encoded partition of an asset as people write it: `AssetGraph.label`."""


def plain_label(_asset: str, key: str) -> str:
    """Return a partition of an asset that nobody declares; empty for none."""
    return partition_label(decode_partition(key)) if key else ""


def worst_of(counts: Iterable[State]) -> State:
    """Return the state that matters most."""
    return min(counts, key=WORST_FIRST.index, default=State.PENDING)


def bars_of(
    groups: Sequence[StepGroup], spans: Sequence[StepSpan], now: datetime, label: Label = plain_label
) -> tuple[tuple[Bar, ...], int, float | None]:
    """Return rows of the time line, how many more there are, and how long the critical path took."""
    if not spans:
        rows = [
            Bar(
                asset=one.asset,
                partition="",
                state=worst_of(one.counts).value,
                start=one.started_at,
                end=one.finished_at if all(state.is_terminal for state in one.counts) else None,
                step=None,
                is_critical=False,
            )
            for one in sorted(groups, key=lambda one: (one.started_at or NEVER, one.asset))
            if one.started_at is not None
        ]
        return tuple(rows[:_ROWS]), max(0, len(rows) - _ROWS), None
    path = critical_path(spans, now)
    critical = {span.step_id for span in path}
    rows = [
        Bar(
            asset=span.asset,
            partition=label(span.asset, span.partition_key),
            state=span.state.value,
            start=span.started_at,
            end=span.finished_at,
            step=span.step_id,
            is_critical=span.step_id in critical,
        )
        for span in sorted(spans, key=lambda span: (span.started_at or NEVER, span.step_id))
        if span.started_at is not None
    ]
    seconds = sum(_seconds(span, now) for span in path) if path else None
    return tuple(rows[:_ROWS]), max(0, len(rows) - _ROWS), seconds


def critical_path(spans: Sequence[StepSpan], now: datetime) -> tuple[StepSpan, ...]:
    """Return the chain of steps, each waiting for the one before, that took seconds_until in all.

    Args:
        spans: the steps; ids of inputs are lower than those of what reads them, or are not among them.
        now: the present, for steps that run.
    """
    seconds_until: dict[int, float] = {}
    before: dict[int, int | None] = {}
    by_id = {span.step_id: span for span in spans}
    for span in sorted(spans, key=lambda span: span.step_id):
        parents = [one for one in span.waits_for if one in seconds_until]
        parent = max(parents, key=lambda one: seconds_until[one], default=None)
        before[span.step_id] = parent
        seconds_until[span.step_id] = _seconds(span, now) + (0.0 if parent is None else seconds_until[parent])
    at: int | None = max(seconds_until, key=lambda one: seconds_until[one], default=None)
    path = []
    while at is not None:
        path.append(by_id[at])
        at = before[at]
    return tuple(reversed(path))


def _seconds(span: StepSpan, now: datetime) -> float:
    if span.started_at is None:
        return 0.0
    end = span.finished_at if span.state.is_terminal else now
    return max(0.0, ((end or now) - span.started_at).total_seconds())
