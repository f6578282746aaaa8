"""The orders of a day: as they come, cleaned, and checked before anything is made of them."""

from __future__ import annotations

from flowstone import AssetContext, CheckResult, DailyPartitions, RetryPolicy, Skip, asset, check
from shop_numbers.resources import Order

DAYS = DailyPartitions("2024-01-01")
RETRY = RetryPolicy(max_attempts=3, backoff_seconds=1.0)


@asset(partitions=DAYS, requires=["files"], retry=RETRY, group="orders")
def raw_orders(context: AssetContext) -> list[Order] | Skip:
    """The orders of a day as the shop's system wrote them."""
    try:
        return list(context.resources.files.read(context.partition))
    except FileNotFoundError:
        return Skip("no file has come for this day")


@asset(partitions=DAYS, requires=["rates"], group="orders")
def orders(context: AssetContext, raw_orders: list[Order]) -> list[Order]:
    """Orders with one currency, without those that were cancelled and without doubles."""
    convert = context.resources.rates.convert
    kept = {one["id"]: one for one in raw_orders if one["state"] != "cancelled"}
    context.metadata["left_out"] = len(raw_orders) - len(kept)
    return [
        {"id": one["id"], "customer": one["customer"], "amount": convert(one["amount"], one["currency"])}
        for one in kept.values()
    ]


@check(orders, blocking=True)
def amounts_are_possible(orders: list[Order]) -> CheckResult:
    """No amount is negative: a value that fails here is never published."""
    wrong = [one["id"] for one in orders if one["amount"] < 0]
    return CheckResult(not wrong, metadata={"orders": wrong[:10]})
