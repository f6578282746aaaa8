"""The assets of FlowStone's durable figures."""

from __future__ import annotations

import time
from datetime import date

from flowstone import AssetContext, AwaitApproval, DailyPartitions, FlowStone, asset
from flowstone.core.asset import Asset

FIRST = date(1700, 1, 1)
CHAIN_LENGTH = 50


@asset(partitions=DailyPartitions(FIRST))
def noop() -> None:
    """Do nothing."""


@asset
def approved(context: AssetContext) -> int | AwaitApproval:
    """Ask before going on."""
    return AwaitApproval("Go on?") if context.approval is None else 1


def app(dsn: str) -> FlowStone:
    """Return the app on a database."""
    return FlowStone([noop, approved, *_chain(), *_handovers()], database_url=dsn)


def _chain() -> list[Asset]:
    first = asset(name="c0")(_first)
    return [first, *(asset(name=f"c{n}", deps={"before": f"c{n - 1}"})(_next) for n in range(1, CHAIN_LENGTH))]


def _first() -> int:
    return 1


def _next(before: int) -> int:
    return before + 1


def _handovers() -> list[Asset]:
    """Return a chain whose assets take turns on two queues; each adds how long after the last one it started."""
    queues = "left", "right"
    first = asset(name="h0", queue=queues[0])(_start)
    rest = (
        asset(name=f"h{n}", queue=queues[n % 2], deps={"before": f"h{n - 1}"})(_take_over)
        for n in range(1, CHAIN_LENGTH)
    )
    return [first, *rest]


def _start() -> tuple[list[float], float]:
    return [], time.monotonic()


def _take_over(before: tuple[list[float], float]) -> tuple[list[float], float]:
    took = time.monotonic() - before[1]
    return [*before[0], took], time.monotonic()
