"""What is made once for all who ask for the same within a second."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Hashable
from functools import lru_cache

_MAX_KEPT = 256


class Shared[Key: Hashable, Value]:
    """Answers that are kept for a moment; who asks while one is being made waits for it.

    Args:
        seconds: how long they are kept.

    Example:
        >>> async def main():
        ...     shared, calls = Shared(60.0), []
        ...     async def make():
        ...         calls.append(1)
        ...         return len(calls)
        ...     return await asyncio.gather(*(shared.get("a", make) for _ in range(10)))
        >>> asyncio.run(main())
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Key, tuple[float, asyncio.Future[Value]]] = {}

    async def get(self, key: Key, make: Callable[[], Awaitable[Value]]) -> Value:
        """Return what was made under this key within the last moment, or make it."""
        now, loop = time.monotonic(), asyncio.get_running_loop()
        found = self._kept.get(key)
        # a test client has a loop for each request, and a future belongs to one
        if found is not None and found[1].get_loop() is loop and (found[0] > now or not found[1].done()):
            return await asyncio.shield(found[1])
        task = asyncio.ensure_future(make())
        self._forget(now)
        self._kept[key] = (now + self._seconds, task)
        task.add_done_callback(lambda done: self._drop_failed(key, done))
        return await asyncio.shield(task)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def _forget(self, now: float) -> None:
        if len(self._kept) >= _MAX_KEPT:
            self._kept = {key: one for key, one in self._kept.items() if one[0] > now}
        while len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]

    def _drop_failed(self, key: Key, done: asyncio.Future[Value]) -> None:
        if (done.cancelled() or done.exception() is not None) and key in self._kept and self._kept[key][1] is done:
            del self._kept[key]


@lru_cache(maxsize=32)
def compressed(body: bytes) -> bytes:
    """Return a body as gzip; the same body, asked for by others, is compressed once."""
    packer = zlib.compressobj(5, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()
