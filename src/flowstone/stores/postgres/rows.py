"""Between Python values and rows of the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from flowstone.core.approval import Approval
from flowstone.core.outcome import Failed, Scattered, Skipped, Snoozed, Stopped, Succeeded, Suspended
from flowstone.core.partitions import PartitionKey
from flowstone.core.route import ROUTE_KEY
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, make_attempt
from flowstone.telemetry import Event

_INLINE = "inline:"

JOB_STATES = {
    State.COMPLETED: "completed",
    State.REUSED: "completed",
    State.SKIPPED: "completed",
    State.FAILED: "discarded",
    State.UPSTREAM_FAILED: "discarded",
    State.CANCELLED: "cancelled",
    State.RETRYING: "retryable",
    State.SCHEDULED: "scheduled",
    State.WAITING: "scheduled",
    State.PENDING: "available",
    # it rests; whoever decides places it anew
    State.AWAITING_APPROVAL: "suspended",
}
"""Which state of Oban's row follows from the state of its step."""


@dataclass(slots=True)
class StartedStep:
    """The columns of each statement that starts attempts, before those that it has more; see `Attempt`."""

    step_id: int
    asset: str
    partition_key: PartitionKey
    attempt: int
    max_attempts: int
    token: int
    started_at: datetime
    forced: bool

    def started(
        self,
        run: RunInfo,
        *,
        approvals: tuple[Approval, ...] = (),
        queued_seconds: float | None = None,
        job_id: int = 0,
        snoozes: int = 0,
        age_seconds: float = 0.0,
        deps_timeout_seconds: float = 0.0,
        shape: str | None = None,
        keys: str | None = None,
    ) -> Attempt:
        """Return the attempt that started, with what only some of the statements know of it."""
        return make_attempt(
            step_id=self.step_id,
            run_id=run.id,
            asset=self.asset,
            partition_key=self.partition_key,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            token=self.token,
            started_at=self.started_at,
            forced=self.forced,
            approvals=approvals,
            run=run,
            queued_seconds=None if queued_seconds is None else max(0.0, queued_seconds),
            job_id=job_id,
            snoozes=snoozes,
            age_seconds=age_seconds,
            deps_timeout_seconds=deps_timeout_seconds,
            shape=shape,
            keys=keys,
        )


class MovedStep(NamedTuple):
    """A step that moved in this transaction.

    Args:
        id: the step.
        run_id: its run.
        state: its state now.
        job_id: its row on Oban's queue, when it has one.
        limits: its fleet-wide limits, of which it may hold slots.
    """

    id: int
    run_id: str
    state: State
    job_id: int | None
    limits: Mapping[str, int | str] | None = None


class CancelledStep(NamedTuple):
    """A step that was cancelled, or that runs and is to stop; see `MovedStep`.

    Args:
        id: the step.
        run_id: its run.
        state: its state now.
        job_id: its row on Oban's queue, when it has one.
        limits: its fleet-wide limits.
        had_requested: whether it waited for an approval.
        asset: its asset.
        partition_key: its partition.
    """

    id: int
    run_id: str
    state: State
    job_id: int | None
    limits: Mapping[str, int | str] | None
    had_requested: bool
    asset: str
    partition_key: PartitionKey

    @property
    def moved(self) -> MovedStep:
        """The step as one that moved."""
        return MovedStep(self.id, self.run_id, self.state, self.job_id, self.limits)

    def event(self) -> Event:
        """Return `step.cancelled`."""
        about = {"asset": self.asset, "partition": self.partition_key, "run_id": self.run_id}
        return Event("step.cancelled", {}, about | {"step_id": str(self.id)})


class ReleasedStep(NamedTuple):
    """A step that may go on: it has less to wait for, or was decided.

    Args:
        id: the step.
        run_id: its run.
        state: its state now.
        job_id: its new row on Oban's queue, when it got one; 0 when workers begin it without one.
        durable: whether its run is on the queue.
        queue: its queue.
    """

    id: int
    run_id: str
    state: State
    job_id: int | None
    durable: bool
    queue: str


class RunCounters(NamedTuple):
    """The counters of a run after a transaction changed them; its row is locked.

    Args:
        run_id: the run.
        open_steps: steps that are not over.
        watched: whether a caller waits for its end.
        durable: whether it is on the queue.
        max_concurrency: the size of its window, when it has one.
        active_steps: steps in the window.
        releases_step: the step that goes on when this run of items is over.
        failures: steps that failed.
        allowed_failures: how many items may fail, when that is known.
    """

    run_id: str
    open_steps: int
    watched: bool
    durable: bool
    max_concurrency: int | None
    active_steps: int
    releases_step: int | None
    failures: int
    allowed_failures: int | None

    @property
    def is_beyond(self) -> bool:
        """Whether more items failed than may."""
        return self.allowed_failures is not None and self.failures > self.allowed_failures


