"""`flowstone publications` and `doctor`: what is committed and not yet visible to others, and made so."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient
from tests.cli.conftest import CommandLine
from tests.web.conftest import by_header

from flowstone import FlowStone
from flowstone.web import create_app

APP = """
import os

import pyarrow

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.io import TableIO


class Warehouse(TableIO):
    def publish(self, publication, connection):
        if os.environ.get("AWAY"):
            raise ConnectionError("the warehouse is away")
        return super().publish(publication, connection)


@asset(io="warehouse", partitions=StaticPartitions(["eu", "us"]))
def orders():
    return pyarrow.table({"n": [1]})


flow = FlowStone([orders], io={"warehouse": Warehouse(os.environ["WAREHOUSE"], name="warehouse")})
"""


def test_what_others_do_not_see_yet_is_listed_and_published(
    cli: CommandLine,
    tmp_path: Path,
    database_url: str,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "shop:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("WAREHOUSE", empty_database_url)
    assert "Readers see everything" in cli("publications").out
    assert not [one for one in cli("doctor", "--json").json["checks"] if one["name"] == "publications"]
    monkeypatch.setenv("AWAY", "1")
    assert cli("materialize", "orders", "--partition", "eu", "--executor", "sync").code == 0
    listed = cli("publications", "--json").json["unpublished"]
    assert [(one["asset"], one["partition"], one["io"], one["in_use"]) for one in listed] == [
        ("orders", "eu", "warehouse", True)
    ]
    assert "flowstone publications --publish" in cli("publications").err
    (early,) = [one for one in cli("doctor", "--json").json["checks"] if one["name"] == "publications"]
    assert early["verdict"] == "ok"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE flowstone.unpublished SET noted_at = noted_at - interval '1 hour'")
    doctor = cli("doctor")
    assert "1 committed and not yet visible to other readers, by the IO manager 'warehouse', since" in doctor.out
    assert cli("publications", "--publish").code == 1
    with FlowStone([], database_url=database_url) as flow:
        dashboard = create_app(flow, identify=by_header)
        client = TestClient(dashboard, base_url="http://localhost", headers={"x-role": "operator"})
        page = client.get("/partition", params={"asset": "orders", "partition": "eu"})
        assert "which this app does not declare" in page.text
        assert "committed and not yet visible to other readers" in client.get("/system").text
    monkeypatch.delenv("AWAY")
    done = cli("publications", "--publish", "--json")
    assert (done.code, done.json) == (0, {"unpublished": [], "published": 1})
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT n, flowstone_partition FROM orders").fetchall() == [(1, "eu")]
