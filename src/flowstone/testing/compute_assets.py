"""The assets on which the compute conformance suite runs; importable, so that other machines find them too.

They leave marks (see `flowstone.testing.marks`) in a directory that arrives as an input, because the environment
of the test does not reach processes that ran before it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from flowstone.core.asset import Asset, asset
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

AT_ONCE = RetryPolicy(max_attempts=3, backoff_seconds=0.0, jitter=0.0)
NEVER_BY_ITSELF = RetryPolicy(max_attempts=3, backoff_seconds=0.0, jitter=0.0, retry_on=(LookupError,))
KINDS = ["value", "chained", "exit", "interrupt", "odd", "locked", "skip", "later", "fatal"]
REGIONS = StaticPartitions(["eu", "us"])


class OddError(Exception):
    """Plain pickle cannot rebuild this one: `__init__` takes something else than `args`."""

    def __init__(self, code: int, *, hint: str) -> None:
        self.code = code
        super().__init__(f"code {code}, {hint}")


class LockedError(Exception):
    """Cannot be pickled at all."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@dataclass
class Point:
    """A value of a class that is declared by an asset."""

    x: int
    day: date


def compute_assets(directory: Path | str, **declared: Any) -> list[Asset]:
    """Return the assets, computed as is declared: `compute="dask"`, or `isolation="process"`.

    Args:
        directory: where they leave their marks.
        **declared: options for each asset that is computed elsewhere.
    """
    place = str(directory)

    @asset
    def marks() -> str:
        return place

    def elsewhere(plain: Any, **options: Any) -> Asset:
        made: Asset = asset(**(declared | options))(plain)
        return made

    # a reference names the plain function of this module, so that any number of apps may declare it anew
    return [
        marks,
        elsewhere(process),
        elsewhere(numbers),
        elsewhere(doubled),
        elsewhere(facts, partitions=REGIONS, tags=["a"]),
        elsewhere(together, deps={"facts": dep("facts", mapping=AllPartitions())}),
        elsewhere(point),
        elsewhere(moved),
        elsewhere(awaited),
        elsewhere(logs),
        elsewhere(talks),
        elsewhere(raises, partitions=StaticPartitions(KINDS)),
        elsewhere(flaky, retry=AT_ONCE),
        elsewhere(crashes, retry=NEVER_BY_ITSELF),
        elsewhere(patient, retry=AT_ONCE),
        elsewhere(deaf),
        elsewhere(slow, timeout=0.3),
        elsewhere(unpicklable),
        elsewhere(asks),
        elsewhere(configured, config=dict),
        elsewhere(resourceful, requires=["answer", "lock"]),
        elsewhere(large),
        elsewhere(size),
        elsewhere(chooses, routes=["left", "right"]),
        asset(left),
        asset(right),
        _scattered(declared),
    ]


def _scattered(declared: Mapping[str, Any]) -> Asset:
    made = scatter(each=asset(name="squares.item", **declared)(squared), name="squares")(_squares)
    return made.gather(_total)


def process(marks: str) -> int:
    """Where it runs."""
    Marks(Path(marks)).leave("process")
    return os.getpid()


def numbers() -> list[int]:
    """A small value."""
    return [1, 2, 3]


def doubled(numbers: list[int]) -> list[int]:
    """Reads what was stored elsewhere."""
    return [2 * number for number in numbers]


def facts(context: AssetContext) -> dict[str, Any]:
    """What the context says."""
    context.metadata["rows"] = 3
    context.metadata["region"] = context.partition  # type: ignore[assignment]
    return {
        "asset": context.asset.name,
        "partition": context.partition,
        "key": context.key,
        "run_id": context.run_id,
        "tags": list(context.run.tags),
        "step_id": context.step_id,
        "attempt": context.attempt,
        "token": context.token,
        "zone": str(context.started_at.tzinfo),
        "cancelled": context.cancellation.is_cancelled,
        "inputs": context.inputs,
    }


def together(facts: dict[str, Any]) -> list[str]:
    """Reads several partitions."""
    return sorted(facts)


def point() -> Point:
    """An object of a declared class."""
    return Point(1, date(2024, 1, 2))


