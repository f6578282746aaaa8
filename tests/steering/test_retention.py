"""Pruning: what is needed is kept, the rest is gone with its values."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.config import Settings
from flowstone.stores.postgres.database import Database

NOW = timedelta(0)
LARGE = 200_000  # more than travels with a commit, so it is kept in chunks


@asset(io="filesystem")
def raw():
    return "raw"


@asset
def clean(raw):
    return raw.upper()


@asset
def large():
    return "x" * LARGE


@asset(partitions=StaticPartitions(["a", "b"]), io="filesystem")
def broken(context):
    if context.partition == "b":
        raise ValueError("no")
    return context.partition


@pytest.fixture
def flow(database_url: str, tmp_path: Path) -> FlowStone:
    settings = Settings(database_url=database_url, storage=str(tmp_path / "storage"), executor="sync")
    return FlowStone([raw, clean, large, broken], settings=settings)


def stored_files(flow: FlowStone) -> list[Path]:
    return [path for path in (Path(flow.settings.storage) / "values").rglob("*") if path.is_file()]


def files(flow: FlowStone) -> set[str]:
    return {path.name for path in stored_files(flow)}


def count(flow: FlowStone, table: str) -> int:
    with Database(flow.settings.database_url or "").dedicated() as connection:
        row = connection.execute(f"SELECT count(*) FROM flowstone.{table}").fetchone()  # type: ignore[arg-type]
        assert row is not None
        return int(row[0])


def test_current_versions_and_what_they_were_made_from_are_kept(flow: FlowStone) -> None:
    with flow:
        first = flow.materialize_all("clean")
        kept = files(flow)
        flow.materialize("raw", force=True)  # clean still stands on the first one
        assert flow.retention.prune(older_than=NOW).steps == 0
        assert kept < files(flow)
        flow.materialize("clean", force=True)
        pruned = flow.retention.prune(older_than=NOW)
        assert (pruned.steps, pruned.runs) == (2, 1)
        assert not kept & files(flow)
        assert len(files(flow)) == 1
        assert count(flow, "output_payloads") == 1
        assert (flow.load("raw"), flow.load("clean")) == ("raw", "RAW")
        assert first.run_id not in {run.id for run in flow.runs.latest()}
        again = flow.retention.prune(older_than=NOW)
        assert (again.steps, again.runs) == (0, 0)


def test_values_in_the_database_go_with_their_steps(flow: FlowStone) -> None:
    with flow:
        flow.materialize("large")
        chunks = count(flow, "output_chunks")
        assert chunks > 0
        flow.materialize("large", force=True)
        assert count(flow, "output_chunks") == 2 * chunks
        assert flow.retention.prune(older_than=NOW).steps == 1
        assert count(flow, "output_chunks") == chunks
        assert flow.load("large") == "x" * LARGE


def test_failures_go_and_a_reused_step_keeps_what_it_stands_on(flow: FlowStone) -> None:
    with flow:
        flow.backfill("broken")
        reused = flow.materialize("broken", partition="a")
        flow.materialize("broken", partition="a", force=True)
        with Database(flow.settings.database_url or "").dedicated() as connection:
            connection.execute(
                "UPDATE flowstone.runs SET finished_at = now() - interval '1 day' WHERE id <> %s", [reused.run_id]
            )
        day = timedelta(hours=12)
        pruned = flow.retention.prune(older_than=day)
        assert (pruned.steps, pruned.runs) == (1, 0)  # the failure; the reused step is young
        assert reused.value == "a"
        assert count(flow, "attempts") == 2
        assert flow.retention.prune(older_than=NOW).steps == 2
        assert len(files(flow)) == 1
        assert flow.load("broken", partition="a") == "a"


def test_young_runs_are_kept_and_odd_ages_are_fine(flow: FlowStone) -> None:
    with flow:
        flow.materialize("large")
        flow.materialize("large", force=True)
        assert flow.retention.prune().steps == 0
        assert flow.retention.prune(older_than=timedelta.max).steps == 0
        assert flow.retention.prune(older_than=timedelta(days=1)).steps == 0
        assert flow.retention.prune(older_than=NOW).steps == 1


def test_a_file_that_is_gone_already_does_not_stop_it(flow: FlowStone) -> None:
    with flow:
        flow.materialize("raw")
        only = stored_files(flow)[0]
        flow.materialize("raw", force=True)
        only.unlink()
        assert flow.retention.prune(older_than=NOW).steps == 1


def test_running_runs_are_not_touched(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("quick", 3)
    crew.take(demand=1)
    with crew.store.database.dedicated() as connection:
        connection.execute("UPDATE flowstone.runs SET created_at = now() - interval '900 days'")
    crew.flow.cancel_job(str(crew.flow.runs.steps(run)[2].id))
    pruned = crew.flow.retention.prune(older_than=NOW)
    assert (pruned.steps, pruned.runs) == (0, 0)
    assert crew.flow.runs.get(run).total == 3


def test_edges_of_what_is_gone_do_not_stay(crew: Crew) -> None:
    keys = ITEMS[:3]
    crew.flow.backfill("fragile or after", partitions=keys, executor="sync")
    crew.flow.backfill("after", partitions=keys, executor="sync", force=True)
    assert crew.rows("SELECT count(*) FROM flowstone.step_edges") == [(3,)]
    assert crew.flow.retention.prune(older_than=NOW).steps == 3
    assert crew.rows("SELECT count(*) FROM flowstone.step_edges") == [(0,)]
    assert len(crew.flow.history("fragile")) == 3
