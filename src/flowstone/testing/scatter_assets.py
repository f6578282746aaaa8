"""The scatters on which the executor conformance suite runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from typing import Any

from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.outcome import Skip
from flowstone.core.retry import RetryPolicy
from flowstone.core.scatter import scatter
from flowstone.engine.gathered import Gathered
from flowstone.testing.marks import Marks

FANNED = ("all", "some_fail", "too_many", "none", "skips", "kinds", "twice", "broken", "no_items", "gated")
WIDTH = 4
KINDS = ["text", 7, True, date(2024, 1, 1), ("eu", 1), {"page": 1, "x": [1.5, None]}, [1]]
_once = RetryPolicy(max_attempts=1)


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
