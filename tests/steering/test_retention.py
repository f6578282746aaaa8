"""Pruning: what is needed is kept, the rest is gone with its values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.faults.fault_app import ITEMS
from tests.scale.measure import recorded
from tests.steering.crew import Crew

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.app.admin import Pruned
from flowstone.config import Settings
from flowstone.core.automation.record import AutomationId, AutomationKind, Conclusion, NewTick, TickState
from flowstone.core.output import StoredOutput
from flowstone.io import MemoryIO
from flowstone.stores.postgres import control
from flowstone.stores.postgres.database import Database
from flowstone.testing.marks import wait_until

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
    given_settings = Settings(database_url=database_url, storage=str(tmp_path / "storage"), executor="sync")
    return FlowStone([raw, clean, large, broken], settings=given_settings)


def stored_files(flow: FlowStone) -> list[Path]:
    return [path for path in (Path(flow.settings.storage) / "values").rglob("*") if path.is_file()]


def files(flow: FlowStone) -> set[str]:
    return {path.name for path in stored_files(flow)}


def prune(flow: FlowStone, older_than: timedelta | None = None) -> Pruned:
    """Prune, and check that this is what was foretold."""
    foretold = flow.retention.prune(older_than=older_than, dry_run=True)
    pruned = flow.retention.prune(older_than=older_than)
    # what is out of reach shows when it is tried, and leftovers when they are looked for
    assert foretold == replace(pruned, dry_run=True, leftovers=0, out_of_reach={})
    return pruned


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
        assert prune(flow, older_than=NOW).steps == 0
        assert kept < files(flow)
        flow.materialize("clean", force=True)
        pruned = prune(flow, older_than=NOW)
        assert (pruned.steps, pruned.runs) == (2, 1)
        assert not kept & files(flow)
        assert len(files(flow)) == 1
        assert count(flow, "output_payloads") == 1
        assert (flow.load("raw"), flow.load("clean")) == ("raw", "RAW")
        assert first.run_id not in {run.id for run in flow.runs.latest()}
        again = prune(flow, older_than=NOW)
        assert (again.steps, again.runs) == (0, 0)


def test_values_in_the_database_go_with_their_steps(flow: FlowStone) -> None:
    with flow:
        flow.materialize("large")
        chunks = count(flow, "output_chunks")
        assert chunks > 0
        flow.materialize("large", force=True)
        assert count(flow, "output_chunks") == 2 * chunks
        assert prune(flow, older_than=NOW).steps == 1
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
        pruned = prune(flow, older_than=day)
        assert (pruned.steps, pruned.runs) == (1, 0)  # the failure; the reused step is young
        assert reused.value == "a"
        assert count(flow, "attempts") == 2
        assert prune(flow, older_than=NOW).steps == 2
        assert len(files(flow)) == 1
        assert flow.load("broken", partition="a") == "a"


def test_young_runs_are_kept_and_odd_ages_are_fine(flow: FlowStone) -> None:
    with flow:
        flow.materialize("large")
        flow.materialize("large", force=True)
        assert prune(flow).steps == 0
        assert prune(flow, older_than=timedelta.max).steps == 0
        assert prune(flow, older_than=timedelta(days=1)).steps == 0
        assert prune(flow, older_than=NOW).steps == 1


def test_a_file_that_is_gone_already_does_not_stop_it(flow: FlowStone) -> None:
    with flow:
        flow.materialize("raw")
        only = stored_files(flow)[0]
        flow.materialize("raw", force=True)
        only.unlink()
        assert prune(flow, older_than=NOW).steps == 1


def test_running_runs_are_not_touched(crew: Crew) -> None:
    crew.lease()
    run = crew.place_many("quick", 3)
    crew.take(demand=1)
    with crew.store.database.dedicated() as connection:
        connection.execute("UPDATE flowstone.runs SET created_at = now() - interval '900 days'")
    crew.flow.cancel_job(str(crew.flow.runs.steps(run)[2].id))
    pruned = prune(crew.flow, older_than=NOW)
    assert (pruned.steps, pruned.runs) == (0, 0)
    assert crew.flow.runs.get(run).total == 3


def test_edges_of_what_is_gone_do_not_stay(crew: Crew) -> None:
    keys = ITEMS[:3]
    crew.flow.backfill("fragile or after", partitions=keys, executor="sync")
    crew.flow.backfill("after", partitions=keys, executor="sync", force=True)
    assert crew.rows("SELECT count(*) FROM flowstone.step_edges") == [(3,)]
    assert prune(crew.flow, older_than=NOW).steps == 3
    assert crew.rows("SELECT count(*) FROM flowstone.step_edges") == [(0,)]
    assert len(crew.flow.history("fragile")) == 3


def test_what_would_go_is_shown_before_and_stays(flow: FlowStone) -> None:
    with flow:
        for _ in range(3):
            flow.materialize("raw", force=True)
            flow.materialize("clean", force=True)
        flow.materialize("large", force=True)
        flow.materialize("large", force=True)
        flow.materialize("raw", force=True)
        before = count(flow, "steps")
        foretold = flow.retention.prune(older_than=NOW, dry_run=True)
        assert foretold == flow.retention.prune(older_than=NOW, dry_run=True)
        assert count(flow, "steps") == before
        # the last clean stands on the third raw; two of each went, and one large
        assert (foretold.steps, foretold.runs, foretold.values) == (5, 5, 5)
        assert foretold.size_bytes > LARGE
        assert prune(flow, NOW) == replace(foretold, dry_run=False)


@given(st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_dry_run_says_what_the_real_one_does(flow: FlowStone, data: st.DataObject) -> None:
    verbs = st.sampled_from(["raw", "clean", "raw, forced", "clean, forced", "both", "reused", "prune"])
    for verb in data.draw(st.lists(verbs, min_size=3, max_size=12)):
        name, _, forced = verb.partition(", ")
        if verb == "prune":
            age = data.draw(st.sampled_from([NOW, timedelta(hours=1)]))
            prune(flow, age)
            with Database(flow.settings.database_url or "").dedicated() as connection:
                connection.execute("UPDATE flowstone.runs SET finished_at = finished_at - interval '40 minutes'")
        elif verb in ("both", "reused"):
            flow.materialize_all("clean", force=verb == "both", force_deps=verb == "both")
        elif name == "raw" or flow.exists("raw"):
            flow.materialize(name, force=bool(forced))
    prune(flow, NOW)
    assert flow.retention.prune(older_than=NOW, dry_run=True).steps == 0


@asset(partitions=StaticPartitions([f"p{n:02}" for n in range(30)]))
def part(context):
    return str(context.partition)


@asset(partitions=StaticPartitions([f"p{n:02}" for n in range(30)]))
def reader(part):
    return part


@pytest.fixture
def many(database_url: str) -> Iterator[FlowStone]:
    with FlowStone([part, reader], settings=Settings(database_url=database_url, executor="sync")) as flow:
        yield flow


def test_values_go_with_a_few_statements_not_one_by_one(many: FlowStone) -> None:
    for _ in range(3):
        many.backfill("+reader", force=True)
    with recorded() as statements:
        pruned = many.retention.prune(older_than=NOW)
    assert (pruned.steps, pruned.values, count(many, "output_payloads")) == (120, 120, 60)
    assert len(statements) < 40


@pytest.mark.parametrize("batch", [1, 7, 60, 61])
def test_what_is_kept_is_read_once_in_whatever_batches(
    many: FlowStone, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_BATCH", batch)
    many.backfill("+reader")
    for key in ("p03", "p10", "p29"):
        many.materialize_all("reader", partition=key, force=True, force_deps=True)
        many.materialize("part", partition=key, force=True)  # the reader above still stands on the one before
    with recorded() as statements:
        pruned = many.retention.prune(older_than=NOW)
    # of the first run what was computed again; of the others nothing: 3 x 3 + 54 + 3 are kept, gone are 3 x 2
    assert (pruned.steps, count(many, "steps")) == (6, 63)
    batches = sum("once the others are gone as well" in one.text for one in statements)
    # two passes over 69 steps at most, each step in one batch; a run that is larger than a batch has its own
    assert batches <= 2 * (69 // batch + 2)
    assert many.retention.prune(older_than=NOW).steps == 0
    assert [many.load("reader", partition=f"p{n:02}") for n in range(30)] == [f"p{n:02}" for n in range(30)]


def test_what_an_older_run_reads_stays_until_that_goes(many: FlowStone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_BATCH", 1)
    many.materialize("part", partition="p00")
    many.materialize("reader", partition="p00")
    many.materialize("part", partition="p00", force=True)
    # the run that reads ended before the one that it read from, as when clocks of two servers differ
    with Database(many.settings.database_url or "").dedicated() as connection:
        connection.execute(
            "UPDATE flowstone.runs SET finished_at = finished_at - interval '1 hour' WHERE selection = 'reader'"
        )
    assert many.retention.prune(older_than=NOW).steps == 0
    many.materialize("reader", partition="p00", force=True)
    assert many.retention.prune(older_than=NOW).steps == 2


def test_ticks_go_by_their_age(flow: FlowStone) -> None:
    with flow:
        inbox = AutomationId(AutomationKind.SENSOR, "inbox")
        automations = flow.parts.store.automations
        automations.declare([inbox])
        (taken,) = automations.take([inbox], lease_seconds=9.0)
        tick = NewTick(at=taken.now, state=TickState.SKIPPED)
        assert automations.conclude(taken, Conclusion(ticks=[tick], cursor=None, due_at=None)).accepted
        assert prune(flow, timedelta(hours=1)).ticks == 0
        assert prune(flow, NOW).ticks == 1
        assert prune(flow, NOW).ticks == 0


def old(path: Path) -> Path:
    """Let a file seem to have been written long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    os.utime(path, (0, 0))
    return path


