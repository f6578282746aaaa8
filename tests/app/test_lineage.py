from __future__ import annotations

import json
from datetime import date

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.dependency import dep
from flowstone.core.mappings import AllPartitions
from flowstone.core.partitions_by_time import MonthlyPartitions

regions = StaticPartitions(["eu", "us"])


@asset(code_version="7")
def a() -> int:
    return 1


@asset
def b(a: int) -> int:
    return a + 1


@asset
def c(a: int, b: int) -> int:
    return a + b


@asset(partitions=regions)
def sales() -> int:
    return 1


@asset(deps=[dep("sales", mapping=AllPartitions())])
def world(sales: dict[str, int]) -> int:
    return sum(sales.values())


def flow() -> FlowStone:
    made = FlowStone.for_testing([a, b, c, sales, world])
    made.materialize_all("c")
    return made


def test_upstream_and_downstream_with_distances() -> None:
    lineage = flow().lineage
    assert [(one.asset, one.depth) for one in lineage.upstream("c")] == [("c", 0), ("a", 1), ("b", 1)]
    assert [one.asset for one in lineage.upstream("c", depth=0)] == ["c"]
    assert {(one.asset, one.depth) for one in lineage.downstream("a")} == {("a", 0), ("b", 1), ("c", 1)}
    assert {one.asset for one in lineage.impact("a")} == {"b", "c"}


def test_what_is_not_there_has_no_lineage() -> None:
    assert flow().lineage.upstream("world") == []


def test_lineage_is_what_was_read_not_what_is_declared() -> None:
    made = flow()
    made.materialize("a", force=True)
    new, old = made.lineage.downstream("a"), made.lineage.upstream("b")
    assert [one.asset for one in new] == ["a"]
    assert [(one.asset, one.current) for one in old] == [("b", True), ("a", False)]
    assert made.lineage.impact("a") == []
    made.materialize("b", force=True)
    assert {one.asset for one in made.lineage.impact("a")} == {"b"}


def test_partitions_are_versions_of_their_own() -> None:
    made = flow()
    made.materialize_all("world")
    assert [str(one).split(" @ ")[0] for one in made.lineage.upstream("world")] == [
        "world",
        "sales [eu]",
        "sales [us]",
    ]
    assert [one.asset for one in made.lineage.impact("sales", partition="eu")] == ["world"]


def test_months_are_written_as_people_write_them() -> None:
    months = MonthlyPartitions("2024-01")

    @asset(partitions=months)
    def cost(context: AssetContext) -> int:
        return 1

    @asset(partitions=months)
    def total(cost: int) -> int:
        return cost

    made = FlowStone([cost, total])
    february = date(2024, 2, 1)
    assert made.why(total, partition=february) == [
        "nobody has asked for it, and its input cost [2024-02] is missing"
    ]
    made.materialize_all(total, partition=february)
    versions = made.lineage.upstream(total, partition=february)
    assert [str(one).split(" @ ")[0] for one in versions] == ["total [2024-02]", "cost [2024-02]"]
    assert versions[0].to_json()["partition"] == "2024-02"


def test_versions_are_plain_data_too() -> None:
    made = flow()
    versions = {one.asset: one for one in made.lineage.upstream("c")}
    document = json.loads(json.dumps(versions["c"].to_json()))
    assert document["reads"] == [str(versions["a"].step_id), str(versions["b"].step_id)]
    assert (document["partition"], document["current"], document["depth"]) == (None, True, 0)
    assert versions["a"].code_version == "7"
