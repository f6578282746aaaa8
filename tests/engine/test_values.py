from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.stores.conformance.case import Scene

from flowstone import FlowStone, RetryPolicy
from flowstone.core.asset import asset
from flowstone.core.definition import StaticPartitions
from flowstone.core.dependency import dep
from flowstone.core.graph import AssetGraph
from flowstone.core.mappings import AllPartitions, FunctionMapping
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.step import Attempt
from flowstone.engine.values import InputReader
from flowstone.errors import StorageError
from flowstone.io import MemoryIO
from flowstone.stores.memory import MemoryStore

regions = StaticPartitions(["eu", "us"])


@asset(partitions=regions)
def source(): ...


@asset
def plain(): ...


@asset(partitions=regions, deps={"rows": "source"})
def same(rows): ...


@asset(deps=["plain", dep("source", mapping=AllPartitions())])
def all_of_them(source): ...


def refuse(key: object) -> list[str]:
    raise ZeroDivisionError("in the mapping")


@asset(partitions=regions, deps=[dep("source", mapping=FunctionMapping(refuse))])
def odd(source): ...


def claim(name: str, partition: str = "", run_id: str = "run") -> Attempt:
    return Attempt(99, run_id, name, partition, 1, 1, 1, datetime.now(UTC))


def reader(scene: Scene) -> InputReader:
    return InputReader(AssetGraph([source, plain, same, all_of_them, odd]), scene.store.catalog)


def test_versions_and_arguments() -> None:
    scene = Scene(MemoryStore())
    eu, us, other = (
        scene.make("source", "s:eu", run_id="1"),
        scene.make("source", "s:us", run_id="2"),
        scene.make("plain", run_id="3"),
    )
    one, many, none = reader(scene).resolve([claim("same", "s:us"), claim("all_of_them"), claim("plain")])
    assert [(read.parameter, read.asset, read.partition_key, read.step_id) for read in one.versions()] == [
        ("rows", "source", "s:us", us)
    ]
    assert [read.step_id for read in many.versions()] == [eu, us, other]
    locate = lambda stored: stored.location  # noqa: E731
    scan: Any = None  # no input is read by reference
    assert one.arguments(locate, scan) == {"rows": f"{us}-1"}
    # an input without a parameter has to be there, but is not loaded
    assert many.arguments(locate, scan) == {"source": {"eu": f"{eu}-1", "us": f"{us}-1"}}
    assert (none.versions(), none.arguments(locate, scan), none.problem(claim("plain"))) == ((), {}, None)


def test_missing_versions_are_named() -> None:
    scene = Scene(MemoryStore())
    scene.make("source", "s:eu", run_id="1")
    (found,) = reader(scene).resolve([claim("all_of_them")])
    assert set(found.missing) == {("source", "s:us"), ("plain", "")}
    assert "'all_of_them' cannot run yet" in str(found.problem(claim("all_of_them")))


def test_a_mapping_that_raises_fails_its_step_alone() -> None:
    scene = Scene(MemoryStore())
    scene.make("source", "s:eu", run_id="1")
    bad, good = reader(scene).resolve([claim("odd", "s:eu"), claim("same", "s:eu")])
    assert "ZeroDivisionError: in the mapping" in str(bad.problem(claim("odd", "s:eu")))
    assert good.problem(claim("same", "s:eu")) is None
    assert len(good.versions()) == 1


class Refusing(MemoryIO):
    """A manager whose storing always fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        self.calls += 1
        raise self.error


class Deciding(Refusing):
    """One that says itself what passes."""

    def may_pass(self, error: Exception) -> bool:
        return isinstance(error, LookupError)


def failed(kind: Any) -> StorageError:
    return StorageError("store", "source", "", "no", kind=kind)


@asset(retry=RetryPolicy(max_attempts=1))
def once():
    return 1


@pytest.mark.parametrize(
    ("manager", "times"),
    [
        (Refusing(failed("unavailable")), 3),
        (Refusing(failed("full")), 3),
        (Refusing(failed("denied")), 1),
        (Refusing(failed("missing")), 1),
        (Refusing(ConnectionError("reset")), 3),
        (Refusing(ExceptionGroup("", [OSError()])), 3),
        (Refusing(ExceptionGroup("", [OSError(), LookupError()])), 1),
        (Refusing(LookupError("busy")), 1),
        (Deciding(LookupError("busy")), 3),
        (Deciding(OSError("final")), 1),
    ],
)
def test_storing_is_tried_again_when_it_may_pass(
    manager: Refusing, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowstone.engine.values._STORE_PAUSES_SECONDS", (0.0, 0.0))
    flow = FlowStone.for_testing([once], io={"memory": manager})
    result = flow.materialize_all("once")
    assert result.failed
    assert manager.calls == times
