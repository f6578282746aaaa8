"""Tests: the letter as a plain function of its input, and the graph with the manifest that dbt writes."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from dbt_shop.pipeline import build, prepare
from flowstone.core.published import Published

pytestmark = pytest.mark.slow


def test_python_and_dbt_are_one_graph(tmp_path: Path) -> None:
    prepare(tmp_path)
    flow = build(tmp_path)
    assert [step.asset for step in flow.plan("+letter").steps] == ["web_orders", "revenue_by_customer", "letter"]
    assert len(flow.checks.declared("revenue_by_customer")) == 3

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("CREATE TABLE revenue AS SELECT 'Ann' AS customer, 7 AS revenue")
    assert flow.graph["letter"](Published("revenue")) == "Dear Ann, thank you for 7 euros."
