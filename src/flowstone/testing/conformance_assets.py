"""The assets on which the executor conformance suite runs; importable, so that workers find them too.

They leave marks (see `flowstone.testing.marks`) instead of sharing variables with the test. Start a worker on
them with `flowstone worker --app flowstone.testing.conformance_assets:flow`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.dependency import dep
from flowstone.core.mapping import AllPartitions
from flowstone.core.outcome import Fatal, RetryLater, Skip
from flowstone.core.retry import RetryPolicy
from flowstone.testing.approval_assets import APPROVAL_ASSETS
from flowstone.testing.conformance_checks import CHECKED_ASSETS, CHECKS
from flowstone.testing.marks import Marks
from flowstone.testing.route_assets import ROUTE_ASSETS
from flowstone.testing.scatter_assets import SCATTER_ASSETS

HOSTILE_MESSAGE = "nul \x00 surrogate \ud800 ansi \x1b[31mred\x1b[0m html <b> quote ' \" % "
"""Text that breaks databases, terminals and pages when it is passed on as it is."""

HUGE_MESSAGE_CHARACTERS = 5_000_000
RAISED = ("system_exit", "keyboard_interrupt", "cancelled", "group", "hostile_text", "base", "bad_str")
REGIONS = ("eu", "us", "a|b", "\u00fc \u65e5", "'; --", "../x", "i:1")
SQUARES = 200

_once = RetryPolicy(max_attempts=1)
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
