"""The assets of FlowStone's durable figures."""

from __future__ import annotations

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
    return FlowStone([noop, approved, *_chain()], database_url=dsn)


def _chain() -> list[Asset]:
    first = asset(name="c0")(_first)
    return [first, *(asset(name=f"c{n}", deps={"before": f"c{n - 1}"})(_next) for n in range(1, CHAIN_LENGTH))]


def _first() -> int:
    return 1


def _next(before: int) -> int:
    return before + 1