def test_leftovers_of_dead_attempts_go_and_those_of_live_ones_stay(flow: FlowStone) -> None:
    with flow:
        made = flow.materialize("raw")
        step, token = made.step_id, int(made.stored.location.split(".")[1])
        result = flow.materialize_all("broken", partition="b")
        assert result.failed
        (failed_step,) = [one.id for one in flow.parts.store.catalog.steps(result.run_id)]
        place = Path(flow.settings.storage) / "values" / "raw" / "@unpartitioned"
        dead = [
            old(place / f"{step}-7.json"),  # an attempt that is not the one that succeeded
            old(place / f"{step}-1.{token - 1}.json"),  # the same one, before it was released
            old(place / f"{failed_step}-1.json"),  # as earlier versions of FlowStone named it
            old(place / f"{failed_step}-1.1.json"),
            old(place / f".{failed_step}-1.json.0123456789abcdef.tmp"),
            old(place / ".0123456789abcdef.tmp"),  # of an earlier version of FlowStone
        ]
        live = flow.schedule("clean", executor="oban", force=True)
        waiting = [
            old(place / f"{live.id}-1.json"),
            old(place / f"{live.id}-1.7.json"),
            old(place / f".{live.id}-1.json.0123456789abcdef.tmp"),
            old(place / "999999999-1.json"),  # of another database, perhaps
            old(place / "notes.txt"),
        ]
        young = place / f"{failed_step}-2.json"
        young.touch()
        database = Database(flow.settings.database_url or "")
        with database.dedicated() as connection:
            for version in (f"{failed_step}-1", f"{live.id}-1"):
                connection.execute("INSERT INTO flowstone.output_chunks VALUES (%s, 0, '')", [version])
        pruned = flow.retention.prune(older_than=timedelta(days=1))
        assert pruned.leftovers == len(dead) + 1
        assert not any(path.exists() for path in dead)
        assert all(path.exists() for path in (*waiting, young))
        assert flow.load("raw") == "raw"
        with database.dedicated() as connection:
            left = connection.execute("SELECT version FROM flowstone.output_chunks").fetchall()
        assert left == [(f"{live.id}-1",)]
        flow.cancel_job(live)
        assert flow.retention.sweep() == 4


