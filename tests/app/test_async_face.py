from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from flowstone.app import FlowStone
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
