"""What a store says of the steps of a run, grouped so that a run of any size is a few rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State


@dataclass(frozen=True, slots=True)
class StepGroup:
    """The steps of one asset of a run, own and joined.

    Args:
        asset: its name.
        counts: how many are in each state; partitions that nobody has begun are pending.
        started_at: when the first of them started; None when that is not known.
        finished_at: when the last of them ended so far.
        busy_seconds: how long they took, added up; None when that is not known.
    """

    asset: str
    counts: Mapping[State, int]
    started_at: datetime | None = None
    finished_at: datetime | None = None
    busy_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FailedStep:
    """A step that failed.

    Args:
        step_id: the step.
        asset: its asset.
        partition_key: its encoded partition.
        error_type: the class of the error.
        error: its text, cut.
        finished_at: when.
    """

    step_id: int
    asset: str
    partition_key: PartitionKey
    error_type: str | None
    error: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepSpan:
    """When a step ran.

    Args:
        step_id: the step.
        asset: its asset.
        partition_key: its encoded partition.
        state: its state.
        placed_at: when it was placed.
        started_at: when its newest attempt started.
        finished_at: when it was over.
        attempt: the number of that attempt.
        waits_for: steps of which it needs the results, as far as they are steps of the run.
    """

    step_id: int
    asset: str
    partition_key: PartitionKey
    state: State
    placed_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    waits_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Strip:
    """The states of the partitions of one asset in a run, in the order in which they were asked for.

    Args:
        asset: its name.
        codes: one character for each partition; see `STRIP_CODES`.
    """

    asset: str
    codes: str


STRIP_CODES: Mapping[str, str] = {
    "c": "completed",
    "r": "reused",
    "f": "failed",
    "u": "upstream_failed",
    "x": "cancelled",
    "s": "skipped",
    "a": "running",
    "w": "waiting",
    "n": "unstarted",
}
"""What the characters of a strip stand for."""


def strip_code(state: State) -> str:
    """Return the character of a state.

    Example:
        >>> strip_code(State.COMPLETED), strip_code(State.RETRYING)
        ('c', 'w')
    """
    return _CODES.get(state, "w")


_CODES = {
    State.COMPLETED: "c",
    State.REUSED: "r",
    State.FAILED: "f",
    State.UPSTREAM_FAILED: "u",
    State.CANCELLED: "x",
    State.SKIPPED: "s",
    State.RUNNING: "a",
    State.CANCELLING: "a",
}
