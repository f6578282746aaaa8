"""Calling the function of an asset: directly, on a loop, with a time limit, or in another process.

`Invoker`, at the end, chooses the way; the rest is what `async def` costs in a synchronous program: a loop and a
thread for each call, so that one that blocks holds up nobody (decision 15 in docs/adr).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import CoroutineType
from typing import Any, Protocol, cast

from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.core.forks import renew_after_fork
from flowstone.engine.isolated.values import IsolatedValues
from flowstone.engine.isolated.wire import Given
from flowstone.engine.values import ResolvedInputs
from flowstone.errors import MaterializationTimeoutError, StepCancelledError

log = logging.getLogger("flowstone")

_POLITE_SECONDS = 1.0
_CLEAN_UP_SECONDS = 1.0
_STUCK_SECONDS = 0.5
_MAX_THREADS = 100


class LimitReachedError(TimeoutError):
    """A coroutine was not over in time; not to be taken for a TimeoutError of its own."""


class AbandonedError(Exception):
    """A coroutine did not end within the grace after its cancel; its thread is left behind."""


class CoroutineRunner:
    """Runs coroutines, each on an event loop in a thread of its own.

    Whatever a coroutine does to its loop (block it, swallow its cancellation, clean up for minutes) it does to
    itself alone: at its limit, or a grace after a cancel, its thread is left behind like that of a function.

    Coroutines that share objects bound to a loop (HTTP sessions, asynchronous pools) ask for the shared loop. What
    comes to it while a call blocks it gets a new one.

    Called from the main thread without a limit, while no loop runs there, a coroutine runs right there, so that a
    breakpoint and a traceback look as if it had been awaited by the caller.

    Args:
        grace_seconds: how long a coroutine may go on after its cancellation token was set.

    Example:
        >>> async def answer():
        ...     return 42
        >>> runner = CoroutineRunner()
        >>> runner.run(answer())
        42
        >>> runner.close()
    """

    def __init__(self, *, grace_seconds: float = 10.0) -> None:
        self._grace_seconds = grace_seconds
        self._renew()
        renew_after_fork(self, CoroutineRunner._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._shared: _SharedLoop | None = None
        self._calls: set[_Call] = set()

    def run[T](
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        timeout_seconds: float | None = None,
        cancellation: CancellationToken | None = None,
        shared: bool = False,
        name: str = "flowstone-coroutine",
    ) -> T:
        """Run a coroutine to its end.

        Args:
            coroutine: what to run.
            timeout_seconds: after this it is cancelled; None waits as long as it takes.
            cancellation: when it is set, the coroutine gets a second to notice, is cancelled then, and left
                behind when the grace is over.
            shared: whether it uses objects that are bound to a loop and used by others too.
            name: of its thread, and in log lines.

        Returns:
            Its result.

        Raises:
            LimitReachedError: it was not over in time.
            AbandonedError: it did not end although it was cancelled.
            CancelledError: it was cancelled.
            BaseException: whatever it raised.
        """
        here = threading.current_thread() is threading.main_thread() and not _loop_runs_here()
        if here and timeout_seconds is None:
            return _run_here(coroutine, cancellation)
        call = _Call(coroutine, name)
        with self._lock:
            shared = shared or len(self._calls) >= _MAX_THREADS
            self._calls.add(call)
        try:
            if shared:
                self._submit(call)
            else:
                call.start()
            call.wait(timeout_seconds, cancellation, self._grace_seconds)
            value: T = call.result()
            return value
        finally:
            self._calls.discard(call)
            if not call.begun:
                coroutine.close()
            # an error that leaves holds this frame: what the coroutine held must not stay with it
            call.forget()

    def close(self) -> None:
        """Cancel what runs and stop the loops; what does not end is left behind. It can be used again."""
        with self._lock:
            shared, self._shared = self._shared, None
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        until = time.monotonic() + _CLEAN_UP_SECONDS
        for call in calls:
            call.over.wait(max(0.0, until - time.monotonic()))
        if shared is not None:
            shared.stop()

    def _submit(self, call: _Call) -> None:
        """Start a call on the shared loop, or on a new one when that is blocked."""
        while True:
            with self._lock:
                if self._shared is None:
                    self._shared = _SharedLoop()
                loop = self._shared
            if loop.submit(call):
                return
            log.warning(
                "A coroutine blocks the event loop that assets with resources share; others get a new one."
            )
            with self._lock:
                if self._shared is loop:
                    self._shared = None
            loop.stop(wait_seconds=0.0)  # when it can


class _Call:
    """One coroutine on its way: begun on a loop, waited for, cancelled, left behind."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        self._coroutine = coroutine
        self._name = name
        self._context = contextvars.copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._raised: list[BaseException] = []
        self._changed = threading.Event()
        self.begun = False
        self.over = threading.Event()

    def start(self) -> None:
        """Run it on a loop of its own, in a thread of its own."""
        self.begin(asyncio.new_event_loop())
        self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        self._thread.start()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make its task; in the thread of the loop once that runs."""
        self._loop = loop
        self._task = loop.create_task(_apart(self._coroutine, self._raised), context=self._context)
        self._task.add_done_callback(self._end)
        self.begun = True

    def cancel(self) -> None:
        """Raise CancelledError in it, at its next `await`."""
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # its loop is closed: it is over
                self._loop.call_soon_threadsafe(self._task.cancel)

    def wait(self, timeout_seconds: float | None, token: CancellationToken | None, grace_seconds: float) -> None:
        """Return when it is over, and what it left on its own loop too, if that does not take long."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if token is not None:
            token.on_cancel(self._changed.set)
        cancel_at = leave_at = float("inf")
        try:
            while not self.over.is_set():
                now = time.monotonic()
                if token is not None and token.reason is not None and leave_at == float("inf"):
                    cancel_at, leave_at = now + min(_POLITE_SECONDS, grace_seconds / 2), now + grace_seconds
                if deadline is not None and now >= deadline:
                    if token is not None:
                        token.cancel("timeout")
                    self._leave()
                    raise LimitReachedError
                if now >= leave_at:
                    self._leave()
                    raise AbandonedError
                if now >= cancel_at:
                    cancel_at = float("inf")
                    self.cancel()
                due = min(cancel_at, leave_at, float("inf") if deadline is None else deadline)
                self._changed.wait(None if due == float("inf") else max(0.0, due - now))
                self._changed.clear()
        except KeyboardInterrupt:
            self._leave()
            raise
        if self._thread is not None:
            self._thread.join(_CLEAN_UP_SECONDS)

    def result(self) -> Any:
        """Return or raise what it came to."""
        if self._raised:
            raise self._raised.pop()
        if self._failure is not None:
            raise self._failure
        assert self._task is not None
        return self._task.result()

    def forget(self) -> None:
        """Let go of everything; it is over, or left behind."""
        del self._coroutine, self._context
        self._raised.clear()
        self._loop = self._task = self._thread = self._failure = None

    def _leave(self) -> None:
        """Cancel it, and leave its thread behind when it does not end soon."""
        self.cancel()
        if not self.over.wait(_CLEAN_UP_SECONDS):
            log.warning(
                "The coroutine of %s did not end within %g s of its cancel: it blocks its event loop, swallows "
                "CancelledError or cleans up for long. Its thread is left behind; nothing of it is recorded.",
                self._name.removeprefix("flowstone-"),
                _CLEAN_UP_SECONDS,
            )

    def _end(self, task: asyncio.Task[Any]) -> None:
        # asked, because asyncio complains about an error that nobody waits for any more
        if not task.cancelled():
            task.exception()
        self.over.set()
        self._changed.set()

    def _serve(self) -> None:
        loop, task = self._loop, self._task
        assert loop is not None
        assert task is not None
        try:
            # the runner's end cancels what the coroutine left, and closes its asynchronous generators
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.get_loop()
                while not task.done():
                    try:
                        loop.run_until_complete(task)
                    except (KeyboardInterrupt, SystemExit):
                        continue  # of the task itself, or of something else on its loop
                    except BaseException as error:  # noqa: BLE001 - the task's own, or its loop was stopped
                        if not task.done():
                            self._failure = error
                        break
                self._end_if_done(task)
        except BaseException:  # the result is known; what was left behind failed on its way out
            log.warning("What the coroutine of %s left on its event loop failed.", self._name, exc_info=True)
        finally:
            self.over.set()
            self._changed.set()

    def _end_if_done(self, task: asyncio.Task[Any]) -> None:
        """Report the end now: a task that raised SystemExit stops its loop before the callback is due."""
        if task.done() or self._failure is not None:
            self.over.set()
            self._changed.set()


