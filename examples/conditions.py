"""Assets that say when they want to be computed, and an app that says why.

Worker nodes evaluate conditions; here, without a database, `flow.conditions.run()` computes what is requested.
"""

from __future__ import annotations

import tempfile

from flowstone import FlowStone, asset, code_changed, eager
from flowstone.config import Settings

PRICES = {"tea": 3.5, "milk": 1.2}


@asset
def prices() -> dict[str, float]:
    """What a shop asks today; computed by hand, by a schedule or by a sensor."""
    return dict(PRICES)


@asset(automation=eager())
def cheap(prices: dict[str, float]) -> list[str]:
    """What costs less than two."""
    return sorted(name for name, price in prices.items() if price < 2)


@asset(automation=eager() | code_changed(), code_version="1")
def poster(cheap: list[str]) -> str:
    """What is printed."""
    return ", ".join(cheap).upper()


def main() -> None:
    """Change a price twice, and see who reacts; files have hashes, by which unchanged data is recognized."""
    with tempfile.TemporaryDirectory() as storage:
        settings = Settings(executor="sync", storage=storage)
        flow = FlowStone.for_testing([prices, cheap, poster], settings=settings, default_io="filesystem")

        flow.materialize("prices")
        print("first:", [one.name for one in flow.conditions.run()])

        PRICES["tea"] = 3.6
        flow.materialize("prices", force=True)
        print("tea:", [one.name for one in flow.conditions.run()])
        print("poster:", flow.conditions.evaluate("poster")[0].requested, flow.conditions.stale("poster"))

        PRICES["tea"] = 1.9
        flow.materialize("prices", force=True)
        print(flow.conditions.evaluate("cheap")[0].reason.split(":")[0])
        print("sale:", [one.name for one in flow.conditions.run()])
        print(flow.load("poster"))

        poster.code_version = "2"
        print(flow.conditions.evaluate("poster")[0].reason)
        flow.close()


if __name__ == "__main__":
    main()
