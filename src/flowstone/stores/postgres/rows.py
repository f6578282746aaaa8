"""Between Python values and rows of the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flowstone.core.outcome import Failed, Scattered, Skipped, Snoozed, Stopped, Succeeded, Suspended
from flowstone.core.route import ROUTE_KEY
from flowstone.core.state import State
from flowstone.core.step import Claim, Completion

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


def to_json(value: object) -> str:
    """Return compact JSON for a jsonb parameter."""
    return json.dumps(value, separators=(",", ":"), default=_plain, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


@dataclass(slots=True)
class EndedRows:
    """A group of completions as parameters of `ledger/finish`."""

    rows: list[dict[str, object]] = field(default_factory=list)
    payload_steps: list[int] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    deciding: set[int] = field(default_factory=set)
    asking: list[tuple[Claim, Suspended]] = field(default_factory=list)

    @classmethod
    def of(cls, completions: Sequence[Completion]) -> EndedRows:
        """Turn completions into rows."""
        ended = cls()
        for completion in completions:
            ended.rows.append(_ended(completion))
            outcome = completion.outcome
            if isinstance(outcome, Succeeded) and ROUTE_KEY in outcome.stored.metadata:
                ended.deciding.add(completion.claim.step_id)
            if isinstance(outcome, Succeeded) and outcome.stored.payload is not None:
                ended.payload_steps.append(completion.claim.step_id)
                ended.versions.append(outcome.stored.location.removeprefix(_INLINE))
                ended.payloads.append(outcome.stored.payload)
            elif isinstance(outcome, Suspended):
                ended.asking.append((completion.claim, outcome))
        return ended

    def parameters(self) -> dict[str, object]:
        """Return the parameters of the statement."""
        return {
            "rows": to_json(self.rows),
            "payload_steps": self.payload_steps,
            "versions": self.versions,
            "payloads": self.payloads,
        }

    @property
    def delays(self) -> dict[int, object]:
        """Delay of each step that goes on later, in seconds."""
        return {int(str(row["id"])): row["delay_seconds"] for row in self.rows}


def newest_of_each(completions: Sequence[Completion]) -> list[Completion]:
    """Return the completions without those of attempts that a later one in the same group has replaced."""
    newest: dict[int, int] = {}
    for one in completions:
        newest[one.claim.step_id] = max(one.claim.token, newest.get(one.claim.step_id, 0))
    return [one for one in completions if one.claim.token == newest[one.claim.step_id]]


def _ended(completion: Completion) -> dict[str, object]:
    inputs = [{"parameter": one.parameter, "step_id": one.step_id} for one in completion.inputs]
    row: dict[str, object] = {
        "id": completion.claim.step_id,
        "token": completion.claim.token,
        "inputs": inputs or None,
        "gives_back": False,
        "delay_seconds": None,
        "finished_at": completion.finished_at,
        "ran": completion.ran,
        "code_version": completion.code_version,
    }
    match completion.outcome:
        case Succeeded(stored=stored):
            row |= {"state": State.COMPLETED, "output": stored.to_json()}
        case Failed(error=error, error_type=error_type, data=data):
            delay = completion.retry_in_seconds
            state = State.FAILED if delay is None else State.RETRYING
            row |= {"state": state, "error": error, "error_type": error_type, "delay_seconds": delay}
            if data is not None:
                row["error_data"] = data
        case Scattered():
            row |= {"state": State.WAITING, "reason": completion.outcome.reason, "gives_back": True}
        case Snoozed(after_seconds=seconds, reason=reason, for_inputs=for_inputs):
            state = State.WAITING if for_inputs else State.SCHEDULED
            row |= {"state": state, "reason": reason, "delay_seconds": seconds, "gives_back": True}
        case Suspended(reason=reason):
            row |= {"state": State.AWAITING_APPROVAL, "reason": reason, "gives_back": True}
        case Skipped(reason=reason):
            row |= {"state": State.SKIPPED, "reason": reason}
        case Stopped(reason=reason):
            row |= {"state": State.CANCELLED, "reason": reason}
    return row


def claim_from(row: Sequence[Any]) -> Claim:
    """Return the claim in (id, run, asset, partition, attempt, max_attempts, token, started_at, forced)."""
    return Claim(*row[:9])