class _SharedLoop:
    """A loop for coroutines that use the same objects."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_serve_shared, args=(self._loop,), name="flowstone-coroutines", daemon=True
        )
        self._thread.start()

    def submit(self, call: _Call) -> bool:
        """Begin a call; False, and never begun, when the loop does not answer."""
        right = [call]  # whoever takes it decides: the loop begins the call, or the caller goes elsewhere
        begun = threading.Event()

        def begin() -> None:
            with suppress(IndexError):
                right.pop().begin(self._loop)
                begun.set()

        with suppress(RuntimeError):  # closed meanwhile
            self._loop.call_soon_threadsafe(begin)
            if begun.wait(_STUCK_SECONDS):
                return True
        try:
            right.pop()
        except IndexError:
            begun.wait()
            return True
        return False

    def stop(self, *, wait_seconds: float = _CLEAN_UP_SECONDS) -> None:
        """Stop it; what does not end is left behind."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(wait_seconds)


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


def _serve_shared(loop: asyncio.AbstractEventLoop) -> None:
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


def _run_here[T](coroutine: Coroutine[Any, Any, T], cancellation: CancellationToken | None) -> T:
    with asyncio.Runner() as runner:
        if cancellation is not None:
            cancellation.on_cancel(partial(_cancel_soon, runner.get_loop()))
        failure: list[BaseException] = []
        result = runner.run(_apart(coroutine, failure))
    if failure:
        raise failure.pop()
    return cast("T", result)


