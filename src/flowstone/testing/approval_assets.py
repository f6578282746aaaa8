"""Assets of the executor conformance suite that ask for approval."""

from __future__ import annotations

from typing import Any

from flowstone.core.approval import ON_TIMEOUT
from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.outcome import AwaitApproval
from flowstone.core.retry import RetryPolicy
from flowstone.testing.marks import Marks


@asset
def asks(context: AssetContext) -> dict[str, Any]:
    """Does the expensive part once, asks, and goes on from there."""
    approval = context.approval
    if approval is None:
        Marks().leave("asks-before")
        raise AwaitApproval("Publish 3 rows?", data={"rows": 3}, resume={"sum": 6})
    Marks().leave("asks-after")
    return {
        "resume": approval.resume,
        "by": approval.decided_by,
        "comment": approval.comment,
        "attempt": context.attempt,
    }


@asset
def below_asks(asks: dict[str, Any]) -> int:
    """Waits for the decision as well."""
    Marks().leave("below_asks")
    total = asks["resume"]["sum"]
    assert isinstance(total, int)
    return total


@asset(isolation="process")
def asks_apart(context: AssetContext) -> object:
    """Asks from a process of its own, and is answered there."""
    if context.approval is None:
        raise AwaitApproval("Go on?", resume=["from", "afar"])
    return context.approval.resume


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0.01, jitter=0.0))
def asks_twice(context: AssetContext) -> AwaitApproval | list[str | None]:
    """Has two gates, and an accident after the second one."""
    if "budget" not in context.approvals:
        return AwaitApproval("May it cost that much?", gate="budget")
    if "legal" not in context.approvals:
        return AwaitApproval("Is it legal?", gate="legal")
    if context.attempt == 1:
        raise OSError("an accident")
    return [one.decided_by for one in context.approvals.values()]


@asset
def asks_for_ever() -> None:
    """Does not look whether it was answered."""
    raise AwaitApproval("Please?")


@asset(partitions=StaticPartitions(ON_TIMEOUT))
def asks_nobody(context: AssetContext) -> str:
    """Nobody will answer; what that means is in the partition."""
    if context.approval is None:
        raise AwaitApproval("Go on?", timeout=0.05, on_timeout=context.partition)  # type: ignore[arg-type]
    return context.approval.state.value


APPROVAL_ASSETS = [asks, below_asks, asks_apart, asks_twice, asks_for_ever, asks_nobody]
"""All of them."""
