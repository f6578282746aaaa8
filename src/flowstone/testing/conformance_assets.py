"""The assets on which the executor conformance suite runs; importable, so that workers find them too.

They leave marks (see `flowstone.testing.marks`) instead of sharing variables with the test. Start a worker on them
with `flowstone worker --app flowstone.testing.conformance_assets:flow`. In order: assets with checks, with
approvals, with routes, scatters, and plain ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from typing import Any

from flowstone.app import FlowStone
from flowstone.core.approval import ON_TIMEOUT
from flowstone.core.asset import asset
from flowstone.core.check import CheckContext, CheckResult, check
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.dependency import dep
from flowstone.core.mappings import AllPartitions
from flowstone.core.outcome import AwaitApproval, Fatal, RetryLater, Skip
from flowstone.core.retry import RetryPolicy
from flowstone.core.route import Route
from flowstone.core.scatter import scatter
from flowstone.engine.scatter import Gathered
from flowstone.testing.marks import Marks

SPOILED = "spoiled"
"""Mark under which the data is bad from now on."""

HOSTILE_FINDING = "nul \x00 surrogate \ud800 \x1b[31mred\x1b[0m <script>"

_at_once = RetryPolicy(max_attempts=3, backoff_seconds=0.0, jitter=0.0)


@asset(retry=_at_once)
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


@asset(partitions=StaticPartitions(["raises", "nonsense", "exits", "table", "stalls", "good"]), retry=_at_once)
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


@asset(retry=_at_once)
def repaired(context: AssetContext) -> int:
    """Is good in its second attempt."""
    return context.attempt


@check(repaired, blocking=True, retry=True)
def second(repaired: int) -> bool:
    """Recomputing it helps."""
    return repaired > 1


CHECKED_ASSETS = [ledger, balance, judged, repaired]
CHECKS = [positive, short, sealed, odd, second]


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


CHOICES = ("left", "right", "both", "nobody", "typo", "no route", "stumbles")
_choices = StaticPartitions(CHOICES)
_once = RetryPolicy(max_attempts=1)


@asset(partitions=_choices, routes=["left", "right"], retry=_once)
def fork(context: AssetContext) -> Any:
    """Chooses what its partition says."""
    Marks().leave("fork")
    match context.partition:
        case "left" | "right":
            return Route(str(context.partition), value=10, reason=f"it is {context.partition}")
        case "both":
            return Route(left, "right", value=10)
        case "stumbles":
            return Route("left", value=10)
        case "nobody":
            return Route(value=10)
        case "typo":
            return Route("lefd")
        case _:
            return 10


@asset(partitions=_choices, retry=_once)
def left(context: AssetContext, fork: int) -> int:
    """One branch; fails the first time where it stumbles."""
    Marks().leave("left")
    if context.partition == "stumbles" and Marks().count("left") == 1:
        raise RuntimeError("the left branch stumbles")
    return fork + 1


@asset(partitions=_choices)
def right(fork: int) -> int:
    """The other branch."""
    Marks().leave("right")
    return fork + 2


@asset(partitions=_choices)
def below_right(right: int) -> int:
    """Cannot do without its branch."""
    Marks().leave("below_right")
    return right


@asset(partitions=_choices, deps=[dep(left, optional=True), dep(below_right, optional=True)])
def meeting(left: int | None, below_right: int | None) -> list[int | None]:
    """Takes what comes."""
    Marks().leave("meeting")
    return [left, below_right]


@asset(partitions=_choices)
def beside(fork: int) -> int:
    """Is no branch, and always runs."""
    Marks().leave("beside")
    return fork


@asset(routes=["apart_a", "apart_b"], isolation="process")
def fork_apart() -> Route:
    """Chooses in a process of its own."""
    return Route("apart_b", value={"rows": 3}, reason="in a process of its own")


@asset
def apart_a(fork_apart: dict[str, int]) -> int:
    """Not chosen."""
    return fork_apart["rows"]


@asset
def apart_b(fork_apart: dict[str, int]) -> int:
    """Chosen."""
    return fork_apart["rows"]


@asset
def undeclared() -> Route:
    """Declares no branches."""
    return Route("apart_a")


@asset
def quiet() -> None:
    """Has nothing to do; nobody chose that."""
    raise Skip("nothing new")


@asset(deps=[dep(quiet, optional=True)])
def with_or_without(quiet: None, apart_b: int) -> list[object]:
    """Does without one input, and not without the other."""
    return [quiet, apart_b]


ROUTE_ASSETS = [
    fork,
    left,
    right,
    below_right,
    meeting,
    beside,
    fork_apart,
    apart_a,
    apart_b,
    undeclared,
    quiet,
    with_or_without,
]


FANNED = ("all", "some_fail", "too_many", "none", "skips", "kinds", "twice", "broken", "no_items", "gated")
WIDTH = 4
KINDS = ["text", 7, True, date(2024, 1, 1), ("eu", 1), {"page": 1, "x": [1.5, None]}, [1]]


class ItemFailedError(Exception):
    """An item that cannot be worked on."""


@asset(retry=_once)
def worked(context: AssetContext, item: Any) -> Any:
    """What is done with each item; items differ by their key."""
    pair = context.partition
    assert isinstance(pair, tuple)
    scenario, key = pair
    marks = Marks()
    marks.leave(f"item-{scenario}")
    match scenario:
        case "all":
            with marks.crowd("fanned"):
                time.sleep(0.003)
        case "some_fail" | "too_many" if item % 5 == 0 and not marks.count("repair"):
            raise ItemFailedError(f"number {item}")
        case "skips" if item % 2:
            raise Skip("odd")
        case "gated":
            while not marks.count("gate"):
                if context.cancellation.wait(0.005):
                    marks.leave("item-cancelled")
                    context.cancellation.raise_if_cancelled("worked")
        case "kinds":
            return [repr(key), repr(item)]
    return item


@scatter(each=worked, max_concurrency=WIDTH, max_failures=0.2, retry=_once, partitions=StaticPartitions(FANNED))
def fanned(context: AssetContext, numbers: list[int]) -> Iterator[Any]:
    """Discovers what its partition says."""
    Marks().leave(f"discovered-{context.partition}")
    match context.partition:
        case "all":
            yield from range(30)
        case "some_fail":
            yield from range(1, 21)
        case "too_many":
            yield from range(21)
        case "none":
            return
        case "kinds":
            yield from KINDS
        case "twice":
            yield from ["a", "b", "a"]
        case "broken":
            yield from range(5)
            raise ItemFailedError("the listing broke off")
        case "no_items":
            yield object()
        case _:
            yield from [*range(6), len(numbers) + 3]


@fanned.gather
def _(results: Gathered) -> dict[str, Any]:
    return {
        "values": [result.value for result in results],
        "counts": [results.total, results.succeeded, results.failed, results.skipped],
        "failures": [[repr(one.key), one.error_type, one.attempts] for one in results.failures],
    }


@scatter(each=lambda day: day.isoformat())
async def days(numbers: list[int]) -> AsyncIterator[date]:
    """An asynchronous generator, without a gathering function."""
    for number in numbers:
        yield date(2024, 1, 1) + timedelta(days=number)


@asset
def calendar(days: Gathered) -> list[str]:
    """Reads the results of another asset's items."""
    return [result.value for result in days]