def _cancel_soon(loop: asyncio.AbstractEventLoop) -> None:
    """Give what runs on a loop a second to notice that it was cancelled, then cancel it; from any thread."""
    with suppress(RuntimeError):  # it is over, and the loop closed
        loop.call_soon_threadsafe(
            loop.call_later, _POLITE_SECONDS, lambda: [task.cancel() for task in asyncio.all_tasks(loop)]
        )


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class ProcessPool(Protocol):
    """Runs functions where they can really be stopped."""

    def call(
        self,
        context: AssetContext,
        given: Given,
        *,
        timeout_seconds: float | None,
        values: IsolatedValues | None = None,
    ) -> object:
        """Run the asset's function in a child process and return its value."""


class Invoker:
    """Chooses how a function is called.

    Args:
        coroutines: where `async def` functions run.
        processes: where isolated functions run.
    """

    def __init__(self, coroutines: CoroutineRunner, processes: ProcessPool) -> None:
        self._coroutines = coroutines
        self._processes = processes

    def call(self, context: AssetContext, *, timeout_seconds: float | None, stoppable: bool) -> object:
        """Call the asset's function with `context.inputs`.

        Args:
            context: the step.
            timeout_seconds: limit; None for none.
            stoppable: whether a function that runs out of time must really be stopped, which takes a
                process; otherwise its thread is left behind and its result is never published.

        Returns:
            What the function returned.

        Raises:
            MaterializationTimeoutError: the limit was reached.
        """
        asset = context.asset
        if self.isolates(asset, timeout_seconds, stoppable=stoppable):
            return self._processes.call(context, Given(context.inputs), timeout_seconds=timeout_seconds)
        value: Any
        if timeout_seconds is None or asset.is_async:
            function, inputs = asset.function, context.inputs
            value = function(context, **inputs) if asset.takes_context else function(**inputs)
        else:
            value = self._limited(asset, context, timeout_seconds)
        # a decorator may hide that it is wrapped around `async def`
        if asset.is_async or type(value) is CoroutineType:
            return self._await(asset, context, value, timeout_seconds)
        return value

    def isolates(self, asset: Asset, timeout_seconds: float | None, *, stoppable: bool) -> bool:
        """Return whether a function is called in a process of its own; see `call`."""
        must_stop = stoppable and timeout_seconds is not None and not asset.is_async
        return asset.isolation == "process" or (must_stop and asset.portable)

    def call_isolated(
        self,
        context: AssetContext,
        inputs: ResolvedInputs,
        values: IsolatedValues,
        *,
        timeout_seconds: float | None,
        keep: bool,
    ) -> object:
        """Call the asset's function in a process of its own, which reads its inputs itself where it can.

        Args:
            context: the step.
            inputs: the versions that it reads.
            values: decides which values that process reads and writes.
            timeout_seconds: limit; None for none.
            keep: whether nobody here needs the value.

        Returns:
            What the function returned, or an `EncodedValue`.
        """
        given = values.given(context, inputs, keep=keep)
        return self._processes.call(context, given, timeout_seconds=timeout_seconds, values=values)

    def _limited(self, asset: Asset, context: AssetContext, timeout_seconds: float) -> object:
        def late() -> BaseException:
            context.cancellation.cancel("timeout")
            return MaterializationTimeoutError(asset.name, timeout_seconds)

        function = partial(asset.function, *_leading(context), **context.inputs)
        return run_in_thread(function, name=f"flowstone-{asset.name}", timeout_seconds=timeout_seconds, late=late)

    def wait_for(self, context: AssetContext, coroutine: Any) -> object:
        """Run a coroutine that a function returned, and return its result."""
        return self._await(context.asset, context, coroutine, None)

    def _await(self, asset: Asset, context: AssetContext, coroutine: Any, timeout_seconds: float | None) -> object:
        try:
            return self._coroutines.run(
                coroutine,
                timeout_seconds=timeout_seconds,
                cancellation=context.cancellation,
                # resources may be bound to the loop on which they were used first
                shared=bool(asset.requires),
                name=f"flowstone-{asset.name}",
            )
        except LimitReachedError:
            raise MaterializationTimeoutError(asset.name, timeout_seconds or 0.0) from None
        except AbandonedError:
            raise StepCancelledError(asset.name) from None


def _leading(context: AssetContext) -> tuple[AssetContext, ...]:
    return (context,) if context.asset.takes_context else ()


def run_in_thread(
    function: Callable[[], object], *, name: str, timeout_seconds: float, late: Callable[[], BaseException]
) -> object:
    """Run a function in a thread of its own and stop waiting for it after a time; it is left behind then.

    Args:
        function: what to run.
        name: name of the thread.
        timeout_seconds: limit.
        late: called when the limit is reached; returns the error to raise.
    """
    answer: list[object] = []
    failure: list[BaseException] = []
    abandoned: list[bool] = []
    over = threading.Event()
    variables = contextvars.copy_context()

    def run() -> None:
        try:
            answer.append(variables.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            failure.append(error)
            if abandoned:
                failure.clear()  # nobody waits; its traceback holds this frame, which holds the list
        finally:
            over.set()

    threading.Thread(target=run, name=name, daemon=True).start()
    if not over.wait(timeout_seconds):
        abandoned.append(True)
        failure.clear()
        raise late()
    if failure:
        raise failure.pop()  # out of the list, as the traceback holds this frame and so the list
    return answer[0]
