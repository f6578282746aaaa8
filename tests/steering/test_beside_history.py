"""What is asked about a run reads the steps of that run, not those of the past."""

from __future__ import annotations

import re
from typing import Any

from tests.faults.fault_app import ITEMS
from tests.scale.measure import Statement, recorded
from tests.steering.crew import Crew
from tests.steering.test_begun_at_commit import commit, nodes_of

from flowstone.core.state import State
from flowstone.sql import load_sql

TARGETS = ITEMS[:4]
MAX_ROWS = 200
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|nextval|pg_notify)\b")


def test_questions_about_a_run_read_no_steps_of_the_past(crew: Crew) -> None:
    """All statements that only read, from placing to the outcome, which reads as many as the run has.

    The outcome of a run read every step of the past, which took 2 s beside three million; an input read every
    version of its target.
    """
    crew.lease()
    _finish_of_the_past(crew)
    with recorded() as statements:
        run = crew.place_many("fragile or after", len(TARGETS), force=True)
        begun = commit(crew, crew.take())
        _ask(crew, run)
        commit(crew, [one.attempt for one in begun])
        again = crew.place_many("after", len(TARGETS), force=True)
        commit(crew, crew.take())
        _ask(crew, run)
        _ask(crew, again)
    assert crew.flow.runs.get(run).counts == {State.COMPLETED: 2 * len(TARGETS)}
    reads = {one.text: one for one in statements if "flowstone.steps" in one.text and not _WRITES.search(one.text)}
    recent = {"assets": ["after"], "partitions": [f"s:{TARGETS[0]}"], "run_id": "nothing", "seconds": 0.0}
    reads["recent"] = Statement(load_sql("ledger/recent"), recent, 0.0)
    for name in ("catalog/steps", "catalog/resolve", "catalog/skipped", "versions/of_run"):
        assert load_sql(name) in reads, name
    many = {text.partition("\n")[0]: rows for text, one in reads.items() if (rows := _rows(crew, one)) > MAX_ROWS}
    assert many == {}


def _finish_of_the_past(crew: Crew) -> None:
    """Many versions of the targets of the run, and many steps of others, in runs that are larger."""
    for asset, items, versions in (("fragile", 4, 1_000), ("after", 4, 1_000), ("gated", 400, 100)):
        crew.execute(
            "INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt,"
            " max_attempts, created_at, output_step, finished_at, placed_at) SELECT"
            " id, 'old-' || id / 8000, %s, 's:' || item, 'completed', 9, 'backfill', 1, 1, o.at, id, o.at,"
            " o.at FROM (SELECT nextval('flowstone.step_ids') AS id, item FROM generate_series(1, %s),"
            " unnest(%s::text[]) AS item) AS s, (SELECT now() - interval '1 day' AS at) AS o",
            asset,
            versions,
            ITEMS[:items],
        )
    crew.execute("VACUUM (ANALYZE) flowstone.steps")


def _ask(crew: Crew, run: str) -> None:
    """As callers that wait, outcomes, pages and workers that have committed none of the inputs themselves do."""
    keys = [f"s:{item}" for item in TARGETS]
    for state in (None, State.COMPLETED, State.FAILED, State.PENDING):
        crew.flow.runs.steps(run, state=state)
        crew.flow.runs.steps(run, state=state, limit=1)
    crew.flow.runs.get(run)
    for given in (run, "nothing"):
        crew.store.catalog.resolve([(given, "fragile", key) for key in keys])
        crew.store.catalog.skipped([(given, "fragile", key) for key in keys])
        for key in keys:
            crew.store.versions.of_run(("after", key), given)


def _rows(crew: Crew, statement: Statement) -> int:
    """Return how many rows of the steps a statement reads, those that it does not want after all among them."""
    explain: Any = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}"
    with crew.store.database.connection() as connection:
        row = connection.execute(explain, statement.parameters).fetchone()
    assert row is not None
    return sum(_read(node) for node in nodes_of(row[0][0]["Plan"]) if node.get("Relation Name") == "steps")


def _read(scan: dict[str, Any]) -> int:
    removed = scan.get("Rows Removed by Filter", 0) + scan.get("Rows Removed by Index Recheck", 0)
    return round((scan["Actual Rows"] + removed) * scan["Actual Loops"])
