from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator

import pytest

from flowstone.engine.coroutines import CoroutineRunner

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@pytest.fixture
def runner() -> Iterator[CoroutineRunner]:
    before = set(threading.enumerate())
    made = CoroutineRunner()
    yield made
    made.close()
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name == "flowstone-coroutines"]


def elsewhere[T](call: Callable[[], T]) -> T:
    """Call in another thread and hand back what comes of it."""
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


def test_elsewhere_one_loop_is_shared(runner: CoroutineRunner) -> None:
    async def where() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    first, second = (elsewhere(lambda: runner.run(where())) for _ in range(2))
    assert first is second


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
    runner.close()
    assert ended.is_set()
    runner.close()
    assert elsewhere(lambda: runner.run(answer())) == "nothing"
