"""References as values: `Published(location, version, metadata)`, on both stores and through processes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from flowstone import FlowStone, Published, Route, Settings, asset, check, scatter
from flowstone.core.output import OutputAddress
from flowstone.core.partitions import PartitionKey
from flowstone.errors import ConfigurationError, SerializationError
from flowstone.io import MemoryIO
from flowstone.io.memory import PublishedIO


@asset
def orders() -> Published:
    return Published("sales.orders", version=17, metadata={"rows": 3})


@asset(isolation="process")
def isolated() -> Published:
    return Published("s3://lake/isolated", "2024-01-01T00:00", {"rows": 4})


@asset
def report(orders: Published, isolated: Published) -> list[str]:
    return [str(orders), str(isolated)]


def check_both(flow: FlowStone) -> None:
    made = flow.materialize_all("report")
    assert made.value == ["sales.orders@17", "s3://lake/isolated@2024-01-01T00:00"]
    loaded = flow.load("orders")
    assert loaded == Published("sales.orders", "17", {"rows": 3})
    version = flow.versions.list("orders").items[0]
    assert (version.stored.io, version.stored.location) == ("published", "sales.orders@17")
    assert (version.stored.size_bytes, version.is_stored) == (None, None)
    assert version.stored.metadata == {"rows": 3}
    assert flow.insights.preview(version.step_id).text.startswith("Published{")


def test_a_reference_is_a_version_without_bytes() -> None:
    check_both(FlowStone.for_testing([orders, isolated, report]))


def test_a_reference_is_recorded_in_postgresql(database_url: str, tmp_path: Path) -> None:
    settings = Settings(database_url=database_url, storage=str(tmp_path), executor="sync")
    with FlowStone([orders, isolated, report], settings=settings) as flow:
        check_both(flow)


def test_whatever_io_manager_the_asset_names() -> None:
    @asset(io="filesystem", routes=["left"])
    def chosen() -> Route:
        return Route("left", value=Published("t", 1))

    @asset
    def left(chosen: Published) -> str:
        return str(chosen)

    @scatter(each=lambda item: Published(f"t{item}"))
    def places() -> list[int]:
        return [1, 2]

    @asset
    def all_of(places: Any) -> list[str]:
        return sorted(str(one.value) for one in places)

    flow = FlowStone.for_testing([chosen, left, places, all_of])
    assert flow.materialize_all("left").value == "t@1"
    assert flow.materialize_all("all_of").value == ["t1", "t2"]


def test_checks_see_the_reference_and_conditions_its_version() -> None:
    seen: list[object] = []
    versions = iter(["a", "a", "b", None, None])

    @asset
    def table() -> Published:
        return Published("t", next(versions))

    @check("table")
    def named(table: Published) -> bool:
        seen.append(table)
        return table.location == "t"

    flow = FlowStone.for_testing([table], checks=[named])
    made = [flow.materialize("table", force=True).data_version for _ in range(5)]
    assert made[0] == made[1] != made[2]
    assert made[3:] == [None, None]
    assert len(seen) == 5


def test_restore_and_erase_touch_the_reference_only() -> None:
    versions = iter([1, 2])

    @asset
    def table() -> Published:
        return Published("lake/t", next(versions))

    flow = FlowStone.for_testing([table])
    first = flow.materialize("table")
    flow.materialize("table", force=True)
    flow.versions.restore("table", version=first)
    assert flow.load("table").version == "1"
    erased = flow.versions.erase("table")
    assert erased.is_complete
    assert sorted(erased.elsewhere) == ["lake/t@1", "lake/t@2"]
    assert flow.versions.erase("table").elsewhere == ()


@pytest.mark.parametrize("location", ["t", "a@b", "a@", "@", "s3://user@host/x", "ü", "a%40b"])
@pytest.mark.parametrize("version", [None, "1", "@", "%", "%40", "a@b%", "1@"])
def test_the_text_of_a_reference_is_exact(location: str, version: str | None) -> None:
    reference = Published(location, version)
    assert Published.parse(str(reference)) == reference
    assert pickle.loads(pickle.dumps(reference)) == reference
    assert hash(reference) == hash(Published(location, version))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("",), "location"),
        ((" ",), "location"),
        ((None,), "location"),
        ((Path("x"),), "location"),
        (("a\x00b",), "location"),
        (("\ud800",), "location"),
        (("x" * 4001,), "4,000 is the most"),
        (("t", ""), "version"),
        (("t", True), "version"),
        (("t", 1.5), "version"),
        (("t", b"1"), "version"),
        (("postgresql://me:hunter2@host/db",), "password"),
        (("https://lake/x?X-Amz-Credential=AKIA&X-Amz-Signature=00ff",), "password or a key"),
        (("https://acc.blob.core.windows.net/c/x?sv=2022&sig=abc%3D",), "password or a key"),
    ],
)
def test_what_cannot_be_recorded_is_refused_where_it_is_made(arguments: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        Published(*arguments)
    assert "hunter2" not in str(raised.value)


def test_metadata_is_plain_json() -> None:
    with pytest.raises(SerializationError, match="cannot be recorded"):
        Published("t", metadata={"lock": object()})
    with pytest.raises(SerializationError, match="must be a dict"):
        Published("t", metadata=[1])  # type: ignore[arg-type]


def test_the_name_is_taken() -> None:
    with pytest.raises(ConfigurationError, match="values of its own"):
        FlowStone.for_testing([], io={"published": MemoryIO(name="published")})

    @asset(io="published")
    def plain() -> int:
        return 1

    with pytest.raises(SerializationError, match="only knows references"):
        FlowStone.for_testing([plain]).materialize("plain")
    address = OutputAddress("plain", PartitionKey(""), "run", 1, 1, 1)
    with pytest.raises(SerializationError, match="plain"):
        PublishedIO().store(1, address)
