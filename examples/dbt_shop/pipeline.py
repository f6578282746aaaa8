"""The assets: `web_orders` (Python) → `revenue_by_customer` (dbt) → `letter` (Python)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb

from flowstone import FlowStone, asset
from flowstone.core.published import Published
from flowstone.dbt import dbt_assets

PROJECT = Path(__file__).with_name("project")
ORDERS = [("Ann", 12), ("Bob", 30), ("Ann", 8)]


def prepare(directory: Path) -> Path:
    """Copy the project and have dbt write its manifest; a deployment does that while its image is built."""
    project = directory / "project"
    shutil.copytree(PROJECT, project, dirs_exist_ok=True)
    dbt = shutil.which("dbt", path=str(Path(sys.executable).parent)) or "dbt"
    subprocess.run([dbt, "--quiet", "parse"], cwd=project, check=True, env=os.environ | environment(directory))
    return project


def environment(directory: Path) -> dict[str, str]:
    """Return what the profile of the project reads."""
    return {"DBT_SHOP_WAREHOUSE": str(directory / "warehouse.duckdb")}


def build(directory: Path, **options: Any) -> FlowStone:
    """Assemble the app around a project that dbt has parsed.

    Args:
        directory: where `prepare` put the project; the warehouse lies beside it.
        **options: of `FlowStone`.
    """
    warehouse = directory / "warehouse.duckdb"
    shop = dbt_assets(directory / "project", environment=environment(directory))

    # DuckDB takes one process at a time: what opens the file has the limit under which dbt's steps run
    @asset(concurrency=shop.limits)
    def web_orders() -> Published:
        """The orders of the web shop, in the table that dbt knows as its source."""
        with duckdb.connect(str(warehouse)) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
            connection.execute("CREATE OR REPLACE TABLE raw.orders (customer text, amount integer)")
            connection.executemany("INSERT INTO raw.orders VALUES (?, ?)", ORDERS)
        return Published("raw.orders", metadata={"rows": len(ORDERS)})

    @asset(concurrency=shop.limits)
    def letter(revenue_by_customer: Published) -> str:
        """Thanks to the best customer; the value of a model is where it lies."""
        with duckdb.connect(str(warehouse), read_only=True) as connection:
            model = connection.table(revenue_by_customer.location).select("customer", "revenue")
            ((customer, revenue),) = model.order("revenue DESC").limit(1).fetchall()
        return f"Dear {customer}, thank you for {revenue} euros."

    return FlowStone([web_orders, *shop, letter], checks=shop.checks, **options)
