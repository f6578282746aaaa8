from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.limits import Rate
from flowstone.errors import DefinitionError, ExecutorUnavailableError, OptionsError, UnknownExecutorError
from flowstone.executors import select
from flowstone.executors.inline import SyncExecutor
from flowstone.executors.limits import RateLimited
from flowstone.executors.select import ExecutorSelector, concurrency_of, limits_of
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


class Own(SyncExecutor):
    def __init__(self, **given: object) -> None:
        vars(self).update(given)


def test_what_an_executor_says_of_limits_and_width_is_optional() -> None:
    assert (limits_of(SyncExecutor()), concurrency_of(SyncExecutor())) == ({}, 32)
    own = Own(limits={"service": "10/minute", "crane": 2}, max_concurrency=5)
    assert (limits_of(own), concurrency_of(own)) == ({"service": Rate(10, "minute"), "crane": 2}, 5)
    assert limits_of(Own(limits=None)) == {}


@pytest.mark.parametrize("limits", [4, "10/minute", ["10/minute"], {1: 2}])
def test_limits_without_names_are_refused(limits: object) -> None:
    with pytest.raises(OptionsError, match="give a mapping of names to limits"):
        limits_of(Own(limits=limits))


def test_a_limit_of_an_executor_that_cannot_be_understood_is_refused() -> None:
    with pytest.raises(DefinitionError, match="'often' cannot be understood"):
        limits_of(Own(limits={"service": "often"}))


@pytest.mark.parametrize("width", [0, -1, True, 2.5, "4", None])
def test_a_width_that_is_no_number_is_refused(width: object) -> None:
    with pytest.raises(OptionsError, match="give a whole number from 1 on"):
        concurrency_of(Own(max_concurrency=width))
