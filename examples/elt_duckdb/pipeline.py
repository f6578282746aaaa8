"""The assets: `orders` (loaded by day) → `daily_revenue` (SQL by day) → `best_customers` (SQL over all days).

Each is a table of the warehouse that others select from; a day that a check refuses is not published, and whoever
is on call is notified.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyarrow import csv

from flowstone import (
    AllPartitions,
    AssetContext,
    CheckResult,
    DynamicPartitions,
    Fatal,
    FlowStone,
    Notify,
    asset,
    check,
    dep,
    new_files,
)
from flowstone.errors import ConfigurationError
from flowstone.io import DuckDBTableIO
from flowstone.notifiers import webhook

DAYS = DynamicPartitions("exported days")
"""Days of which there is a file; the sensor adds them."""

TYPES = {"id": pa.int64(), "customer": pa.string(), "cents": pa.int64()}


@asset(io="warehouse", partitions=DAYS, requires=["inbox"], group="loaded", fresh_within=timedelta(hours=26))
def orders(context: AssetContext) -> pa.Table:
    """The orders of a day, as the shop exported them: `orders-2024-01-31.csv`."""
    path = Path(context.resources["inbox"]) / f"orders-{context.partition}.csv"
    if not path.exists():
        raise Fatal(f"The shop has not exported {path.name}.")
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=TYPES, include_columns=list(TYPES)))


@check(orders, blocking=True)
def ids_are_unique(orders: pa.Table) -> CheckResult:
    """An export that was written twice would count twice: it is not published."""
    doubled = len(orders) - len(orders["id"].unique())
    return CheckResult(doubled == 0, description=f"{doubled} ids twice", metadata={"doubled": doubled})


@check(orders, severity="warning")
def nothing_is_free(orders: pa.Table) -> bool:
    """Orders of nothing are odd, and no reason to stop."""
    return all(cents > 0 for cents in orders["cents"].to_pylist())


@asset(io="warehouse", partitions=DAYS, group="transformed")
def daily_revenue(orders: pa.Table) -> pa.Table:
    """What each customer spent on a day; DuckDB reads the Arrow table as it lies in memory."""
    with duckdb.connect() as memory:
        memory.register("orders", orders)
        return memory.sql("""
            SELECT customer, count(*) AS orders, CAST(sum(cents) AS bigint) AS cents
            FROM orders GROUP BY customer ORDER BY customer
        """).to_arrow_table()


@asset(io="warehouse", deps=[dep("daily_revenue", mapping=AllPartitions())], group="transformed")
def best_customers(daily_revenue: Mapping[str, pa.Table]) -> pa.Table:
    """Customers by what they spent on all days that there are."""
    with duckdb.connect() as memory:
        memory.register("days", pa.concat_tables(daily_revenue.values()))
        return memory.sql("""
            SELECT customer, CAST(sum(cents) AS bigint) AS cents
            FROM days GROUP BY customer ORDER BY cents DESC, customer
        """).to_arrow_table()


def build(directory: str | Path | None = None, *, settle: float = 10, **options: Any) -> FlowStone:
    """Assemble the app: `flowstone dev --app elt_duckdb.pipeline:build`.

    Args:
        directory: with `inbox`, where the shop writes, and `warehouse.duckdb`. Default: `ELT_DIRECTORY`.
        settle: seconds for which a file must have stayed the same: the shop may be writing it.
        **options: of `FlowStone`.
    """
    named = directory or os.environ.get("ELT_DIRECTORY")
    if not named:
        raise ConfigurationError("Set ELT_DIRECTORY to the directory with the inbox and the warehouse.")
    place = Path(named)
    inbox = place / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    address = os.environ.get("ELT_WEBHOOK_URL")
    watched = [Notify(to=webhook(address), on=("failed", "check_failed", "late", "recovered"))] if address else []
    return FlowStone(
        [orders, daily_revenue, best_customers],
        **{
            "checks": [ids_are_unique, nothing_is_free],
            "io": {"warehouse": DuckDBTableIO(place / "warehouse.duckdb", name="warehouse")},
            "resources": {"inbox": str(inbox)},
            "sensors": [
                new_files(
                    str(inbox),
                    name="exports",
                    selection="orders or daily_revenue",
                    pattern="orders-????-??-??.csv",
                    partition=lambda file: file.name[7:17],
                    add_to=DAYS,
                    settle=settle,
                )
            ],
            "notify": watched,
            **options,
        },
    )
