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
    namespace: dict[str, object] = {"__name__": "benchmark_chain"}
    source = "def c0():\n    return 1\n" + "".join(
        f"def c{n}(c{n - 1}):\n    return c{n - 1} + 1\n" for n in range(1, CHAIN_LENGTH)
    )
    exec(source, namespace)
    return [asset(namespace[f"c{n}"]) for n in range(CHAIN_LENGTH)]  # type: ignore[call-overload]
