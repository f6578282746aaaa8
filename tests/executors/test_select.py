from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.errors import ExecutorUnavailableError, UnknownExecutorError
from flowstone.executors import select
from flowstone.executors.inline import SyncExecutor
from flowstone.executors.limits import RateLimited
from flowstone.executors.select import ExecutorSelector
from flowstone.protocols import Executor


def selector(bound: list[Executor]) -> ExecutorSelector:
    return ExecutorSelector({"sync": SyncExecutor}, bound.append)


def test_executors_are_made_and_bound_once() -> None:
    bound: list[Executor] = []
    chosen = selector(bound)
    first = chosen.get("sync")
    assert chosen.get("sync") is first
    assert (bound, chosen.made()) == ([first], [first])


def test_objects_are_bound_once_and_known_by_name() -> None:
    bound: list[Executor] = []
    chosen = selector(bound)
    own = SyncExecutor()
    own.name = "own"
    assert chosen.get(own) is chosen.get(own) is chosen.get("own") is own
    assert bound == [own]


def test_an_executor_around_another_carries_its_name_and_does_not_take_its_place() -> None:
    bound: list[Executor] = []
    chosen = selector(bound)
    plain = chosen.get("sync")
    around = RateLimited(plain, "10/minute")
    assert chosen.get(around) is chosen.get(around) is around
    assert chosen.get("sync") is plain
    assert (bound, chosen.made()) == ([plain, around], [plain, around])
    first = selector([])
    first.get(around)
    assert first.get("sync") is not around


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownExecutorError, match=r"Did you mean 'sync'\?.*flowstone.executors"):
        selector([]).get("synk")


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    group = select.ENTRY_POINT_GROUP
    points = EntryPoints(
        [
            EntryPoint("plugin", "flowstone.executors.inline:SerialExecutor", group),
            EntryPoint("broken", "no_such_module:Executor", group),
        ]
    )
    monkeypatch.setattr(select, "entry_points", lambda *, group: points.select(group=group))
    bound: list[Executor] = []
    chosen = selector(bound)
    assert chosen.get("plugin").name == "serial"
    assert chosen.names() == ["broken", "plugin", "sync"]
    with pytest.raises(ExecutorUnavailableError, match="'no_such_module:Executor' failed"):
        chosen.get("broken")


def test_an_app_takes_more_executors() -> None:
    @asset
    def one() -> int:
        return 1

    own = SyncExecutor()
    own.name = "own"
    flow = FlowStone.for_testing([one], executors={"own": own, "lazy": SyncExecutor})
    assert flow.materialize("one", executor="own").value == 1
    assert flow.materialize("one", executor="lazy", force=True).value == 1
