"""Tests: the graph with the manifest that dbt writes, then the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt_shop.pipeline import build, prepare

pytestmark = pytest.mark.slow


def test_python_and_dbt_are_one_graph(tmp_path: Path) -> None:
    prepare(tmp_path)
    flow = build(tmp_path)
    assert [step.asset for step in flow.plan("+letter").steps] == ["web_orders", "revenue_by_customer", "letter"]
    assert flow.materialize_all("letter").value == "Dear Bob, thank you for 30 euros."
    assert all(one.passed for one in flow.checks.latest())
    assert len(flow.checks.latest()) == 3
