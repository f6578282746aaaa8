"""Steps of the real dbt on the real DuckDB: event times, a full refresh, sources, a dbt of another environment."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from tests.dbt.projects import ORDERS, parse

from flowstone import DailyPartitions, FlowStone
from flowstone.core.published import Published
from flowstone.core.step import Severity
from flowstone.dbt import dbt_assets
from flowstone.errors import DefinitionError

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("project", ["duckdb"], indirect=True)]

DAYS = DailyPartitions("2024-01-01", end="2024-01-05")


@pytest.fixture
def warehouse(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = project / "shop.duckdb"
    monkeypatch.setenv("SHOP_DUCKDB", str(path))
    with duckdb.connect(str(path)) as connection:
        connection.execute(ORDERS)
        connection.execute("CREATE VIEW main.stg_orders AS SELECT * FROM raw.orders")
    return path


def rows(warehouse: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.execute(query).fetchall()


def change(warehouse: Path, statement: str) -> None:
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(statement)


def test_a_partition_of_a_microbatch_model_is_its_event_time(project: Path, warehouse: Path) -> None:
    """astronomer-cosmos#3008, dbt-labs/dbt-bigquery#1437: a partition is a batch, and leaves the others alone.

    dbt-labs/dbt-fusion#1326: after a full refresh the table has the data of this one run alone.
    """
    (project / "models" / "batched.sql").write_text(
        "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='ordered_at', "
        "begin='2024-01-01', batch_size='day') }}\n"
        "select id, ordered_at, current_timestamp as made_at from {{ source('raw', 'orders') }}\n"
    )
    sources = project / "models" / "staging" / "sources.yml"
    sources.write_text(
        sources.read_text().replace("loaded_at_field", "config: {event_time: ordered_at}\n        loaded_at_field")
    )
    parse(project)
    shop = dbt_assets(project, select="batched", exclude="source:raw.orders", partitions=DAYS)
    flow = FlowStone.for_testing(shop)
    for day in ("2024-01-01", "2024-01-02"):
        flow.materialize("batched", partition=day, executor="sync")
    found = "SELECT id, made_at FROM batched ORDER BY id"
    before = rows(warehouse, found)
    assert [one[0] for one in before] == [1, 2, 3]
    change(warehouse, "INSERT INTO raw.orders VALUES (4, 1, 7, TIMESTAMP '2024-01-02 23:59:59.9')")
    flow.materialize("batched", partition="2024-01-02", executor="sync", force=True)
    after = rows(warehouse, found)
    assert [one[0] for one in after] == [1, 2, 3, 4]
    assert after[0] == before[0], "the other day was not touched"
    assert all(one[1] > before[1][1] for one in after[1:])  # type: ignore[operator]

    with pytest.raises(DefinitionError, match=r"full_refresh.*one partition.*drop the others"):
        flow.materialize(
            "batched", partition="2024-01-01", executor="sync", force=True, config={"full_refresh": True}
        )
    assert rows(warehouse, found) == after


def test_a_full_refresh_builds_an_incremental_model_anew(project: Path, warehouse: Path) -> None:
    """Without it, what the query no longer returns stays; variables of a run win over those of the declaration."""
    shop = dbt_assets(
        project, select="daily_revenue", vars={"partition_start": "2024-01-02", "partition_end": "2025"}
    )
    flow = FlowStone.for_testing(shop)
    every = {"daily_revenue": {"vars": {"partition_start": "2024-01-01", "partition_end": "2025-01-01"}}}
    flow.materialize("daily_revenue", executor="sync", config=every)
    found = "SELECT day::text, revenue FROM daily_revenue ORDER BY day"
    assert rows(warehouse, found) == [("2024-01-01", 10), ("2024-01-02", 25)]
    change(warehouse, "DELETE FROM raw.orders WHERE id = 1")
    flow.materialize("daily_revenue", executor="sync", force=True, config=every)
    assert rows(warehouse, found) == [("2024-01-01", 10), ("2024-01-02", 25)]
    refresh = {"daily_revenue": every["daily_revenue"] | {"full_refresh": True}}
    made = flow.materialize("daily_revenue", executor="sync", force=True, config=refresh)
    assert rows(warehouse, found) == [("2024-01-02", 25)]
    assert isinstance(made.value, Published)


def test_a_source_is_observed_as_old_as_its_newest_row(project: Path, warehouse: Path) -> None:
    """dagster#29786, dagster#18641: its freshness and its tests are those of the project."""
    shop = dbt_assets(project, select="stg_orders")
    flow = FlowStone.for_testing(shop, checks=shop.checks)
    first = flow.materialize("raw.orders", executor="sync").value
    assert isinstance(first, Published)
    assert first.location == '"shop"."raw"."orders"'
    assert datetime.fromisoformat(str(first.version)).replace(tzinfo=None) == datetime(2024, 1, 2, 12)
    assert first.metadata["age_seconds"] > 86_400  # type: ignore[operator]
    found = {one.check: one for one in flow.checks.results("raw.orders")}
    assert (found["freshness"].passed, found["freshness"].severity) == (False, Severity.WARNING)
    assert "newest row: 2024-01-02" in found["freshness"].description
    assert found["source_unique_raw_orders_id"].passed

    change(warehouse, "INSERT INTO raw.orders VALUES (3, 1, 7, TIMESTAMP '2024-01-03 08:00')")
    run = flow.materialize_all("raw.orders", executor="sync", force=True)
    assert not run.ok
    assert "source_unique_raw_orders_id" in next(iter(run.errors.values()))
    assert flow.load("raw.orders").version == first.version


def test_a_dbt_of_another_environment(
    project: Path, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """astronomer-cosmos#401, #670, #1388: another interpreter and prefix, and no dbt on the path of the worker."""
    other = tmp_path / "other environment"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (other / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    packages = other / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    here = next(entry for entry in sys.path if entry.endswith("site-packages"))
    seen = tmp_path / "seen"
    (packages / "ours.pth").write_text(
        f"{here}\nimport sys; open({str(seen)!r}, 'a').write(sys.prefix + chr(10))\n"
    )
    dbt = other / "bin" / "dbt"
    dbt.write_text(f"#!/bin/sh\nexec '{other}/bin/python' -c 'from dbt.cli.main import cli; cli()' \"$@\"\n")
    dbt.chmod(0o755)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    shop = dbt_assets(project, select="countries", dbt_executable=dbt)
    made = FlowStone.for_testing(shop).materialize("countries", executor="sync")
    assert made.value.location == '"shop"."main"."countries"'
    assert rows(warehouse, "SELECT count(*) FROM countries") == [(2,)]
    assert str(other) in seen.read_text().splitlines()