def to_json(value: object) -> str:
    """Return compact JSON for a jsonb parameter."""
    return _ENCODER.encode(value)


def _quick_json(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the same for rows in which all numbers are finite, as all are that were made recordable."""
    if _orjson is None:
        return to_json(rows)
    try:
        text: str = _orjson.dumps(rows).decode()
    except TypeError:  # what it cannot write the standard library may, or says why not
        return to_json(rows)
    return text


def to_ids(ids: Iterable[int]) -> str:
    """Return whole numbers as an array for the server; the driver would write each of them by itself.

    Example:
        >>> to_ids([1, 2]), to_ids([])
        ('{1, 2}', '{}')
    """
    return f"{{{str(list(ids))[1:-1]}}}"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


_orjson: Any = import_module("orjson") if find_spec("orjson") is not None else None
"""It comes with Oban."""
# made once: json.dumps with options makes one for each call
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain, allow_nan=False)


@dataclass(slots=True)
class EndedRows:
    """A group of completions as parameters of `ledger/finish`."""

    rows: list[dict[str, object]] = field(default_factory=list)
    payload_steps: list[int] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    deciding: set[int] = field(default_factory=set)
    asking: list[tuple[Attempt, Suspended]] = field(default_factory=list)

    @classmethod
    def of(cls, completions: Sequence[AttemptResult]) -> EndedRows:
        """Turn completions into rows."""
        ended = cls()
        for completion in completions:
            ended.rows.append(_ended(completion))
            outcome = completion.outcome
            if isinstance(outcome, Succeeded):
                stored = outcome.stored
                if stored.metadata and ROUTE_KEY in stored.metadata:
                    ended.deciding.add(completion.attempt.step_id)
                if stored.payload is not None:
                    ended.payload_steps.append(completion.attempt.step_id)
                    ended.versions.append(stored.location.removeprefix(_INLINE))
                    ended.payloads.append(stored.payload)
            elif isinstance(outcome, Suspended):
                ended.asking.append((completion.attempt, outcome))
        return ended

    def parameters(self) -> dict[str, object]:
        """Return the parameters of the statement."""
        return {
            "rows": _quick_json(self.rows),
            "payload_steps": to_ids(self.payload_steps),
            "versions": self.versions,
            "payloads": self.payloads,
        }

    @property
    def delays(self) -> dict[int, object]:
        """Delay of each step that goes on later, in seconds."""
        return {int(str(row["id"])): row["delay_seconds"] for row in self.rows if "delay_seconds" in row}


def newest_of_each(completions: Sequence[AttemptResult]) -> list[AttemptResult]:
    """Return the completions without those of attempts that a later one in the same group has replaced."""
    newest: dict[int, int] = {}
    for one in completions:
        newest[one.attempt.step_id] = max(one.attempt.token, newest.get(one.attempt.step_id, 0))
    return [one for one in completions if one.attempt.token == newest[one.attempt.step_id]]


def _ended(completion: AttemptResult) -> dict[str, object]:
    """Return the row of a completion; what is absent is NULL, and nearly everything is for the usual end."""
    attempt = completion.attempt
    row: dict[str, object] = {
        "id": attempt.step_id,
        "token": attempt.token,
        "releases": False,
        "finished_at": completion.finished_at.isoformat(),
        "ran": completion.ran,
    }
    if completion.inputs:
        row["inputs"] = [{"parameter": one.parameter, "step_id": one.step_id} for one in completion.inputs]
    if completion.code_version is not None:
        row["code_version"] = completion.code_version
    match completion.outcome:
        case Succeeded(stored=stored):
            row["state"], row["output"] = "completed", stored.to_json()
        case Failed(error=error, error_type=error_type, data=data):
            delay = completion.retry_in_seconds
            state = State.FAILED if delay is None else State.RETRYING
            row |= {"state": state, "error": error, "error_type": error_type, "delay_seconds": delay}
            if data is not None:
                row["error_data"] = data
        case Scattered():
            row |= {"state": State.WAITING, "reason": completion.outcome.reason, "releases": True}
        case Snoozed(after_seconds=seconds, reason=reason, for_inputs=for_inputs):
            state = State.WAITING if for_inputs else State.SCHEDULED
            row |= {"state": state, "reason": reason, "delay_seconds": seconds, "releases": True}
        case Suspended(reason=reason):
            row |= {"state": State.AWAITING_APPROVAL, "reason": reason, "releases": True}
        case Skipped(reason=reason):
            row |= {"state": State.SKIPPED, "reason": reason}
        case Stopped(reason=reason):
            row |= {"state": State.CANCELLED, "reason": reason}
    return row
