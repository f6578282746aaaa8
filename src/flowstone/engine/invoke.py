"""Calling the function of an asset: directly, on a loop, with a time limit, or in another process."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Any, Protocol

from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext
from flowstone.engine.coroutines import AbandonedError, CoroutineRunner, LimitReachedError
from flowstone.errors import MaterializationTimeoutError, StepCancelledError


class ProcessPool(Protocol):
    """Runs functions where they can really be stopped."""

    def call(self, context: AssetContext, arguments: dict[str, Any], *, timeout_seconds: float | None) -> object:
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
        must_stop = stoppable and timeout_seconds is not None and not asset.is_async
        if asset.isolation == "process" or (must_stop and asset.portable):
            return self._processes.call(context, context.inputs, timeout_seconds=timeout_seconds)
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
