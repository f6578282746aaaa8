"""Tests: the checks as plain functions, then the warehouse as its readers see it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from elt_duckdb.pipeline import build, ids_are_unique
from flowstone import FlowStone


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path


def export(place: Path, day: str, *rows: str) -> None:
    path = place / "inbox" / f"orders-{day}.csv"
    path.write_text("\n".join(["id,customer,cents", *rows, ""]))
    # a sensor leaves what is younger than its own clock for later, and file systems have clocks of their own
    written = time.time() - 5
    os.utime(path, (written, written))


def select(place: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(place / "warehouse.duckdb"), read_only=True) as warehouse:
        return warehouse.execute(query).fetchall()


@pytest.fixture
def flow(place: Path) -> Iterator[FlowStone]:
    with build(place, settle=0) as flow:
        yield flow


def test_doubled_ids_are_counted() -> None:
    assert ids_are_unique(pa.table({"id": [1, 1, 2]})).metadata == {"doubled": 1}


def test_days_become_tables_that_others_read(place: Path, flow: FlowStone) -> None:
    export(place, "2024-01-01", "1,Ann,1200", "2,Bob,3000")
    export(place, "2024-01-02", "3,Ann,800", "4,Ann,100")
    flow.sensors.evaluate("exports")
    flow.materialize("best_customers")
    assert select(place, "SELECT customer, cents FROM best_customers") == [("Bob", 3000), ("Ann", 2100)]
    assert select(place, "SELECT count(*) FROM orders WHERE flowstone_partition = '2024-01-02'") == [(2,)]


def test_a_day_that_is_refused_is_not_published(place: Path, flow: FlowStone) -> None:
    export(place, "2024-01-01", "1,Ann,1200", "1,Ann,1200")
    export(place, "2024-01-02", "2,Bob,1000")
    flow.sensors.evaluate("exports")
    assert select(place, "SELECT DISTINCT flowstone_partition FROM orders") == [("2024-01-02",)]
    export(place, "2024-01-01", "1,Ann,1200")
    flow.sensors.evaluate("exports")
    assert select(place, "SELECT sum(cents) FROM orders") == [(2200,)]
