"""At scale M no question of a page reads all steps, attempts or runs, and what is asked once a second is cheap."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from tests.scale.app import LARGE, M, make_flow

from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database

HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
QUEUES = ["assets", "backfill", "gpu", "nothing"]
QUESTIONS: dict[str, dict[str, Any]] = {
    "pulse/pulse": {},
    "insights/workers": {"limit": 500},
    "insights/running": {"worker": None, "queue": None, "limit": 500},
    "insights/queues": {},
    "insights/jobs": {"queues": QUEUES, "limit": 10_001},
    "insights/flow": {"queues": QUEUES},
    "insights/waits": {"queues": QUEUES, "limit": 200, "by_minute": False},
    "insights/minutes": {"since": HOUR_AGO},
    "insights/limits": {"limit": 500, "counted": 10_001},
    "asset_insights/committed": {"asset": LARGE},
    "asset_insights/failed": {"asset": LARGE},
    "asset_insights/active": {"asset": LARGE},
    "asset_insights/unstarted": {"asset": LARGE},
    "asset_insights/counts": {},
    "asset_insights/failures": {"assets": [LARGE, "billing_041"], "limit": 10},
    "overview_insights/find_runs": {"text": "backfill-0000", "limit": 20},
    "overview_insights/stale_assets": {
        "assets": ["billing_041", "events_daily"],
        "code_versions": [None, "1"],
        "limit": 50,
    },
}
"""Each question of the first page, the search, queues and workers, with parameters."""


def read_whole(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the tables that a plan reads from end to end."""
    if "Seq Scan" in plan["Node Type"]:
        yield plan["Relation Name"]
    for below in plan.get("Plans", ()):
        yield from read_whole(below)


@pytest.mark.slow
def test_no_question_reads_all_steps_attempts_or_runs(large_scale: str) -> None:
    """dagster#16993, airflow#49800, oban#1140: lists became slow as the history grew."""
    found = {}
    with Database(large_scale) as database, database.connection() as connection:
        for name, parameters in QUESTIONS.items():
            row = connection.execute("EXPLAIN (FORMAT JSON) " + load_sql(name), parameters).fetchone()
            assert row is not None
            if whole := {"steps", "attempts", "runs"} & set(read_whole(row[0][0]["Plan"])):
                found[name] = whole
    assert found == {}


@pytest.mark.slow
def test_the_newest_failures_are_found_without_reading_all_of_an_asset(large_scale: str) -> None:
    """Thousands have failed: joined with each other they were 3,600 blocks, and 60 ms among ten million steps."""
    name = "asset_insights/failures"
    with Database(large_scale) as database, database.connection() as connection:
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
        row = connection.execute(explain + load_sql(name), QUESTIONS[name]).fetchone()
        assert row is not None
        plan = row[0][0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1_000


@pytest.mark.slow
def test_idle_viewers_cost_next_to_nothing(large_scale: str) -> None:
    """dagster#23500, oban#496: pages that nobody touched kept the database busy. At most 5 ms each second."""
    with Database(large_scale) as database, database.connection() as connection:
        took = []
        for _ in range(20):
            row = connection.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + load_sql("pulse/pulse")).fetchone()
            assert row is not None
            took.append(row[0][0]["Execution Time"])
    assert median(took) <= 5.0


@pytest.mark.slow
def test_pages_are_made_of_few_questions(large_scale: str, tmp_path: Path) -> None:
    """A first page in 60 ms, all partitions of an asset in 150 ms: of processor time, whatever else runs here."""
    with make_flow(M, large_scale, str(tmp_path)) as flow, flow.reading() as reading:
        for ask, budget in ((lambda one: one.overview(), 0.06), (lambda one: one.partitions(LARGE), 0.15)):
            took = []
            for _ in range(5):
                with reading.snapshot() as insights:
                    started = time.process_time()
                    ask(insights)
                    took.append(time.process_time() - started)
            assert median(took) <= budget
        states = flow.insights.partitions(LARGE).states
        assert states.total == M.hours == sum(states.counts.values())
        assert len(states.codes) <= 30_000
        assert states.counts["unstarted"] > 0
