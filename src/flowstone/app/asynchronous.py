"""`flow.aio`: every verb as an awaitable that never blocks the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate

from flowstone.errors import option_hint
from flowstone.protocols import CallerLoop

_THREADS = 64

caller_loop: contextvars.ContextVar[CallerLoop | None] = contextvars.ContextVar("caller_loop", default=None)
"""The loop of whoever awaits the verb that runs in this thread."""


class AsyncFlowStone:
    """Base of what has the verbs of an object as awaitable ones, run in the threads of a pool of its own.

    Waiting threads are cheap; the pool is separate from the default one of asyncio, which an application uses for
    its own work.

    Args:
        target: the object.
        pool: the threads; a new pool when None.
    """

    def __init__(self, target: object, pool: ThreadPoolExecutor | None = None) -> None:
        self._target = target
        self._pool = pool or ThreadPoolExecutor(_THREADS, thread_name_prefix="flowstone-aio")

    async def _call(self, name: str, *args: Any, **keywords: Any) -> Any:
        """Call a verb in a thread, with the caller's context variables."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        caller = CallerLoop(loop)
        context.run(caller_loop.set, caller)
        verb = partial(getattr(self._target, name), *args, **keywords)
        work = loop.run_in_executor(self._pool, partial(context.run, verb))
        if keywords.get("connection") is None:
            return await work
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # nothing more may happen on the caller's connection once this returns
            caller.give_up()
            await asyncio.wait([work])
            raise

    if not TYPE_CHECKING:  # whose checkers would then take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            about = "flow.aio" if self._target is None else f"{type(self).__name__}"
            verbs = [one for one in dir(type(self)) if not one.startswith("_")]
            raise AttributeError(f"{about} has no {name!r}.{option_hint(name, verbs)}", name=name, obj=self)


def awaitable[S, **P, T](
    verb: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[AsyncFlowStone, P], Coroutine[Any, Any, T]]:
    """Return a verb as a method of an `AsyncFlowStone`: the same name, parameters and, awaited, the same result.

    Example:
        >>> class AsyncText(AsyncFlowStone):
        ...     upper = awaitable(str.upper)
        >>> asyncio.run(AsyncText("a").upper())
        'A'
    """

    @wraps(verb)
    async def call(self: AsyncFlowStone, /, *args: P.args, **keywords: P.kwargs) -> T:
        result: T = await self._call(verb.__name__, *args, **keywords)
        return result

    return call
