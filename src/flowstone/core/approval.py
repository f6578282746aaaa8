"""Approvals: a step that asked a person, and what the person said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, get_args

from flowstone.core.clean import clean_value
from flowstone.core.output import JsonValue, type_name
from flowstone.core.partitions import PartitionKey
from flowstone.core.zones import utc_text
from flowstone.errors import ApprovalDecidedError, SerializationError, command
from flowstone.telemetry import Event

type OnTimeout = Literal["reject", "approve", "skip"]
"""What it means that nobody decided in time."""

ON_TIMEOUT: tuple[str, ...] = get_args(OnTimeout.__value__)
DEFAULT_GATE = "approval"
DEFAULT_TIMEOUT_SECONDS = 3600.0
MAX_TIMEOUT_SECONDS = 31_536_000.0
MAX_JSON = 1_000_000
"""Characters of JSON that a request may carry as `data`, and as `resume`."""


class ApprovalState(StrEnum):
    """Where a request for approval stands.

    Example:
        >>> ApprovalState("pending").is_decided
        False
    """

    PENDING = "pending"
    """Nobody has decided yet."""
    APPROVED = "approved"
    """A person approved."""
    REJECTED = "rejected"
    """A person rejected."""
    EXPIRED = "expired"
    """Nobody decided in time; `on_timeout` says what that means."""
    CANCELLED = "cancelled"
    """The step was cancelled while it waited."""

    @property
    def is_decided(self) -> bool:
        """Whether nothing more can be said about it."""
        return self is not ApprovalState.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request for approval and, once there is one, the decision.

    Args:
        id: names it, for `flowstone approve ID`.
        step_id: the step that waits, or waited.
        run_id: its run.
        asset: asset name.
        partition_key: encoded partition; empty without partitions.
        gate: which of the asset's gates this is.
        attempt: the attempt that asked; it was released.
        message: what the person is asked.
        data: what the person is shown.
        resume: what the function left for its continuation.
        state: where it stands.
        on_timeout: what it means when nobody decides in time.
        created_at: when it was asked.
        expires_at: until when a decision counts.
        decided_at: when it was decided, expired or cancelled.
        decided_by: who decided; None when nobody did.
        comment: what they said about it.
    """

    id: int
    step_id: int
    run_id: str
    asset: str
    partition_key: PartitionKey
    gate: str = DEFAULT_GATE
    attempt: int = 1
    message: str
    data: JsonValue = None
    resume: Any = None
    state: ApprovalState = ApprovalState.PENDING
    on_timeout: OnTimeout = "reject"
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    comment: str | None = None

    @property
    def partition(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key

    @property
    def approved(self) -> bool:
        """Whether the step may go on: a person said so, or silence means so."""
        return self.state is ApprovalState.APPROVED or self._expired_as("approve")

    @property
    def rejected(self) -> bool:
        """Whether the step failed of it: a person said so, or silence means so."""
        return self.state is ApprovalState.REJECTED or self._expired_as("reject")

    def _expired_as(self, meaning: OnTimeout) -> bool:
        return self.state is ApprovalState.EXPIRED and self.on_timeout == meaning

    def waits(self) -> str:
        """Return why the step waits, for people.

        Example:
            >>> from datetime import UTC
            >>> at = datetime(2024, 1, 1, tzinfo=UTC)
            >>> made = {"step_id": 1, "run_id": "r", "asset": "a", "partition_key": "", "message": "Pay?"}
            >>> Approval(id=7, created_at=at, expires_at=at, **made).waits()  # doctest: +ELLIPSIS
            'it waits for approval 7 (Pay?) since 2024-01-01 00:00:00 UTC, ...: `flowstone approve 7`'
        """
        shown = " ".join(self.message.split())
        shown = shown if len(shown) <= 200 else shown[:199] + "…"
        since, until = utc_text(self.created_at), utc_text(self.expires_at)
        what = f"it waits for approval {self.id} ({shown}) since {since}, until {until}"
        return f"{what}: `{command('approve', str(self.id))}`"

    def verdict(self) -> str:
        """Return what came of it, for people: who said what, and when.

        Example:
            >>> from datetime import UTC
            >>> at = datetime(2024, 1, 1, tzinfo=UTC)
            >>> made = {"step_id": 1, "run_id": "r", "asset": "a", "partition_key": "", "message": "Pay?"}
            >>> end = {"state": ApprovalState.REJECTED, "decided_by": "ann", "decided_at": at, "comment": "no"}
            >>> Approval(id=7, created_at=at, expires_at=at, **made, **end).verdict()
            'rejected by ann at 2024-01-01 00:00:00 UTC: no'
        """
        if self.state is ApprovalState.PENDING:
            return "not decided yet"
        by = f" by {self.decided_by}" if self.decided_by else ""
        at = f" at {utc_text(self.decided_at)}" if self.decided_at else ""
        means = f", which means: {self.on_timeout}" if self.state is ApprovalState.EXPIRED else ""
        return f"{self.state.value}{by}{at}{means}" + (f": {self.comment}" if self.comment else "")

    def failure(self) -> tuple[str, str]:
        """Return error and kind of error of the step that was not let go on."""
        made = f"Approval {self.id} at the gate {self.gate!r} ({self.message})"
        kind = "ApprovalExpired" if self.state is ApprovalState.EXPIRED else "ApprovalRejected"
        return f"{made} was {self.verdict()}", kind

    def too_late(self) -> ApprovalDecidedError:
        """Return the refusal of another decision."""
        return ApprovalDecidedError(
            self.id,
            state=self.state.value,
            verdict=self.verdict(),
            decided_by=self.decided_by,
            decided_at=self.decided_at,
        )


def decided_event(approval: Approval) -> Event:
    """Return `approval.decided` of a request that is over."""
    about = {
        "asset": approval.asset,
        "partition": approval.partition_key,
        "run_id": approval.run_id,
        "step_id": str(approval.step_id),
        "gate": approval.gate,
        "approval_id": approval.id,
        "state": approval.state.value,
        "decided_by": approval.decided_by,
    }
    return Event("approval.decided", {}, about)


def portable_json(value: JsonValue, what: str) -> str:
    """Return a value as JSON text from which an equal value comes back.

    Args:
        value: plain data.
        what: the argument that holds it, for the error.

    Raises:
        SerializationError: it is something else than plain JSON, or too much of it.

    Example:
        >>> portable_json({"rows": 3}, "data")
        '{"rows": 3}'
    """
    remedy = "Give None, bool, numbers, text, lists, and dicts with text keys."
    try:
        text = json.dumps(value, allow_nan=False)
        same = bool(json.loads(text) == value)
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(
            f"AwaitApproval({what}=...) is not plain JSON ({error})",
            path=what,
            type_name=type_name(value),
            remedy=remedy,
        ) from None
    if not same:
        problem = (
            f"AwaitApproval({what}=...) would come back as something else from JSON, such as a list for a tuple"
        )
        raise SerializationError(problem, path=what, type_name=type_name(value), remedy=remedy)
    if len(text) > MAX_JSON:
        raise SerializationError(
            f"AwaitApproval({what}=...) is {len(text):,} characters of JSON; at most {MAX_JSON:,} are kept",
            path=what,
            type_name=type_name(value),
            remedy="Store it as an asset of its own, and give a reference to it.",
        )
    return text


def json_to_show(value: object, what: str) -> str:
    """Return a value as JSON text for people: as it is when JSON can hold it, else in its plain form.

    Args:
        value: what the person is shown: plain data, dates, numbers of NumPy and so on, see `clean_metadata`.
        what: the argument that holds it, for the error.

    Raises:
        SerializationError: it has no plain form, or is too long.

    Example:
        >>> json_to_show({"day": datetime(2024, 1, 5)}, "data")
        '{"day": "2024-01-05T00:00:00"}'
    """
    try:
        text = json.dumps(value, allow_nan=False)
        if json.loads(text) == value:
            return portable_json(value, what)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001, S110 - what JSON does not know has a plain form, or says why not
        pass
    return portable_json(clean_value(value, what, max_characters=MAX_JSON), what)


def check_portable(text: str, what: str) -> None:
    """Refuse what is no JSON text.

    Raises:
        SerializationError: it is something else.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(
            f"{what} is no JSON text ({error})",
            path=what,
            type_name=type_name(text),
            remedy="Use AwaitApproval(...).",
        ) from None
