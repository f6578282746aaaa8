from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import UTC, datetime

import pytest

from flowstone.core.asset import Asset, asset
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.engine.call import CoroutineRunner, Invoker
from flowstone.engine.isolation import IsolatedCalls
from flowstone.errors import MaterializationTimeoutError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@pytest.fixture
def call():
    coroutines, processes = CoroutineRunner(), IsolatedCalls(max_idle=0)
    invoker = Invoker(coroutines, processes)

    def call(declared: Asset, *, timeout_seconds: float | None = None, **inputs: object) -> object:
        context = AssetContext(
            asset=declared,
            partition=None,
            key="",
            run_id="r",
            step_id=1,
            attempt=1,
            token=1,
            started_at=datetime.now(UTC),
            cancellation=CancellationToken(),
            resources={},
        )
        context.inputs = inputs
        call.context = context  # type: ignore[attr-defined]
        return invoker.call(context, timeout_seconds=timeout_seconds, stoppable=False)

    yield call
    processes.close()
    coroutines.close()


def test_functions_run_where_they_are_called(call) -> None:
    where = asset(name="where")(threading.current_thread)
    assert call(where) is threading.current_thread()


def test_inputs_and_context_are_passed(call) -> None:
    @asset
    def plain(a, b=5): ...

    plain.function = lambda a, b=5: (a, b)
    assert call(plain, a=1) == (1, 5)

    @asset
    def with_context(context, a):
        return context, a

    assert call(with_context, a=2) == (call.context, 2)
    assert call(with_context, a=2, timeout_seconds=30) == (call.context, 2)


def test_coroutines_are_awaited(call) -> None:
    @asset
    async def later(context, a):
        await asyncio.sleep(0)
        return context.run_id, a

    assert call(later, a=3) == ("r", 3)
    assert call(later, a=3, timeout_seconds=30) == ("r", 3)


def test_a_limit_in_a_thread_sets_the_token(call) -> None:
    seen = threading.Event()

    @asset
    def slow(context):
        context.cancellation.wait(60)
        seen.set()

    with pytest.raises(MaterializationTimeoutError, match=r"'slow' did not finish within its timeout of 0.02 s"):
        call(slow, timeout_seconds=0.02)
    assert call.context.cancellation.reason == "timeout"
    assert seen.wait(30)


def test_a_limit_cancels_a_coroutine(call) -> None:
    @asset
    async def slow():
        await asyncio.sleep(3600)

    with pytest.raises(MaterializationTimeoutError):
        call(slow, timeout_seconds=0.02)


def test_the_assets_own_timeout_error_is_not_ours(call) -> None:
    @asset
    async def raises():
        raise TimeoutError("the server was slow")

    @asset
    def plain():
        raise TimeoutError("the server was slow")

    for one in (raises, plain):
        with pytest.raises(TimeoutError, match="the server was slow") as caught:
            call(one, timeout_seconds=30)
        assert type(caught.value) is TimeoutError


def test_context_variables_reach_a_limited_function(call) -> None:
    variable.set("mine")
    reads = asset(name="reads")(lambda: variable.get())  # noqa: PLW0108 - built-in methods have no signature
    assert call(reads, timeout_seconds=30) == "mine"


def test_what_a_limited_function_raises_arrives(call) -> None:
    @asset
    def exits():
        raise SystemExit(4)

    with pytest.raises(SystemExit):
        call(exits, timeout_seconds=30)
