"""The app: what workers, pages and commands load (`app` in pyproject.toml)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowstone import FlowStone
from shop_numbers.automation import NIGHTLY, new_orders
from shop_numbers.customers import best_customers, letter
from shop_numbers.orders import amounts_are_possible, orders, raw_orders
from shop_numbers.resources import RESOURCES

ASSETS = [raw_orders, orders, best_customers, letter]
PARTS: Mapping[str, Any] = {"checks": [amounts_are_possible], "schedules": [NIGHTLY], "sensors": [new_orders]}


def build(make: Callable[..., FlowStone] = FlowStone, **resources: Any) -> FlowStone:
    """Return the app: for production, or for a test with other resources.

    Args:
        make: what makes it: `FlowStone`, or a fixture of the pytest plugin.
        **resources: in place of those with the same names.
    """
    return make(ASSETS, resources={**RESOURCES, **resources}, **PARTS)


def flow() -> FlowStone:
    """Return the app of this environment."""
    return build()
