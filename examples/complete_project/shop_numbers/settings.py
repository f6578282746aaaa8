"""What differs between machines, from the environment; nothing else of the project reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ShopSettings:
    """Settings of the shop, beside those of FlowStone."""

    orders: Path
    currency: str = "EUR"

    @classmethod
    def from_environment(cls) -> ShopSettings:
        """Read them; what is missing fails here, by its name, and not deep inside of a step."""
        try:
            orders = Path(os.environ["SHOP_ORDERS"])
        except KeyError:
            raise RuntimeError("SHOP_ORDERS is not set: the directory with the orders of each day.") from None
        return cls(orders, os.environ.get("SHOP_CURRENCY", "EUR"))
