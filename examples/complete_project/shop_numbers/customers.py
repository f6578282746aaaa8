"""What customers are worth over the last days, and a report of it that a person lets through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from flowstone import AssetContext, AwaitApproval, LastN, asset, dep
from shop_numbers.orders import DAYS, orders
from shop_numbers.resources import Order


@dataclass
class Worth:
    """How the worth of a customer is computed; a run may say otherwise."""

    best: int = 3


@asset(partitions=DAYS, deps={"week": dep(orders, mapping=LastN(7))}, config=Worth, group="customers")
def best_customers(context: AssetContext, week: dict[date, list[Order]]) -> list[tuple[str, float]]:
    """The customers that spent most over seven days."""
    spent: dict[str, float] = {}
    for one in (order for day in week.values() for order in day):
        spent[one["customer"]] = round(spent.get(one["customer"], 0.0) + one["amount"], 2)
    ranked = sorted(spent.items(), key=lambda item: (-item[1], item[0]))
    return ranked[: context.config.best]


@asset(partitions=DAYS, requires=["settings"], group="customers")
def letter(context: AssetContext, best_customers: list[tuple[str, float]]) -> str | AwaitApproval:
    """A letter to the best customers; a large sum waits for a person."""
    total = sum(amount for _, amount in best_customers)
    currency = context.resources.settings.currency
    if total > 1_000 and context.approval is None:
        return AwaitApproval(f"{total:.2f} {currency} for the best of {context.partition}")
    lines = [f"{name}: {amount:.2f} {currency}" for name, amount in best_customers]
    return "\n".join([f"Dear friends of {context.partition}", *lines])
