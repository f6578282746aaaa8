"""The real dbt on the real DuckDB. Each step is a process of dbt, so there are few of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import duckdb
import pytest
from tests.dbt.projects import MANIFEST, ORDERS

from flowstone import DailyPartitions, FlowStone, State
from flowstone.app.results import RunResult
from flowstone.core.published import Published
from flowstone.core.step import Severity
from flowstone.dbt import DbtError, DbtProjectError, dbt_assets

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("project", ["duckdb"], indirect=True)]


@pytest.fixture
def warehouse(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = project / "shop.duckdb"
    monkeypatch.setenv("SHOP_DUCKDB", str(path))
    with duckdb.connect(str(path)) as connection:
        connection.execute(ORDERS)
    return path


def states(flow: FlowStone, run: RunResult) -> dict[str, State]:
    return {step.asset: step.state for step in flow.runs.steps(run.run_id)}


def rows(warehouse: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_the_manifest_of_the_quick_tests_is_that_of_dbt(project: Path) -> None:
    written = json.loads((project / "target" / "manifest.json").read_bytes())
    kept = json.loads(MANIFEST.read_bytes())
    for kind in ("nodes", "sources", "unit_tests"):
        assert {one: raw["fqn"] for one, raw in kept[kind].items()} == {
            one: raw["fqn"] for one, raw in written[kind].items() if not one.startswith("operation.")
        }


def test_what_fails_blocks_and_a_retry_goes_on_from_there(
    project: Path, warehouse: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """dagster#31155, dagster#15771, dagster#12423: everything ran again. dagster#27018: dbt's own words.

    dagster#19353, dagster#27760, dagster#30105: severity as in the run; a retry builds what a test refused.
    """
    shop = dbt_assets(project, select="stg_orders daily_revenue", exclude="source:raw.orders")
    flow = FlowStone.for_testing(shop, checks=shop.checks)
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("INSERT INTO raw.orders VALUES (1, 2, NULL, TIMESTAMP '2024-01-03')")
    first = flow.materialize_all("daily_revenue", executor="sync")
    assert states(flow, first) == {"stg_orders": State.FAILED, "daily_revenue": State.UPSTREAM_FAILED}
    assert "unique_stg_orders_id" in next(iter(first.errors.values()))
    found = {one.check: one for one in flow.checks.results("stg_orders")}
    assert found["unique_stg_orders_id"].blocks
    assert found["unique_stg_orders_id"].metadata["failures"] == 1
    assert found["not_null_stg_orders_id"].passed

    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("UPDATE raw.orders SET id = 4 WHERE amount IS NULL")
    monkeypatch.setenv("SHOP_BREAK", "daily_revenue")
    with caplog.at_level(logging.INFO, "flowstone"):
        second = flow.runs.retry(first.run_id, executor="sync")
    assert states(flow, second) == {"stg_orders": State.COMPLETED, "daily_revenue": State.FAILED}
    warned = next(one for one in flow.checks.latest() if one.check == "not_null_stg_orders_amount")
    assert (warned.passed, warned.severity) == (False, Severity.WARNING)
    assert warned.description == "Got 1 result, configured to warn if != 0"
    assert "OK created sql view model main.stg_orders" in caplog.text
    failure = next(iter(second.errors.values()))
    assert "dbt build of model 'daily_revenue' failed (exit code 1):\n" in failure
    assert "no_such_column" in failure
    assert "The command was: dbt build --project-dir" in failure
    assert "--select fqn:shop.daily_revenue fqn:shop.revenue_adds_up" in failure

    monkeypatch.delenv("SHOP_BREAK")
    third = flow.runs.retry(second.run_id, executor="sync")
    assert states(flow, third) == {"daily_revenue": State.COMPLETED}
    value = flow.load("daily_revenue")
    assert isinstance(value, Published)
    assert value.location == '"shop"."main"."daily_revenue"'
    assert value.metadata["dbt"] == "model.shop.daily_revenue"
    assert rows(warehouse, "SELECT sum(revenue) FROM daily_revenue") == [(35,)]

    with duckdb.connect(str(warehouse)) as connection:  # what a check says later is what is true then
        connection.execute("UPDATE daily_revenue SET revenue = 100")
    (later,) = flow.checks.run("daily_revenue")
    assert (later.check, later.passed) == ("revenue_adds_up", False)


def test_a_partition_is_variables_and_what_is_odd_is_an_error(
    project: Path, warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that fails, and a node that the project has no longer: dbt makes no failure of a node of either."""
    days = DailyPartitions("2024-01-01", end="2024-01-05")
    shop = dbt_assets(project, select="daily_revenue countries", partitions=days, blocking=False)
    flow = FlowStone.for_testing(shop)
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("CREATE VIEW main.stg_orders AS SELECT * FROM raw.orders")
    flow.materialize("daily_revenue", partition="2024-01-02", executor="sync")
    assert rows(warehouse, "SELECT day::text, revenue FROM daily_revenue") == [("2024-01-02", 25)]

    monkeypatch.setenv("SHOP_BREAK", "hook")
    with pytest.raises(DbtError, match=r"Hook operation\.shop\.shop-on-run-end-0: (.|\n)*no_such_hook"):
        flow.materialize("countries", executor="sync")
    (project / "seeds" / "countries.csv").unlink()
    with pytest.raises(DbtProjectError, match=r"did not build seed\.shop\.countries.*run `dbt parse`"):
        flow.materialize("countries", executor="sync")
