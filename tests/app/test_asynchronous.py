""""""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from typing import get_type_hints

import pytest

from flowstone.app import FlowStone
from flowstone.app.asynchronous import AsyncFlowStone
from flowstone.core.asset import asset
from flowstone.core.state import State
from flowstone.errors import UnknownAssetError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@asset
def one() -> str:
    return variable.get()


@asset
async def later() -> int:
    await asyncio.sleep(0.001)
    return 2


def test_verbs_and_views_are_awaitable() -> None:
    flow = FlowStone.for_testing([one, later])

    async def main() -> None:
        variable.set("mine")
        done = await flow.aio.materialize("one")
        assert done.value == "mine"
        assert (await flow.aio.materialize("later")).value == 2
        assert (await flow.aio.runs.get(done.run_id)).state is State.COMPLETED
        assert [str(v).split(" ")[0] for v in await flow.aio.lineage.upstream("one")] == ["one"]
        with pytest.raises(UnknownAssetError):
            await flow.aio.materialize("nope")

    asyncio.run(main())


def test_the_loop_is_never_blocked() -> None:
    gate = threading.Event()

    @asset
    def gated() -> int:
        assert gate.wait(30)
        return 3

    flow = FlowStone.for_testing([gated])

    async def main() -> int:
        task = asyncio.create_task(flow.aio.materialize("gated"))
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not task.done()
        gate.set()
        return (await task).value

    assert asyncio.run(main()) == 3


def test_many_requests_at_once_are_one_computation() -> None:
    calls: list[int] = []

    @asset
    def counted() -> int:
        calls.append(1)
        return len(calls)

    flow = FlowStone.for_testing([counted])

    async def main() -> list[int]:
        done = await asyncio.gather(*(flow.aio.materialize("counted") for _ in range(50)))
        return [one.value for one in done]

    assert asyncio.run(main()) == [1] * 50


def test_private_and_unknown_names() -> None:
    flow = FlowStone.for_testing([one])
    for name in ("_run", "nothing"):
        with pytest.raises(AttributeError):
            getattr(flow.aio, name)
    assert flow.aio.materialize.__doc__ == flow.materialize.__doc__


def twins() -> list[tuple[object, AsyncFlowStone]]:
    flow = FlowStone.for_testing([one, later])
    views = [
        (getattr(flow, name), view) for name, view in vars(flow.aio).items() if isinstance(view, AsyncFlowStone)
    ]
    return [(flow, flow.aio), *views]


TWINS = {type(target).__name__: (target, twin) for target, twin in twins()}
CONSTRUCTORS = {"for_testing", "for_production"}


def verbs(target: object) -> set[str]:
    public = {name for name in dir(type(target)) if not name.startswith("_")} - CONSTRUCTORS
    return {name for name in public if inspect.isfunction(getattr(type(target), name))}


def test_every_view_has_an_asynchronous_face() -> None:
    flow = FlowStone.for_testing([one])
    views = {name for name, view in vars(flow).items() if type(view).__name__.endswith("View")}
    assert views == {name for name, view in vars(flow.aio).items() if isinstance(view, AsyncFlowStone)}
    assert len(views) > 10


@pytest.mark.parametrize("name", TWINS)
def test_the_asynchronous_face_agrees_with_the_synchronous_one(name: str) -> None:
    target, twin = TWINS[name]
    assert verbs(twin) == verbs(target)
    for verb in verbs(target):
        plain, awaited = getattr(type(target), verb), getattr(type(twin), verb)
        assert inspect.iscoroutinefunction(awaited), verb
        assert inspect.signature(awaited) == inspect.signature(plain), verb
        hints = [get_type_hints(function) for function in (plain, awaited)]
        assert hints[0] == hints[1], verb
        assert inspect.getdoc(awaited) == inspect.getdoc(plain), verb