def moved(point: Point) -> Point:
    """Gets one, and makes another."""
    assert type(point).__name__ == "Point"
    return Point(point.x + 1, point.day)


async def awaited(numbers: list[int]) -> int:
    """A coroutine."""
    await asyncio.sleep(0)
    return sum(numbers)


def logs(context: AssetContext) -> None:
    """Says something in each way."""
    context.logger.info("rows: %d", 7, extra={"lock": threading.Lock()})
    print("printed here")  # noqa: T201 - that is what is tested
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("some.library").exception("it broke")


def talks(context: AssetContext, marks: str) -> None:
    """Says something, and something else once a gate is open."""
    context.logger.info("at the gate")
    print("waiting for it")  # noqa: T201 - that is what is tested
    Marks(Path(marks)).wait("gate", timeout_seconds=120)
    context.logger.info("through the gate")


def raises(context: AssetContext) -> None:
    """Ends as the partition says."""
    match context.partition:
        case "chained":
            try:
                _ = os.environ["FLOWSTONE_MISSING"]
            except KeyError as error:
                raise ValueError("outer") from error
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "odd":
            raise OddError(7, hint="rewind")
        case "locked":
            raise LockedError("held")
        case "skip":
            raise Skip("nothing new")
        case "later":
            if context.attempt == 1 and context.approval is None and not context.cancellation.is_cancelled:
                raise RetryLater(3600, "not there yet")
        case "fatal":
            raise Fatal("the contract ended", data={"customer": 7})
    raise ValueError(str(context.partition))


def flaky(context: AssetContext, marks: str) -> int:
    """Succeeds in its second attempt."""
    Marks(Path(marks)).leave("flaky")
    if context.attempt == 1:
        raise LookupError("an accident")
    return context.attempt


def crashes(context: AssetContext, marks: str) -> int:
    """Ends its whole process in its first attempt."""
    Marks(Path(marks)).leave("crashes")
    if context.attempt == 1:
        os._exit(9)
    return context.attempt


def patient(context: AssetContext, marks: str) -> str:
    """Waits for its cancel, or a gate."""
    left = Marks(Path(marks))
    left.leave("patient")
    while not left.count("gate"):
        if context.cancellation.wait(0.01):
            left.leave("heard")
            context.cancellation.raise_if_cancelled(context.asset.name)
    left.leave("patient-done")
    return "went through"


def deaf(marks: str) -> None:
    """Does not listen to its token."""
    left = Marks(Path(marks))
    left.leave("deaf")
    left.wait("gate", timeout_seconds=120)


def slow(context: AssetContext, marks: str) -> None:
    """Longer than its timeout."""
    Marks(Path(marks)).leave("slow")
    context.cancellation.wait(60)


def unpicklable() -> Any:
    """Cannot be stored, and cannot travel."""
    return threading.Lock()


def asks(context: AssetContext) -> AwaitApproval | str:
    """Stops for a person, and goes on in another call."""
    if context.approval is None:
        return AwaitApproval("Go on?", resume=["from", "afar"])
    return f"{context.approval.resume} by {context.approval.decided_by}"


def configured(context: AssetContext) -> object:
    """Returns its config."""
    return context.config


def resourceful(context: AssetContext) -> list[object]:
    """Uses a resource that can travel, and learns why another one cannot."""
    try:
        _ = context.resources["lock"]
    except Exception as error:  # noqa: BLE001 - its text is the value
        return [context.resources["answer"], str(error)]
    return [context.resources["answer"], "no error"]


def large() -> bytes:
    """Eight megabytes."""
    return bytes(range(256)) * 32_768


def size(large: bytes) -> int:
    """Reads them."""
    return len(large)


def chooses() -> Route:
    """Decides for one branch."""
    return Route("left", value=5)


def left(chooses: int) -> int:
    """Chosen."""
    return chooses + 1


def right(chooses: int) -> int:
    """Not chosen."""
    return chooses


def squared(context: AssetContext, number: int) -> int:
    """What is done with an item."""
    context.logger.info("item %s", number)
    return number * number


def _squares() -> list[int]:
    return [1, 2, 3, 4]


def _total(results: Gathered) -> int:
    return sum(result.value for result in results)