class Elsewhere(MemoryIO):
    """A manager without a sweep, whose storage refuses to delete."""

    shared = True  # type: ignore[assignment]

    def discard(self, stored: StoredOutput) -> None:
        raise PermissionError("not yours")


@asset(io="elsewhere")
def far():
    return 1


def test_prune_reports_what_it_cannot_reach(database_url: str, tmp_path: Path) -> None:
    given_settings = Settings(database_url=database_url, storage=str(tmp_path / "storage"), executor="sync")
    with FlowStone([far], io={"elsewhere": Elsewhere("elsewhere")}, settings=given_settings) as flow:
        for _ in range(4):
            flow.materialize("far", force=True)
        pruned = prune(flow, NOW)
        assert (pruned.values, pruned.out_of_reach, pruned.not_swept) == (3, {"elsewhere": 3}, ("elsewhere",))
        flow.materialize("far", force=True)
    with FlowStone([raw], settings=given_settings) as flow:
        assert prune(flow, NOW).out_of_reach == {"elsewhere": 1}


def test_a_worker_sweeps_when_it_starts(crew: Crew) -> None:
    flow = crew.flow
    step = flow.materialize("quick", partition=ITEMS[0], executor="sync").step_id
    left = old(Path(flow.settings.storage) / "values" / "quick" / "0" / f".{step}-7.json.0123456789abcdef.tmp")
    (worker,) = crew.start()
    assert wait_until(lambda: not left.exists())
    assert worker.alive
