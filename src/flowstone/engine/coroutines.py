"""Asset functions written as `async def`, run from synchronous code."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any, cast


class CoroutineRunner:
    """Runs coroutines on one background event loop, shared by all steps of the process.

    Sharing one loop lets async resources (HTTP sessions, connection pools) be used by every step. Called
    from the main thread while no loop runs there, a coroutine runs right there instead, so that a breakpoint
    and a traceback look as if it had been awaited by the caller.

    Example:
        >>> async def answer():
        ...     return 42
        >>> runner = CoroutineRunner()
        >>> runner.run(answer())
        42
        >>> runner.close()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run[T](self, coroutine: Coroutine[Any, Any, T], *, timeout_seconds: float | None = None) -> T:
        """Run a coroutine to its end.

        Args:
            coroutine: what to run.
            timeout_seconds: after this it is cancelled; None waits as long as it takes.

        Returns:
            Its result.

        Raises:
            TimeoutError: it was not over in time (and is cancelled).
        """
        limited = asyncio.wait_for(coroutine, timeout_seconds) if timeout_seconds else coroutine
        if threading.current_thread() is not threading.main_thread() or _loop_runs_here():
            return self._submit(limited)
        failure: list[BaseException] = []
        result = asyncio.run(_apart(limited, failure))
        if failure:
            raise failure.pop()
        return cast("T", result)

    def close(self) -> None:
        """Stop the background loop; it starts again when needed."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _submit[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        loop = self._running_loop()
        context = contextvars.copy_context()
        result: asyncio.Task[T | None] | None = None
        over = threading.Event()
        failure: list[BaseException] = []

        def start() -> None:
            nonlocal result
            result = loop.create_task(_apart(coroutine, failure), context=context)
            result.add_done_callback(lambda _: over.set())

        loop.call_soon_threadsafe(start)
        over.wait()
        assert result is not None
        if result.cancelled():
            raise asyncio.CancelledError
        if failure:
            raise failure.pop()
        return cast("T", result.result())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(loop,), name="flowstone-coroutines", daemon=True
                )
                self._thread.start()
            return self._loop


async def _apart[T](coroutine: Coroutine[Any, Any, T], failure: list[BaseException]) -> T | None:
    """Leave an error in a list that is emptied when it is raised.

    A task keeps its error, the error's traceback keeps the frames that wait for the task, and these keep the task:
    the inputs of the coroutine would stay in memory until the cyclic collector runs.
    """
    try:
        return await coroutine
    except asyncio.CancelledError:
        raise  # what cancels the task sees to it
    except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
        failure.append(error)
        return None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        while True:
            try:
                loop.run_forever()
                break
            except (KeyboardInterrupt, SystemExit):
                # asyncio re-raises these out of the loop after giving them to the task that raised them;
                # an asset that exits must not take the loop of all others with it
                continue
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
