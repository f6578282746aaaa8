"""The real dbt on the real PostgreSQL, its steps on the durable executor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.waiting import eventually

from flowstone import FlowStone, State
from flowstone.core.published import Published
from flowstone.dbt import DbtAssets, dbt_assets
from flowstone.testing.workers import worker

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("project", ["postgres"], indirect=True)]


@pytest.fixture
def shop(project: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> DbtAssets:
    given = conninfo_to_dict(database_url)
    names = {"SHOP_HOST": "host", "SHOP_PORT": "port", "SHOP_USER": "user", "SHOP_PASSWORD": "password"}
    for variable, name in {**names, "SHOP_DATABASE": "dbname"}.items():
        if given.get(name):
            monkeypatch.setenv(variable, str(given[name]))
    return dbt_assets(project, target="postgres", select="nap_one nap_two sleepy")


@pytest.fixture
def flow(shop: DbtAssets, database_url: str) -> Iterator[FlowStone]:
    with FlowStone(shop, checks=shop.checks, database_url=database_url) as flow, worker(flow):
        yield flow


ACTIVE = """
    SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()
"""


def running(database_url: str, call: str) -> int:
    """How many models make this call now."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(ACTIVE, [f"%{call}%"]).fetchone()
    assert row is not None
    return int(row[0])


def test_models_run_side_by_side_and_are_published(flow: FlowStone, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(4)")  # until both are there, however long dbt takes to start
        run = flow.materialize_all("nap_one or nap_two", wait=False)
        eventually(lambda: running(database_url, "pg_advisory_xact_lock_shared(4)") == 2, timeout_seconds=120)
    result = run.wait(timeout_seconds=300)
    assert result.ok, result.errors
    nap = flow.load("nap_one")
    assert isinstance(nap, Published)
    assert nap.location == f'"{conninfo_to_dict(database_url)["dbname"]}"."shop"."nap_one"'
    assert nap.metadata["rows"] == 1
    with psycopg.connect(database_url) as connection:
        assert connection.execute(f"SELECT count(*) FROM {nap.location}").fetchone() == (1,)  # type: ignore[arg-type]


def test_a_cancel_ends_dbt_and_its_query(flow: FlowStone, database_url: str) -> None:
    job = flow.schedule("sleepy")
    eventually(lambda: running(database_url, "pg_sleep(600)") == 1, timeout_seconds=120)
    flow.cancel_job(job)
    eventually(lambda: flow.job_status(job) is State.CANCELLED)
    assert running(database_url, "pg_sleep(600)") == 0
