from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores.conformance.case import Scene

from flowstone import AssetContext, DynamicPartitions, FlowStone, new_files
from flowstone.core.asset import asset
from flowstone.core.automation.record import PartitionChange
from flowstone.core.definition import StaticPartitions
from flowstone.core.dependency import dep
from flowstone.core.graph import AssetGraph
from flowstone.core.mappings import AllPartitions, FunctionMapping, LastN
from flowstone.core.partitions import KeyState
from flowstone.core.partitions_by_time import DailyPartitions, MonthlyPartitions
from flowstone.core.step import Target
from flowstone.engine.planner import KeySnapshots, Planner
from flowstone.engine.run_spec import RunSpec
from flowstone.engine.values import InputReader
from flowstone.errors import PartitionError
from flowstone.stores.memory import MemoryStore
from flowstone.stores.memory.catalog import MemoryPartitionKeys
from flowstone.stores.memory.tables import Tables

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from drawn_graphs import Drawn, graphs

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def planner(graph: AssetGraph, scene: Scene) -> Planner:
    return Planner(graph, InputReader(graph, scene.store.catalog), scene.store.catalog)


def spec_of(
    targets: Sequence[Target],
    *,
    expand: Collection[str] | None = None,
    force: bool = False,
    force_deps: bool = False,
) -> RunSpec:
    return RunSpec(kind="plan", selection="", targets=targets, expand=expand, force=force, force_deps=force_deps)


@given(graphs(), st.data())
def test_a_plan_is_what_is_missing_upstream(drawn: Drawn, data: st.DataObject) -> None:
    names = sorted(drawn.reads)
    committed = data.draw(st.sets(st.sampled_from(names)))
    requested = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    force, force_deps = data.draw(st.booleans()), data.draw(st.booleans())
    scene = Scene(MemoryStore())
    steps = {name: scene.make(name, run_id=name) for name in committed}

    expected: set[str] = set()

    def need(name: str, requested_for: bool) -> None:
        if name in committed and not (force if requested_for else force_deps):
            return
        if name not in expected:
            expected.add(name)
            for read in drawn.reads[name]:
                need(read, read in requested)

    for name in requested:
        need(name, True)

    spec = spec_of([(name, "") for name in requested], force=force, force_deps=force_deps)
    plan = planner(AssetGraph(drawn.assets), scene).plan(spec, now=NOW)
    running = [step.asset for step in plan.steps if step.reuse is None]
    assert set(running) == expected
    assert len(running) == len(expected) == plan.runs
    assert {step.asset: step.reuse for step in plan.steps if step.reuse is not None} == {
        name: steps[name] for name in requested if name not in expected
    }
    assert plan.missing == {}
    for index, step in enumerate(plan.steps):
        assert all(read < index for read in step.inputs)
        if step.reuse is None:
            in_plan = {one.asset for one in plan.steps}
            assert {plan.steps[read].asset for read in step.inputs} == drawn.reads[step.asset] & in_plan
            queried = force if step.asset in requested else force_deps
            assert step.forced == (step.asset in committed or queried)


days = DailyPartitions(date(2024, 5, 1))


@asset(partitions=days)
def orders(): ...


@asset(partitions=MonthlyPartitions("2024-05"))
def monthly(orders): ...


@asset(partitions=days, deps=[dep("orders", mapping=LastN(3))])
def trend(orders): ...


@asset(deps=[dep("orders", mapping=AllPartitions())])
def everything(orders): ...


GRAPH = AssetGraph([orders, monthly, trend, everything])


def test_partitions_are_mapped_and_shared() -> None:
    scene = Scene(MemoryStore())
    make = planner(GRAPH, scene).plan
    targets = [("monthly", "d:2024-05-01"), ("everything", ""), ("trend", "d:2024-05-10")]
    plan = make(spec_of(targets), now=NOW)
    assert [step.asset for step in plan.steps].count("orders") == 31
    assert plan.runs == 34
    positions = {(step.asset, step.partition_key): step for step in plan.steps}
    assert len(positions["monthly", "d:2024-05-01"].inputs) == 31
    reads = [plan.steps[read].partition_key for read in positions["trend", "d:2024-05-10"].inputs]
    assert reads == ["d:2024-05-08", "d:2024-05-09", "d:2024-05-10"]


def test_what_nobody_provides_is_missing() -> None:
    scene = Scene(MemoryStore())
    scene.make("orders", "d:2024-05-08", run_id="r")
    spec = spec_of([("trend", "d:2024-05-10")], expand=())
    plan = planner(GRAPH, scene).plan(spec, now=NOW)
    assert plan.missing == {("trend", "d:2024-05-10"): [("orders", "d:2024-05-09"), ("orders", "d:2024-05-10")]}
    inside = spec_of([("orders", "d:2024-05-09"), *spec.targets], expand=())
    missing = planner(GRAPH, scene).plan(inside, now=NOW).missing
    assert missing == {("trend", "d:2024-05-10"): [("orders", "d:2024-05-10")]}


def test_doubled_targets_appear_once() -> None:
    scene = Scene(MemoryStore())
    plan = planner(GRAPH, scene).plan(spec_of([("orders", "d:2024-05-01")] * 3), now=NOW)
    assert len(plan.steps) == 1


def test_errors_of_a_mapping_come_before_anything_is_placed() -> None:
    def refuse(key: object) -> list[str]:
        raise ZeroDivisionError("in the mapping")

    regions = StaticPartitions(["eu"])

    @asset(partitions=regions)
    def source(): ...

    @asset(partitions=regions, deps=[dep("source", mapping=FunctionMapping(refuse))])
    def reader(source): ...

    graph = AssetGraph([source, reader])
    with pytest.raises(PartitionError, match="in the mapping"):
        planner(graph, Scene(MemoryStore())).plan(spec_of([("reader", "s:eu")]), now=NOW)


