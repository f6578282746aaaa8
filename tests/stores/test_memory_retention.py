"""Forgetting in memory: by itself within a bound, and when asked, with the same rules as in PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowstone import FlowStone, Settings, Skip, StaticPartitions, asset, check
from flowstone.errors import ConfigurationError, RunNotFoundError
from flowstone.stores.memory import MemoryStore

LIMIT = 300


@asset(partitions=StaticPartitions(["a", "b"]))
def source(context) -> str:
    return context.partition * 100


@asset(partitions=StaticPartitions(["a", "b"]))
def reader(source: str) -> int:
    return len(source)


@asset
def skips() -> Skip:
    return Skip("nothing")


@check(asset="reader")
def positive(reader: int) -> bool:
    return reader > 0


@pytest.fixture
def flow() -> FlowStone:
    settings = Settings(executor="sync", memory_steps=LIMIT)
    return FlowStone([source, reader, skips], checks=[positive], settings=settings)


def sizes(flow: FlowStone) -> dict[str, int]:
    store = flow.parts.store
    assert isinstance(store, MemoryStore)
    tables = store.ledger._tables
    values = flow.parts.managers["memory"]._values  # type: ignore[attr-defined]
    return {
        "steps": len(tables.steps),
        "runs": len(tables.runs),
        "by_asset": sum(map(len, tables.by_asset.values())),
        "readers": sum(map(len, tables.readers.values())),
        "checks": sum(map(len, tables.checks.values())) + len(tables.checks_of_step),
        "newest": len(tables.newest),
        "values": len(values),
    }


def test_a_process_that_lives_long_does_not_fill_up(flow: FlowStone) -> None:
    largest: dict[str, int] = {}
    for number in range(600):
        flow.materialize_all("reader", partition="ab"[number % 2], force=True, force_deps=True)
        flow.materialize("skips", force=True)
        largest = {name: max(size, largest.get(name, 0)) for name, size in sizes(flow).items()}
    # three new steps and two runs each time; the newest hundred runs are kept whatever they hold
    assert largest["steps"] <= 3 * LIMIT
    assert largest["runs"] <= 3 * LIMIT
    assert largest["values"] <= 3 * LIMIT
    assert all(size <= 6 * LIMIT for size in largest.values()), largest
    assert (flow.load("reader", partition="a"), flow.load("source", partition="b")) == (100, "b" * 100)
    assert flow.runs.latest(limit=1)[0].selection == "skips"


def test_what_is_current_and_what_it_was_made_from_stays(flow: FlowStone) -> None:
    made = flow.materialize_all("reader", partition="a")
    for _ in range(500):
        flow.materialize("source", partition="b", force=True)
    assert flow.runs.get(made.run_id).total == 2
    assert flow.lineage.upstream("reader", partition="a")
    flow.materialize("source", partition="a", force=True)
    assert [step.asset for step in flow.history("source", partition="a")] == ["source", "source"]
    assert flow.retention.prune(older_than=timedelta(0)).steps > 0
    # the old one is what the current value of the reader was made from
    assert [step.asset for step in flow.history("source", partition="a")] == ["source", "source"]
    assert flow.load("reader", partition="a") == 100


def test_a_reused_step_keeps_what_it_stands_on(flow: FlowStone) -> None:
    flow.materialize("source", partition="a")
    reused = flow.materialize_all("source", partition="a")
    flow.materialize("source", partition="a", force=True)
    assert flow.runs.get(reused.run_id).total == 1
    flow.retention.prune(older_than=timedelta(0))
    with pytest.raises(RunNotFoundError):
        flow.runs.get(reused.run_id)
    assert flow.load("source", partition="a") == "a" * 100


def test_a_dry_run_counts_what_a_prune_deletes(flow: FlowStone) -> None:
    for _ in range(5):
        flow.materialize_all("reader", partition="a", force=True, force_deps=True)
    would = flow.retention.prune(older_than=timedelta(0), dry_run=True)
    before = sizes(flow)
    done = flow.retention.prune(older_than=timedelta(0))
    assert (done.steps, done.runs, done.values) == (would.steps, would.runs, would.values) == (8, 4, 8)
    after = sizes(flow)
    assert (before["values"] - after["values"], before["steps"] - after["steps"]) == (8, 8)
    assert flow.retention.prune(older_than=timedelta(0)).steps == 0
    assert flow.retention.prune(older_than=timedelta(days=1)).steps == 0


@pytest.mark.parametrize("steps", [0, -1, 2.5, "many", True])
def test_a_bound_that_cannot_be(steps: object) -> None:
    with pytest.raises(ConfigurationError, match="memory_steps"):
        Settings.load(memory_steps=steps)
