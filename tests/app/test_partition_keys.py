"""Dynamic partitions through the app, in memory and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flowstone import (
    AllPartitions,
    DynamicPartitions,
    FlowStone,
    FunctionMapping,
    LastN,
    MultiPartitions,
    StaticPartitions,
    asset,
    dep,
)
from flowstone.config import Settings
from flowstone.core.automation.record import PartitionChange
from flowstone.core.partitions import KeyState
from flowstone.errors import DefinitionError, OptionsError, PartitionError, UnknownPartitionError

type MakeFlow = Callable[[], FlowStone]

customers = DynamicPartitions("customers")


@asset(partitions=customers)
def orders(context):
    return f"orders of {context.partition}"


@asset(partitions=customers)
def invoices(orders):
    return orders.replace("orders", "invoices")


@asset(partitions=customers, deps={"recent": dep(orders, mapping=LastN(2))})
def trend(context, recent):
    return list(recent)


@asset(deps={"everything": dep(orders, mapping=AllPartitions())})
def total(everything):
    return list(everything)


@asset(partitions=customers, deps={"first": dep(orders, mapping=FunctionMapping(lambda key: "acme"))})
def compared(first):
    return first


@asset(partitions=MultiPartitions(customer=customers, tier=StaticPartitions([1, 2])))
def shares(orders):
    return orders


@asset(partitions=customers, isolation="process")
def apart(context):
    return context.partition.upper()


ASSETS = [orders, invoices, trend, total, compared, shares, apart]


@pytest.fixture(params=["memory", "postgres"])
def make_flow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeFlow]:
    """Makes apps on one store (in memory one app is all there is)."""
    with ExitStack() as stack:
        settings = Settings(executor="sync")
        if request.param == "postgres":
            url = stack.enter_context(request.getfixturevalue("start_server")("embedded").database())
            settings = Settings(executor="sync", database_url=url, storage=str(tmp_path))
        yield lambda: stack.enter_context(FlowStone(ASSETS, settings=settings))


@pytest.fixture
def flow(make_flow: MakeFlow) -> FlowStone:
    return make_flow()


def test_from_the_first_key_to_the_last(flow: FlowStone) -> None:
    partitions = flow.partitions
    assert partitions.names() == ("customers",)
    assert partitions.list("customers") == []
    assert flow.backfill("orders or invoices").total == 0
    assert partitions.add(customers, ["acme", "globex", "acme"], by="ann", reason="signed") == ["acme", "globex"]
    assert partitions.add("customers", ["globex", "initech"]) == ["initech"]
    done = flow.backfill("orders or invoices")
    assert done.ok
    assert done.total == 6
    assert flow.load(invoices, partition="globex") == "invoices of globex"
    assert flow.materialize("trend", partition="globex").value == ["acme", "globex"]
    assert flow.materialize("total").value == ["acme", "globex", "initech"]
    assert flow.materialize("shares", partition=("acme", 2)).value == "orders of acme"
    assert flow.backfill("shares").total == 6
    assert partitions.remove("customers", ["acme", "nobody"], by="bob") == ["acme"]
    assert partitions.list("customers") == ["globex", "initech"]
    assert flow.materialize("total", force=True).value == ["globex", "initech"]
    assert flow.materialize("trend", partition="globex", force=True).value == ["globex"]
    reported = [(one.partition, one.removed, one.by, one.reason) for one in partitions.history("customers")]
    assert reported == [
        ("acme", True, "bob", None),
        ("initech", False, None, None),
        ("globex", False, "ann", "signed"),
        ("acme", False, "ann", "signed"),
    ]
    assert [one.removed for one in partitions.history("customers", "acme")] == [True, False]
    assert len(partitions.history("customers", limit=2)) == 2


def test_a_removed_partition_is_history(flow: FlowStone) -> None:
    flow.partitions.add("customers", ["acme", "globex"])
    made = flow.materialize("orders", partition="acme")
    assert flow.materialize("invoices", partition="acme").value
    flow.partitions.remove("customers", ["acme"])
    assert flow.load("orders", partition="acme") == "orders of acme"
    assert flow.exists("orders", partition="acme")
    assert [one.step_id for one in flow.history("orders", partition="acme")] == [made.step_id]
    assert [one.asset for one in flow.lineage.downstream("orders", partition="acme")] == ["orders", "invoices"]
    assert flow.why("orders", "acme") == ["it is over: completed"]
    assert "was removed" in flow.why("trend", "acme")[0]
    for compute in (
        lambda: flow.materialize("orders", partition="acme"),
        lambda: flow.schedule("orders", partition="acme"),
        lambda: flow.materialize_all("invoices", partition="acme", force=True),
        lambda: flow.backfill("orders", partitions=["globex", "acme"]),
        lambda: flow.plan("orders", partition="acme"),
        lambda: flow.materialize("shares", partition=("acme", 1)),
    ):
        with pytest.raises(UnknownPartitionError, match=r"was removed from.*Add it again"):
            compute()
    with pytest.raises(UnknownPartitionError, match="was removed"):
        flow.plan("compared", partition="globex")  # its function names the removed one
    assert flow.invalidate("orders", partitions=["acme"]) == 1
    assert not flow.exists("orders", partition="acme")
    flow.partitions.add("customers", ["acme"])
    assert flow.partitions.list("customers") == ["globex", "acme"]
    assert flow.materialize("orders", partition="acme").state == "completed"


def test_unknown_names_and_keys(flow: FlowStone) -> None:
    flow.partitions.add("customers", ["acme"])
    with pytest.raises(PartitionError, match=r"named 'custmers'.*Did you mean 'customers'"):
        flow.partitions.list("custmers")
    with pytest.raises(PartitionError, match="There are: customers"):
        flow.partitions.add(DynamicPartitions("elsewhere"), ["a"])
    with pytest.raises(UnknownPartitionError, match=r"Did you mean 'acme'.*flow\.partitions\.add"):
        flow.materialize("orders", partition="acne")
    with pytest.raises(PartitionError, match="pass a list"):
        flow.partitions.add("customers", "acme")
    with pytest.raises(PartitionError, match="not partitioned"):
        flow.partitions.add("customers", ["good", None])
    with pytest.raises(OptionsError):
        flow.partitions.history("customers", limit=0)
    assert flow.partitions.list("customers") == ["acme"]
    with FlowStone.for_testing([]) as empty, pytest.raises(PartitionError, match="No asset has any"):
        empty.partitions.list("customers")


def test_declarations_are_shared_by_apps_and_stay_as_they_are(flow: FlowStone) -> None:
    flow.partitions.add("customers", ["acme"])
    with FlowStone.for_testing(ASSETS) as other:
        assert other.partitions.list("customers") == []
        other.partitions.add("customers", ["globex"])
        assert other.backfill("orders").total == 1
    assert flow.partitions.list(customers) == ["acme"]
    assert orders.partitions is customers
    assert orders.declared is flow.graph["orders"].declared is orders
    assert flow.graph["total"] is total
    with pytest.raises(DefinitionError, match="holds no keys"):
        "acme" in orders.partitions  # noqa: B015
    assert flow.materialize(orders, partition="acme").value == "orders of acme"


def test_an_asset_in_a_process_of_its_own(flow: FlowStone) -> None:
    flow.partitions.add("customers", ["acme"])
    assert flow.materialize("apart", partition="acme").value == "ACME"


def test_another_app_on_the_same_database_adds_a_key(database_url: str, tmp_path: Path) -> None:
    settings = Settings(executor="sync", database_url=database_url, storage=str(tmp_path))
    with FlowStone(ASSETS, settings=settings) as one, FlowStone(ASSETS, settings=settings) as other:
        assert one.partitions.list("customers") == []
        other.partitions.add("customers", ["acme"])
        assert one.materialize("orders", partition="acme").value == "orders of acme"
        other.partitions.remove("customers", ["acme"])
        assert one.partitions.list("customers") == []
        with pytest.raises(UnknownPartitionError, match="was removed"):
            one.materialize("orders", partition="acme")


def test_a_retry_leaves_out_what_was_removed(make_flow: MakeFlow) -> None:
    broken = {"acme", "globex"}

    @asset(partitions=DynamicPartitions("customers"))
    def fragile(context):
        if context.partition in broken:
            raise ValueError(context.partition)
        return context.partition

    settings = make_flow().settings
    with FlowStone([fragile], settings=settings) as flow:
        flow.partitions.add("customers", ["acme", "globex", "initech"])
        failed = flow.backfill("fragile")
        assert failed.failed == 2
        flow.partitions.remove("customers", ["acme"])
        broken.clear()
        again = flow.runs.retry(failed.run_id)
        assert (again.ok, again.total) == (True, 1)
        assert flow.load("fragile", partition="globex") == "globex"


def test_many_keys_are_not_a_question_each(flow: FlowStone, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 20_000
    keys = [f"customer {one}" for one in range(number)]
    assert len(flow.partitions.add("customers", keys)) == number
    store = flow.parts.store.partition_keys
    requested: list[int] = []
    changed = type(store).changed

    def counted(self: object, name: str, *, after: int = 0) -> list[KeyState]:
        requested.append(after)
        return changed(self, name, after=after)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "changed", counted)
    assert len(flow.plan("orders", partitions=keys).steps) == number
    assert len(requested) < 100
    assert 0 not in requested


def test_what_is_added_together_with_its_run_can_be_planned(flow: FlowStone) -> None:
    with flow.parts.keys.assuming([PartitionChange("customers", "s:acme")]):
        assert len(flow.plan("invoices", partition="acme").steps) == 2
    with pytest.raises(UnknownPartitionError):
        flow.plan("invoices", partition="acme")
