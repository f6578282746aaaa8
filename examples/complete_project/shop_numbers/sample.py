"""Writes a few days of orders, to try the project: `python -m shop_numbers.sample DIRECTORY`."""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path


def write(directory: Path, days: list[date]) -> None:
    """Write a file of orders for each day, the same ones every time."""
    directory.mkdir(parents=True, exist_ok=True)
    for day in days:
        draw = random.Random(day.toordinal())
        rows = [
            {
                "id": f"{day}-{number}",
                "customer": draw.choice(["ann", "bob", "cleo", "dan"]),
                "amount": round(draw.uniform(2, 15), 2),
                "currency": draw.choice(["EUR", "CHF"]),
                "state": draw.choice(["paid", "paid", "paid", "cancelled"]),
            }
            for number in range(8)
        ]
        (directory / f"{day}.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    today = datetime.now(UTC).date()
    write(Path(sys.argv[1]), [today - timedelta(days=number) for number in range(1, 11)])