SCATTER_ASSETS = [fanned, days, calendar]


HOSTILE_MESSAGE = "nul \x00 surrogate \ud800 ansi \x1b[31mred\x1b[0m html <b> quote ' \" % "
"""Text that breaks databases, terminals and pages when it is passed on as it is."""

HUGE_MESSAGE_CHARACTERS = 5_000_000
RAISED = ("system_exit", "keyboard_interrupt", "cancelled", "group", "hostile_text", "base", "bad_str")
REGIONS = ("eu", "us", "a|b", "\u00fc \u65e5", "'; --", "../x", "i:1")
SQUARES = 200

_quick = RetryPolicy(max_attempts=3, backoff_seconds=0.01, jitter=0.0)
_numbered = StaticPartitions(range(SQUARES))
_few = StaticPartitions(range(5))


class UnusualError(Exception):
    """An error that no library knows."""


class _BadStrError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("an error that cannot be described")


@asset
def numbers() -> list[int]:
    """A value without inputs."""
    Marks().leave("numbers")
    return [1, 2, 3]


@asset
def doubled(numbers: list[int]) -> list[int]:
    """One input."""
    Marks().leave("doubled")
    return [2 * number for number in numbers]


@asset
async def tripled(numbers: list[int]) -> list[int]:
    """A coroutine that really waits."""
    await asyncio.sleep(0.001)
    return [3 * number for number in numbers]


@asset
def total(doubled: list[int], tripled: list[int]) -> int:
    """Two inputs that share one."""
    return sum(doubled) + sum(tripled)


@asset
def facts(context: AssetContext, numbers: list[int]) -> dict[str, Any]:
    """What a function may know about its step."""
    context.metadata["rows"] = len(numbers)
    context.logger.info("facts are gathered")
    return {
        "asset": context.asset.name,
        "partition": context.partition,
        "key": context.key,
        "run_id": context.run_id,
        "step_id": context.step_id,
        "attempt": context.attempt,
        "token": context.token > 0,
        "aware": context.started_at.tzinfo is not None,
        "cancelled": context.cancellation.is_cancelled,
        "resources": sorted(context.resources),
        "inputs": sorted(context.inputs),
    }


