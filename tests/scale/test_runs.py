"""Lists of runs and their pages at scale M: no question reads a table of steps, attempts or runs to its end."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.scale.app import LARGE, M, make_flow
from tests.web.conftest import by_header

from flowstone import FlowStone
from flowstone.core.run_filter import RunFilter
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.runs import parameters_of
from flowstone.web.application import create_app

pytestmark = pytest.mark.slow

FILTERS = [
    "",
    "state:failed",
    "state:running",
    "-state:completed",
    "state:failed -kind:backfill since:720h",
    "kind:backfill",
    "-kind:backfill",
    f"asset:{LARGE}",
    f"-asset:{LARGE}",
    "automation:*",
    "-automation:*",
    "by:ann",
    "-by:ann",
    "tag:nightly",
    "-tag:nightly",
    "since:24h",
    "until:720h",
    "items_of:nothing",
]
_LARGE_TABLES = {"steps", "attempts", "runs", "ranges", "run_joins"}


@pytest.fixture(scope="module")
def flow(large_scale: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowStone]:
    storage: Path = tmp_path_factory.mktemp("storage")
    with make_flow(M, large_scale, str(storage)) as opened:
        yield opened


def scanned(plan: dict[str, Any]) -> set[str]:
    """Return the tables that a plan reads from end to end."""
    found = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return found.union(*(scanned(one) for one in plan.get("Plans", ())))


def explained(dsn: str, statement: str, parameters: dict[str, object]) -> dict[str, Any]:
    with Database(dsn).dedicated() as connection:
        row = connection.execute(
            "EXPLAIN (FORMAT JSON) " + load_sql(statement), parameters, prepare=False
        ).fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return plan[0]["Plan"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", FILTERS)
def test_no_filter_reads_a_table_from_end_to_end(flow: FlowStone, large_scale: str, text: str) -> None:
    """dagster#16993, airflow#49800, oban#1140."""
    parameters = parameters_of(RunFilter.parse(text), datetime.now(UTC))
    page = parameters | {"before_at": None, "before_id": None, "limit": 51}
    plan = explained(large_scale, "runs/page", page)
    assert not scanned(plan) & _LARGE_TABLES, json.dumps(plan, indent=1)[:6000]
    print(f"\n{text or 'all':45} {milliseconds(lambda: flow.insights.runs(text)):7.1f} ms")


def test_a_run_of_any_size_is_a_few_rows(flow: FlowStone, large_scale: str) -> None:
    runs = {"large, at work": "backfill-999999", "large, over": f"backfill-{M.pruned + M.full:06}"}
    for what, run_id in runs.items():
        print(f"\n{what:45} {milliseconds(lambda run=run_id: flow.insights.run(run)):7.1f} ms")
        for statement in ("failed", "counted"):
            plan = explained(large_scale, f"run_insights/{statement}", {"run_id": run_id, "limit": 100})
            assert not scanned(plan) & _LARGE_TABLES
    plan = explained(large_scale, "runs/at_work", {"runs": ["backfill-999999"]})
    assert not scanned(plan) & _LARGE_TABLES - {"run_joins"}, "which is nearly empty there"


def test_pages(flow: FlowStone) -> None:
    headers = {"sec-fetch-site": "same-origin", "x-role": "operator"}
    client = TestClient(create_app(flow, identify=by_header), base_url="http://localhost", headers=headers)
    for address in (
        "/runs",
        "/runs?filter=state:failed",
        "/runs?filter=-automation:*",
        "/run?id=backfill-999999",
        "/backfill?id=backfill-999999",
        f"/backfill?id=backfill-{M.pruned + M.full:06}",
    ):
        text = client.get(address).text
        took = milliseconds(lambda at=address: client.get(at))
        print(f"\n{address:45} {took:7.1f} ms {len(text) / 1000:6.1f} kB, {text.count('<') // 2} elements")
        assert text.count("<") // 2 <= 1500, address


def milliseconds(question: Any) -> float:
    question()
    times = []
    for _ in range(7):
        before = time.perf_counter()
        question()
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1000
