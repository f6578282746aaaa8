"""A bad delivery is refused and yesterday's data stays. Run with `python examples/checks.py`."""

from __future__ import annotations

from flowstone import CheckResult, FlowStone, asset, check
from flowstone.errors import CheckFailedError

DELIVERY = [{"id": 1, "price": 12.5}, {"id": 2, "price": 3.0}]


@asset
def prices() -> list[dict[str, float]]:
    """Stands for a file that another team delivers."""
    return list(DELIVERY)


@asset
def mean_price(prices: list[dict[str, float]]) -> float:
    """Only ever sees prices that passed."""
    return sum(row["price"] for row in prices) / len(prices)


@check(prices, blocking=True)
def no_negative_price(prices: list[dict[str, float]]) -> CheckResult:
    """Nothing costs less than nothing."""
    wrong = [row["id"] for row in prices if row["price"] < 0]
    return CheckResult(not wrong, description=f"{len(wrong)} negative prices", metadata={"ids": wrong})


@check(prices)
async def unique_ids(prices: list[dict[str, float]]) -> bool:
    """Every id once."""
    return len({row["id"] for row in prices}) == len(prices)


if __name__ == "__main__":
    flow = FlowStone.for_testing([prices, mean_price], checks=[no_negative_price, unique_ids])
    print("mean price:", flow.materialize_all("mean_price").value)

    DELIVERY.append({"id": 3, "price": -1.0})
    try:
        flow.materialize("prices", force=True)
    except CheckFailedError as error:
        print("refused:", *error.failed)
    print("still there:", len(flow.load("prices")), "prices")

    for result in flow.checks.results("prices"):
        print(f"step {result.step_id}: {result.check} {'passed' if result.passed else 'failed'}")
    print("again:", [result.passed for result in flow.checks.run("prices")])
