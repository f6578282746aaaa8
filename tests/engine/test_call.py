from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from flowstone.core.asset import Asset, asset
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.engine.call import AbandonedError, CoroutineRunner, Invoker, LimitReachedError
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
    reads = asset(name="reads")(lambda: variable.get())  # noqa: PLW0108 - built-in methods have no signature
    token = variable.set("mine")
    try:
        assert call(reads, timeout_seconds=30) == "mine"
    finally:
        variable.reset(token)


def test_what_a_limited_function_raises_arrives(call) -> None:
    @asset
    def exits():
        raise SystemExit(4)

    with pytest.raises(SystemExit):
        call(exits, timeout_seconds=30)


@pytest.fixture
def runner() -> Iterator[CoroutineRunner]:
    before = set(threading.enumerate())
    made = CoroutineRunner()
    yield made
    made.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)  # one that was left behind ends when it can
        assert not thread.is_alive()


def elsewhere[T](call: Callable[[], T]) -> T:
    """Call in another thread and release what comes of it."""
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    if failure:
        raise failure[0]
    return answer[0]


async def answer() -> str:
    await asyncio.sleep(0)
    return variable.get()


def test_in_the_main_thread_it_runs_right_there(runner: CoroutineRunner) -> None:
    async def where() -> threading.Thread:
        return threading.current_thread()

    assert runner.run(where()) is threading.main_thread()


def test_elsewhere_each_has_a_loop_of_its_own_and_one_is_shared_by_those_that_ask_for_it(
    runner: CoroutineRunner,
) -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first, second = (elsewhere(lambda: runner.run(where())) for _ in range(2))
    assert first is not second
    assert first.is_closed()
    first, second = (elsewhere(lambda: runner.run(where(), shared=True)) for _ in range(2))
    assert first is second
    assert not first.is_closed()


@pytest.mark.parametrize("shared", [False, True])
def test_a_blocked_loop_holds_up_nobody_else(runner: CoroutineRunner, shared: bool) -> None:
    go_on, blocked = threading.Event(), threading.Event()

    async def blocks() -> None:
        blocked.set()
        go_on.wait(60)

    culprit = threading.Thread(target=lambda: runner.run(blocks(), shared=shared))
    culprit.start()
    assert blocked.wait(30)
    try:
        assert elsewhere(lambda: runner.run(answer(), timeout_seconds=30, shared=shared)) == "nothing"
        assert culprit.is_alive()
        runner.close()  # does not wait for it either
    finally:
        go_on.set()
        culprit.join(30)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_what_does_not_end_at_its_limit_is_left_behind(
    runner: CoroutineRunner,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    shared: bool,
) -> None:
    monkeypatch.setattr("flowstone.engine.call._CLEAN_UP_SECONDS", 0.1)
    go_on = threading.Event()

    async def blocks() -> None:
        go_on.wait(60)

    async def swallows() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            while not go_on.is_set():
                await asyncio.sleep(0.01)

    call = elsewhere if place == "elsewhere" else lambda function: function()
    token = CancellationToken()
    try:
        for bad in (blocks, swallows, cleans_up):
            with pytest.raises(LimitReachedError):
                call(lambda bad=bad: runner.run(bad(), timeout_seconds=0.01, shared=shared, cancellation=token))
        assert token.reason == "timeout"
        assert "left behind" in caplog.text
    finally:
        go_on.set()


def test_a_cancel_reaches_a_coroutine_that_does_not_look_and_leaves_one_that_swallows_it() -> None:
    runner = CoroutineRunner(grace_seconds=0.2)
    go_on = threading.Event()

    async def sleeps() -> None:
        await asyncio.sleep(3600)

    async def swallows() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    for coroutine, error in ((sleeps, asyncio.CancelledError), (swallows, AbandonedError)):
        token = CancellationToken()
        threading.Timer(0.01, token.cancel).start()
        with pytest.raises(error):
            elsewhere(lambda c=coroutine, t=token: runner.run(c(), cancellation=t))
    go_on.set()


def test_in_the_main_thread_a_cancel_reaches_it_too(
    runner: CoroutineRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowstone.engine.call._POLITE_SECONDS", 0.01)
    token = CancellationToken()
    threading.Timer(0.01, token.cancel).start()
    with pytest.raises(asyncio.CancelledError):
        runner.run(asyncio.sleep(3600), cancellation=token)


def test_an_error_of_a_coroutine_leaves_no_cycle_that_holds_its_inputs(runner: CoroutineRunner) -> None:
    class Large:
        pass

    large = Large()
    gone = weakref.ref(large)

    async def fails(value: object) -> None:
        raise ValueError("x")

    def call() -> None:
        nonlocal large
        with suppress(ValueError):
            coroutine = fails(large)
            del large
            runner.run(coroutine)

    gc.disable()
    try:
        elsewhere(call)
        assert gone() is None
    finally:
        gc.enable()


def test_inside_a_running_loop_another_one_is_used(runner: CoroutineRunner) -> None:
    async def outer() -> str:
        return runner.run(answer())

    assert asyncio.run(outer()) == "nothing"


def test_context_variables_are_the_callers(runner: CoroutineRunner) -> None:
    def call() -> str:
        variable.set("mine")
        return runner.run(answer())

    assert elsewhere(call) == "mine"


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_whatever_is_raised_arrives_and_the_loop_goes_on(
    runner: CoroutineRunner, error: BaseException, place: str
) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise error

    call = elsewhere if place == "elsewhere" else lambda function: function()
    with pytest.raises(type(error)):
        call(lambda: runner.run(fails()))
    assert call(lambda: runner.run(answer())) == "nothing"


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_time_limits_cancel(runner: CoroutineRunner, place: str) -> None:
    cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    call = elsewhere if place == "elsewhere" else lambda function: function()
    with pytest.raises(TimeoutError):
        call(lambda: runner.run(endless(), timeout_seconds=0.01))
    assert cancelled.wait(30)


def test_closing_cancels_what_is_left_and_it_starts_again(runner: CoroutineRunner) -> None:
    ended = threading.Event()

    async def leaves_a_task() -> None:
        async def left() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        leaves_a_task.task = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    elsewhere(lambda: runner.run(leaves_a_task()))
    assert ended.is_set()  # a loop of its own ends what was left on it
    ended.clear()
    elsewhere(lambda: runner.run(leaves_a_task(), shared=True))
    runner.close()
    assert ended.is_set()
    runner.close()
    assert elsewhere(lambda: runner.run(answer())) == "nothing"
