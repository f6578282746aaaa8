"""Work as people have it: four daily assets, edges between them, a mapping over three days, rows as values.

`orders` → `lines` → `report`, and `trend` reads three days of `lines`. Without edges and values the same four
assets show what these cost.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from flowstone import DailyPartitions, FlowStone, LastN, Settings, asset, dep

FIRST = date(1990, 1, 1)
DAYS = DailyPartitions(FIRST)
ASSETS = ("orders", "lines", "report", "trend")


def dag(dsn: str, *, edges: bool, rows: int, io: str, storage: str) -> FlowStone:
    """Return the app.

    Args:
        dsn: database.
        edges: whether the assets read each other.
        rows: number of rows of a value; 0 for a single small number.
        io: `postgres` or `filesystem`.
        storage: directory of the files.
    """

    settings = Settings(storage=storage, database_url=dsn)

    def value() -> Any:
        return [{"id": n, "name": f"customer {n}", "amount": n * 1.25} for n in range(rows)] if rows else 1

    if not edges:
        made = [asset(name=name, partitions=DAYS, io=io)(value) for name in ASSETS]
        return FlowStone(made, settings=settings)

    @asset(partitions=DAYS, io=io)
    def orders() -> Any:
        return value()

    @asset(partitions=DAYS, io=io)
    def lines(orders: Any) -> Any:
        return orders

    @asset(partitions=DAYS, io=io)
    def report(lines: Any) -> Any:
        return lines

    @asset(partitions=DAYS, io=io, deps=[dep("lines", mapping=LastN(3))])
    def trend(lines: Any) -> Any:
        return len(lines)

    return FlowStone([orders, lines, report, trend], settings=settings)
