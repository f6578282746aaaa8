"""The scale profiles keep what the product promises of its tables, and the app opens on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.invariants import VIOLATIONS
from tests.scale.app import LARGE, M, S, Scale, make_flow

from flowstone.stores.postgres.database import Database

OPEN_ON_PURPOSE = {"a step is still active", "a run is still open", "a job is left on the queue"}


def check(dsn: str, scale: Scale, storage: Path) -> int:
    """Check every promise, and that the app opens; return the number of steps."""
    broken = {}
    with Database(dsn).dedicated() as connection:
        for promise, violation in VIOLATIONS.items():
            statement = violation
            if promise == "a run counts wrongly":  # of those that are over
                statement = statement.replace("WHERE r.open", "WHERE r.state <> 'running' AND (r.open") + ")"
            if promise not in OPEN_ON_PURPOSE:
                broken[promise] = connection.execute(statement).fetchmany(3)  # type: ignore[arg-type]
        found = connection.execute("SELECT count(*) FROM flowstone.steps").fetchone()
    assert {promise: rows for promise, rows in broken.items() if rows} == {}
    with make_flow(scale, dsn, str(storage)) as flow:
        assert flow.runs.get("backfill-999999").state == "running"
        assert flow.runs.get("backfill-000002").counts == {"completed": scale.hours}
        ended = flow.runs.get(f"backfill-{scale.pruned + scale.full:06}")
        assert sum(ended.counts.values()) == scale.hours
        assert ended.selection == LARGE
        assert len(flow.approvals.list()) == scale.pending
        assert flow.schedules.get("nightly").last is not None
    assert found is not None
    return int(found[0])


def test_every_promise_holds_at_scale_s(small_scale: str, tmp_path: Path) -> None:
    assert check(small_scale, S, tmp_path) > 3_000


@pytest.mark.slow
def test_every_promise_holds_at_scale_m(large_scale: str, tmp_path: Path) -> None:
    assert 1_000_000 <= check(large_scale, M, tmp_path) <= 1_050_000
    with Database(large_scale).dedicated() as connection:
        counts = connection.execute(
            """
            SELECT (SELECT count(*) FROM flowstone.runs AS r WHERE kind = 'backfill' AND state <> 'running'
                    AND (SELECT sum(total) FROM flowstone.ranges AS g WHERE g.run_id = r.id) = 100000),
                (SELECT count(*) FROM flowstone.current_outputs WHERE asset = 'events')
            """
        ).fetchone()
    assert counts is not None
    assert counts[0] == 50
    assert counts[1] > 99_000