@asset(partitions=StaticPartitions(REGIONS))
def regional(context: AssetContext) -> str:
    """A value per partition, whose keys are not harmless."""
    return f"{context.partition} of {context.key}"


@asset(deps=[dep("regional", mapping=AllPartitions())])
def world(regional: dict[str, str]) -> list[str]:
    """All partitions of an input."""
    return [f"{key}: {value}" for key, value in regional.items()]


@asset(partitions=_numbered)
def squares(context: AssetContext) -> int:
    """Many short steps that count how many of them run at once."""
    assert isinstance(context.partition, int)
    with Marks().crowd("squares"):
        time.sleep(0.003)
    return context.partition**2


@asset(partitions=_few, retry=_once)
def picky(context: AssetContext) -> int:
    """Fails in one partition of five."""
    if context.partition == 3:
        raise UnusualError("not the third one")
    assert isinstance(context.partition, int)
    return context.partition


@asset(partitions=_few)
def after_picky(picky: int) -> int:
    """Reads what fails in one partition."""
    return picky + 100


@asset(retry=_once)
def broken() -> None:
    """Always fails."""
    Marks().leave("broken")
    raise UnusualError("the reason: 42")


@asset
def below_broken(broken: None) -> None:
    """Never runs."""
    Marks().leave("below_broken")


@asset
def far_below_broken(below_broken: None) -> None:
    """Never runs either."""
    Marks().leave("far_below_broken")


@asset(partitions=StaticPartitions(RAISED), retry=_once)
def raises(context: AssetContext) -> None:
    """Raises what executors forget about."""
    match context.partition:
        case "system_exit":
            raise SystemExit(3)
        case "keyboard_interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "group":
            raise BaseExceptionGroup("several", [ValueError("first of group"), KeyboardInterrupt()])
        case "hostile_text":
            raise UnusualError(HOSTILE_MESSAGE + "x" * HUGE_MESSAGE_CHARACTERS)
        case "base":
            raise BaseException("neither error nor exit")  # noqa: TRY002 - what the test is about
        case _:
            raise _BadStrError


@asset
def skips() -> None:
    """Has nothing to do."""
    raise Skip("no new rows")


@asset
def below_skips(skips: None) -> None:
    """Never runs."""
    Marks().leave("below_skips")


@asset
def returns_skip() -> Skip:
    """Outcomes may be returned as well as raised."""
    return Skip("said politely")


@asset(retry=_quick)
def fatal() -> None:
    """Fails for good although its policy would repeat it."""
    Marks().leave("fatal")
    raise Fatal("the contract ended", data={"customer": 7})


@asset
def later() -> int:
    """Is not ready the first two times; has a single attempt."""
    Marks().leave("later")
    calls = Marks().count("later")
    if calls < 3:
        raise RetryLater(0.01, "the export is not there yet")
    return calls


@asset(retry=_quick)
def flaky(context: AssetContext) -> int:
    """Works the third time."""
    Marks().leave("flaky")
    if context.attempt < 3:
        raise UnusualError(f"attempt {context.attempt} failed")
    return context.attempt


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0.01, jitter=0.0))
def exhausted(context: AssetContext) -> None:
    """Never works."""
    raise UnusualError(f"attempt {context.attempt} failed")


@asset
def slow() -> int:
    """Long enough for fifty requests to meet."""
    Marks().leave("slow")
    time.sleep(0.15)
    return Marks().count("slow")


@asset
def gated(context: AssetContext) -> str:
    """Runs until the gate opens or it is cancelled."""
    marks = Marks()
    marks.leave("gated")
    deadline = time.monotonic() + 60
    while not marks.count("gate") and time.monotonic() < deadline:
        if context.cancellation.wait(0.005):
            marks.leave("gated-cancelled")
            context.cancellation.raise_if_cancelled("gated")
    return "through"


@asset
def below_gated(gated: str) -> str:
    """Waits for the gate."""
    return gated


@asset
def unserializable() -> object:
    """A value that only an IO manager in memory can keep."""
    return (number for number in range(3))


ASSETS = [
    numbers,
    doubled,
    tripled,
    total,
    facts,
    regional,
    world,
    squares,
    picky,
    after_picky,
    broken,
    below_broken,
    far_below_broken,
    raises,
    skips,
    below_skips,
    returns_skip,
    fatal,
    later,
    flaky,
    exhausted,
    slow,
    gated,
    below_gated,
    unserializable,
    *CHECKED_ASSETS,
    *APPROVAL_ASSETS,
    *ROUTE_ASSETS,
    *SCATTER_ASSETS,
]
"""All of them."""


def flow() -> FlowStone:
    """Return an app of these assets, with settings from the environment: what a worker loads.

    Example:
        >>> flow().graph["total"].name
        'total'
    """
    return FlowStone(ASSETS, checks=CHECKS)
