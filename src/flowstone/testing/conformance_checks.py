"""Assets with checks for the executor conformance suite; what they make depends on marks that tests leave."""

from __future__ import annotations

import asyncio

from flowstone.core.asset import asset
from flowstone.core.check import CheckResult, check
from flowstone.core.check_context import CheckContext
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.retry import RetryPolicy
from flowstone.testing.marks import Marks

SPOILED = "spoiled"
"""Mark under which the data is bad from now on."""

HOSTILE_FINDING = "nul \x00 surrogate \ud800 \x1b[31mred\x1b[0m <script>"

_quick = RetryPolicy(max_attempts=3, backoff_seconds=0.0, jitter=0.0)


@asset(retry=_quick)
def ledger(context: AssetContext) -> list[int]:
    """A list of positive numbers, unless it was spoiled."""
    marks = Marks()
    marks.leave("ledger")
    context.metadata["source"] = "books"
    return [1, -2, 3] if marks.count(SPOILED) else [1, 2, 3]


@asset
def balance(ledger: list[int]) -> int:
    """Reads what is checked."""
    Marks().leave("balance")
    return sum(ledger)


@check(ledger, blocking=True)
def positive(context: CheckContext, ledger: list[int]) -> CheckResult:
    """Every number is positive."""
    negative = [number for number in ledger if number < 0]
    facts = {"negative": len(negative), "attempt": context.attempt, "source": context.metadata["source"]}
    return CheckResult(not negative, description="negative numbers" if negative else "", metadata=facts)


@check(ledger, blocking=True, severity="warning")
async def short(ledger: list[int]) -> bool:
    """Fails always, and says so without blocking."""
    await asyncio.sleep(0)
    return len(ledger) > 10


@check(ledger)
def sealed(context: CheckContext) -> CheckResult:
    """Fails always, but does not block; it hears what is recorded, not the value."""
    return CheckResult(False, description=HOSTILE_FINDING, metadata=dict(context.metadata))


@asset(partitions=StaticPartitions(["raises", "nonsense", "exits", "table", "stalls", "good"]), retry=_quick)
def judged(context: AssetContext) -> object:
    """A value per way in which a check can go wrong."""
    Marks().leave("judged")
    return context.partition


@check(judged, blocking=True, timeout=0.05)
def odd(context: CheckContext, judged: object) -> object:
    """Goes wrong as the partition says."""
    match context.partition:
        case "raises":
            raise LookupError("the check itself is broken")
        case "nonsense":
            return None
        case "exits":
            raise SystemExit(3)
        case "table":
            return CheckResult(True, metadata={"rows": list(range(100_000))})
        case "stalls":
            Marks().wait("gate", timeout_seconds=60)
    return judged == "good"


@asset(retry=_quick)
def repaired(context: AssetContext) -> int:
    """Is good in its second attempt."""
    return context.attempt


@check(repaired, blocking=True, retry=True)
def second(repaired: int) -> bool:
    """Recomputing it helps."""
    return repaired > 1


CHECKED_ASSETS = [ledger, balance, judged, repaired]
CHECKS = [positive, short, sealed, odd, second]
