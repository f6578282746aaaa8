"""`flow.aio`: every verb as an awaitable that never blocks the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any

from flowstone.protocols import CallerLoop

_THREADS = 64

caller_loop: contextvars.ContextVar[CallerLoop | None] = contextvars.ContextVar("caller_loop", default=None)
"""The loop of whoever awaits the verb that runs in this thread."""


class AsyncFace:
    """Gives each method of an object as an awaitable one, run in a thread of its own pool.

    Not a second, hand-written copy of the API: `await flow.aio.materialize(...)` is `flow.materialize(...)`
    in a thread, with the caller's context variables. Waiting threads are cheap; the pool is separate from
    the default one of asyncio, which an application uses for its own work.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def one():
        ...     return 1
        >>> async def main():
        ...     done = await FlowStone([one]).aio.materialize("one")
        ...     return done.value
        >>> asyncio.run(main())
        1
    """

    def __init__(self, target: object) -> None:
        self._target = target
        self._pool: ThreadPoolExecutor | None = None

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if name.startswith("_"):
            raise AttributeError(name)
        if not callable(attribute):
            # a view such as flow.runs: its methods are awaitable in the same way
            return AsyncFace(attribute)
        return self._awaitable(attribute)

    def _awaitable[**P, T](self, method: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        @wraps(method)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            loop = asyncio.get_running_loop()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="flowstone-aio")
            context = contextvars.copy_context()
            caller = CallerLoop(loop)
            context.run(caller_loop.set, caller)
            work = loop.run_in_executor(self._pool, partial(context.run, method, *args, **kwargs))
            if kwargs.get("connection") is None:
                return await work
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                # nothing more may happen on the caller's connection once this returns
                caller.give_up()
                await asyncio.wait([work])
                raise

        return call
