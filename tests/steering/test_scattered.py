"""Scatters on workers: paused, resumed, explained, cancelled, pruned, many at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.faults.invariants import violations
from tests.steering import scattered_app
from tests.steering.crew import max_at_once
from tests.steering.scattered_app import KEYS, WIDTH

from flowstone import FlowStone
from flowstone.app import driving
from flowstone.core.state import State


class ScatterCrew(Fleet):
    """Workers and a client of the app that scatters."""

    app = "tests.steering.scattered_app"

    def client(self) -> FlowStone:
        return scattered_app.make_flow(self.database_url, self.storage)


@pytest.fixture
def crew(database_url: str, tmp_path: Path) -> Iterator[ScatterCrew]:
    crew = ScatterCrew(tmp_path, database_url)
    try:
        yield crew
    finally:
        crew.close()


def test_pausing_a_run_pauses_its_items(crew: ScatterCrew) -> None:
    crew.start()
    run_id = crew.place("gated")
    crew.wait_event("start", "gated.item", count=2)
    (items,) = crew.flow.runs.latest(parent=run_id)
    assert crew.flow.why("gated") == ["waits for its 43 items"]
    crew.flow.runs.pause(run_id)
    assert crew.flow.runs.get(items.id).paused
    crew.open_gate("item-1", "item-2", "item-3")
    crew.wait(lambda: len(crew.events("end", "gated.item")) >= 2, "the items that ran")
    crew.wait(lambda: not crew.flow.runs.steps(items.id, state=State.RUNNING), "nothing to run")
    ended = len(crew.events("end", "gated.item"))
    assert ended <= WIDTH
    assert crew.flow.why("gated.item", partition=(None, 39))[0].startswith(f"its run {items.id} is paused")
    crew.flow.runs.resume(run_id)
    crew.wait_over([run_id])
    assert crew.flow.load("gated").succeeded == 43
    assert max_at_once([one for one in crew.events() if one.asset == "gated.item"]) <= 2  # the limit "web"
    assert violations(crew.database_url) == {}


def test_cancelling_the_items_alone_fails_the_asset(crew: ScatterCrew) -> None:
    crew.start()
    run_id = crew.place("gated")
    crew.wait_event("start", "gated.item", count=2)
    (items,) = crew.flow.runs.latest(parent=run_id)
    crew.flow.runs.cancel(items.id)
    crew.wait_over()
    assert crew.flow.runs.get(run_id).state is State.FAILED
    (step,) = crew.flow.runs.steps(run_id)
    assert "0 of 43 items failed, 43 cancelled" in (step.error or "")
    assert step.attempt == 1
    crew.open_gate("item-1", "item-2", "item-3")
    again = crew.flow.runs.retry(run_id)
    assert again.ok, again.errors
    assert violations(crew.database_url) == {}


def test_a_new_run_waits_for_cancelled_items_to_end(crew: ScatterCrew) -> None:
    crew.start()
    run_id = crew.place("gated")
    crew.wait_event("start", "gated.item", count=2)
    crew.flow.runs.cancel(run_id)
    crew.open_gate("item-1", "item-2", "item-3")
    assert crew.flow.materialize("gated").value.succeeded == 43
    crew.wait_over()
    assert violations(crew.database_url) == {}


def test_scatters_of_a_large_backfill(crew: ScatterCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their steps are begun from a range, without jobs of their own; they rest and go on all the same."""
    monkeypatch.setattr(driving, "LARGE", 5)
    crew.start()
    run = crew.flow.backfill("many", partitions=KEYS[:12], max_concurrency=4)
    assert run.ok, run.errors
    assert crew.rows("SELECT count(*) FROM flowstone.ranges")[0][0] > 0
    assert run.value["p11"] == "p11-0,p11-1,p11-2,p11-3"
    assert violations(crew.database_url) == {}


@pytest.mark.slow
def test_a_backfill_of_scatters_and_their_pruning(crew: ScatterCrew) -> None:
    crew.start(2)
    first = crew.flow.backfill("many", max_concurrency=5)
    assert first.ok, first.errors
    assert first.value == {key: ",".join(f"{key}-{number}" for number in range(4)) for key in KEYS}
    assert len(crew.flow.runs.latest(limit=100, parent=first.run_id)) == len(KEYS)
    assert violations(crew.database_url) == {}
    forever = timedelta(0)
    assert crew.flow.retention.prune(older_than=forever).steps == 0
    second = crew.flow.backfill("many", partitions=KEYS[:10], force=True)
    assert second.ok
    expected = crew.flow.retention.prune(older_than=forever, dry_run=True)
    pruned = crew.flow.retention.prune(older_than=forever)
    assert (pruned.steps, pruned.runs) == (expected.steps, expected.runs) == (10 * 5, 10)
    assert crew.rows("SELECT count(*) FROM flowstone.scatter_items") == [(30 * 4,)]
    assert crew.rows("SELECT count(*) FROM flowstone.scatters") == [(30,)]
    assert crew.flow.load("many", partition="p29") == "p29-0,p29-1,p29-2,p29-3"


def test_a_dead_process_leaves_no_items_behind(crew: ScatterCrew) -> None:
    """What was to be cancelled when a process died is cancelled by the sweep of another one."""
    run_id = crew.place("gated")
    crew.start()
    crew.wait_event("start", "gated.item", count=2)
    (items,) = crew.flow.runs.latest(parent=run_id)
    crew.execute("UPDATE flowstone.scatters SET is_stopping = true WHERE run_id = %s", items.id)
    crew.wait_over()
    assert crew.flow.runs.get(items.id).state is State.CANCELLED
    assert crew.flow.runs.get(run_id).state is State.FAILED
