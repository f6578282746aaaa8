"""What is recorded of a check that ran."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from flowstone.core.output import JsonValue


class Severity(StrEnum):
    """How much a failed check matters.

    Example:
        >>> Severity("warning") is Severity.WARNING
        True
    """

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecord:
    """The result of one check on one value.

    Args:
        check: name of the check.
        asset: asset whose value was checked.
        partition: its encoded partition.
        step_id: step that computed the value.
        attempt: attempt of that step.
        token: fencing token of that attempt; None for a check that was run again later. Equal results may
            differ in it.
        passed: whether the value is as it should be.
        severity: how much it matters.
        blocking: whether a failure kept (or would have kept) the value from being published.
        description: what the check said, cleaned.
        error: cleaned traceback when the check itself raised or answered with nonsense.
        metadata: small JSON facts.
        started_at: when it started.
        took_seconds: how long it ran.
    """

    check: str
    asset: str
    partition: str
    step_id: int
    attempt: int
    passed: bool
    started_at: datetime
    token: int | None = field(default=None, compare=False, repr=False)
    severity: Severity = Severity.ERROR
    blocking: bool = False
    description: str = ""
    error: str | None = None
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    took_seconds: float = 0.0

    @property
    def blocks(self) -> bool:
        """Whether this result keeps the value from being published."""
        return self.blocking and not self.passed and self.severity is Severity.ERROR

    def to_json(self) -> dict[str, JsonValue]:
        """Return the result as plain data."""
        return {
            "check": self.check,
            "asset": self.asset,
            "partition": self.partition,
            "step_id": str(self.step_id),
            "attempt": self.attempt,
            "passed": self.passed,
            "severity": self.severity.value,
            "blocking": self.blocking,
            "description": self.description,
            "error": self.error,
            "metadata": self.metadata,
            "started_at": self.started_at.isoformat(),
            "took_seconds": self.took_seconds,
        }
