"""What assets use. A parameter of such a function is the name of another resource, opened before it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from shop_numbers.settings import ShopSettings

type Order = dict[str, Any]


class OrderFiles:
    """The orders of each day, as the shop's system writes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def days(self) -> list[date]:
        """Return the days that have a file."""
        return sorted(date.fromisoformat(path.stem) for path in self.directory.glob("*.json"))

    def read(self, day: date) -> list[Order]:
        """Return the orders of a day."""
        found: list[Order] = json.loads((self.directory / f"{day}.json").read_text(encoding="utf-8"))
        return found


class Rates:
    """Rates of exchange into the currency of the shop."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self._of = {"EUR": 1.0, "CHF": 1.05, "USD": 0.92}

    def convert(self, amount: float, currency: str) -> float:
        """Return an amount in the currency of the shop."""
        return round(amount * self._of[currency] / self._of[self.currency], 2)


def settings() -> ShopSettings:
    """The settings; tests declare others in their place."""
    return ShopSettings.from_environment()


def files(settings: ShopSettings) -> OrderFiles:
    """The directory that the settings name."""
    return OrderFiles(settings.orders)


@contextmanager
def rates(settings: ShopSettings) -> Generator[Rates]:
    """Opened at its first use in a process, closed with the app: where a real client would connect."""
    yield Rates(settings.currency)


RESOURCES = {"settings": settings, "files": files, "rates": rates}