def test_a_large_plan_asks_few_questions() -> None:
    class Counting:
        def __init__(self, catalog) -> None:
            self.catalog, self.questions = catalog, 0

        def current(self, targets):
            self.questions += 1
            return self.catalog.current(targets)

    counting = Counting(Scene(MemoryStore()).store.catalog)
    chain_assets = [
        asset(name=f"n{at}", partitions=days, deps=[f"n{at - 1}"] if at else [])(lambda: 1) for at in range(5)
    ]
    graph = AssetGraph(chain_assets)
    targets = [("n4", f"d:2024-05-{day:02}") for day in range(1, 32)]
    plan = Planner(graph, InputReader(graph, counting), counting).plan(spec_of(targets), now=NOW)
    assert (len(plan.steps), counting.questions) == (5 * 31, 1)


def test_what_is_asked_about_ahead_is_planned_as_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diamonds, what is committed already, forced steps: the plan is the same, however it is planned for."""
    scene = Scene(MemoryStore())
    reads: dict[str, list[str]] = {
        "a": [],
        "b": ["a"],
        "c": ["a"],
        "d": ["b", "c"],
        "e": ["d", "a"],
        "other": ["b"],
    }
    graph = AssetGraph([asset(name=name, partitions=days, deps=of)(lambda: 1) for name, of in reads.items()])
    key = "d:2024-05-01"
    scene.make("b", key, run_id="before")
    planned = planner(graph, scene)
    specs = [
        spec_of([(name, key) for name in names], force=force, force_deps=force_deps)
        for names in (["e"], ["e", "other"], ["d", "e"], ["e", "a"])
        for force in (False, True)
        for force_deps in (False, True)
    ]
    ahead = [planned.plan(spec, now=NOW) for spec in specs]
    monkeypatch.setattr("flowstone.engine.planner._AHEAD", 0)
    assert [planned.plan(spec, now=NOW) for spec in specs] == ahead
    assert {len(plan.steps) for plan in ahead} >= {4, 5}


class CountedKeys(MemoryPartitionKeys):
    """Counts the questions and what they were answered."""

    def __init__(self) -> None:
        super().__init__(Tables())
        self.requested: list[int] = []

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        answer = super().changed(name, after=after)
        self.requested.append(len(answer))
        return answer


def listed(snapshots: KeySnapshots, *, fresh: bool = False) -> list[str]:
    return list(snapshots.known("customers", fresh=fresh).active)


def test_a_snapshot_serves_for_a_while() -> None:
    store = CountedKeys()
    snapshots = KeySnapshots(store, short_seconds=3600.0)
    store.add("customers", ["i:1"])
    assert all(listed(snapshots) == ["i:1"] for _ in range(1000))
    store.add("customers", ["i:2"])
    assert listed(snapshots) == ["i:1"]
    assert listed(snapshots, fresh=True) == listed(snapshots) == ["i:1", "i:2"]
    assert store.requested == [1, 1]


def test_a_snapshot_grows_old_and_only_changes_are_read() -> None:
    store = CountedKeys()
    snapshots = KeySnapshots(store, short_seconds=0.0)
    store.add("customers", [f"i:{number}" for number in range(1000)])
    assert len(listed(snapshots)) == 1000
    store.remove("customers", ["i:5", "i:6"])
    assert len(listed(snapshots, fresh=True)) == 998
    known = snapshots.known("customers", fresh=True)
    assert store.requested[:3] == [1000, 2, 0]
    assert known is snapshots.known("customers", fresh=True)  # nothing new: labels are not made again


def test_what_is_about_to_be_committed_is_seen_by_those_who_plan_it() -> None:
    store = MemoryStore().partition_keys
    store.add("customers", ["i:1", "i:2"])
    snapshots = KeySnapshots(store)
    changes = [
        PartitionChange("customers", "i:3"),
        PartitionChange("customers", "i:1", remove=True),
        PartitionChange("customers", "i:1", remove=True),
        PartitionChange("customers", "i:2"),
        PartitionChange("customers", "i:1"),
        PartitionChange("products", "i:9"),
    ]
    with snapshots.assuming(changes):
        assert listed(snapshots) == ["i:2", "i:3", "i:1"]
        with snapshots.assuming([PartitionChange("customers", "i:3", remove=True)]):
            assert listed(snapshots) == ["i:2", "i:1"]
        with pytest.raises(ZeroDivisionError), snapshots.assuming([PartitionChange("customers", "i:4")]):
            1 / 0  # noqa: B018
        assert listed(snapshots, fresh=True) == ["i:2", "i:3", "i:1"]
    assert listed(snapshots) == listed(snapshots, fresh=True) == ["i:1", "i:2"]


def test_keys_that_a_sensor_adds_are_known_at_once(tmp_path: Path) -> None:
    """The snapshot of keys serves for a while, but not beyond what this process itself committed."""
    days = DynamicPartitions("days of files")

    @asset(partitions=days)
    def read(context: AssetContext) -> str:
        return str(context.partition)

    sensor = new_files(
        str(tmp_path), name="files", selection="read", partition=lambda file: file.name, add_to=days, settle=0
    )
    with FlowStone.for_testing([read], sensors=[sensor]) as flow:
        partitions = flow.graph["read"].partitions
        assert partitions is not None
        assert list(partitions.keys(datetime.now(UTC))) == []
        (tmp_path / "a").touch()
        os.utime(tmp_path / "a", (1_700_000_000, 1_700_000_000))
        flow.sensors.evaluate("files")
        assert list(partitions.keys(datetime.now(UTC))) == ["a"]
