"""What changes reaches the browsers: one question a second for all of them, and none while nobody watches.

The first browser that opens the stream starts a task, the last that leaves ends it; so a mounted one needs no
lifespan. A message is the pulse: a text for each topic that is another one when something about it changed.
Whoever reconnects compares it with the last one it saw, so that nothing is missed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.responses import Response, StreamingResponse

from flowstone.web.problems import Problem, problem_of

log = logging.getLogger("flowstone.web")

_EVERY_SECONDS = 1.0
_BEAT_SECONDS = 4.0
"""How often something is sent although nothing changed: what is shown is known to be fresh then."""
_CHECK_SECONDS = 30.0
_MAX_STREAMS = 500
_RETRY_MILLISECONDS = 2_000


class Live:
    """The stream of changes of one process.

    Args:
        pulse: asks what changed.
        every_seconds: how often.
        on_change: called before the browsers hear of a change: what was made before it is old.
    """

    def __init__(
        self,
        pulse: Callable[[], Awaitable[Mapping[str, str]]],
        every_seconds: float = _EVERY_SECONDS,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._pulse = pulse
        self._every = every_seconds
        self._watchers: set[asyncio.Queue[str | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._last = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def watchers(self) -> int:
        """How many browsers watch now."""
        return len(self._watchers)

    @property
    def running(self) -> bool:
        """Whether something is asked every second."""
        return self._task is not None and not self._task.done()

    def stream(self, still: Callable[[], Awaitable[bool]]) -> Response:
        """Return the answer that goes on.

        Args:
            still: whether the person may still read, asked every 30 seconds.

        Raises:
            Problem: 503, too many watch; they read every few seconds instead.
        """
        if len(self._watchers) >= _MAX_STREAMS:
            raise Problem(
                503, f"{_MAX_STREAMS} browsers watch already.", "Load the page again.", {"Retry-After": "60"}
            )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._messages(still), media_type="text/event-stream", headers=headers)

    def close(self) -> None:
        """End every stream; may be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    async def _messages(self, still: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=8)
        self._enter(queue)
        checked = time.monotonic()
        try:
            yield f"retry: {_RETRY_MILLISECONDS}\n\n"
            if self._last:
                yield self._last
            while (message := await queue.get()) is not None:
                if time.monotonic() - checked >= _CHECK_SECONDS:
                    checked = time.monotonic()
                    if not await still():
                        yield "event: gone\ndata: {}\n\n"
                        return
                yield message
        finally:
            self._watchers.discard(queue)

    def _enter(self, queue: asyncio.Queue[str | None]) -> None:
        self._watchers.add(queue)
        if not self.running:
            self._loop = asyncio.get_running_loop()
            self._last = ""
            self._task = self._loop.create_task(self._run(), name="flowstone-web-live")

    async def _run(self) -> None:
        sent, before = 0.0, ""
        while self._watchers:
            started = time.monotonic()
            message, fresh = await self._ask()
            if fresh != before:
                self._on_change()
            if fresh != before or started - sent >= _BEAT_SECONDS:
                self._send(message)
                sent, before = started, fresh
            await asyncio.sleep(max(0.05, self._every - (time.monotonic() - started)))

    async def _ask(self) -> tuple[str, str]:
        """Return what to send, and what it is compared by."""
        try:
            topics = {name: _short(value) for name, value in (await self._pulse()).items()}
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                log.exception("What changed cannot be asked")
            text = problem.detail if problem else "The dashboard failed at asking what changed."
            data = json.dumps({"detail": text})
            return f"event: failed\ndata: {data}\n\n", f"failed {text}"
        data = json.dumps({"topics": topics, "at": round(time.time(), 3)})
        self._last = f"event: pulse\ndata: {data}\n\n"
        return self._last, json.dumps(topics)

    def _send(self, message: str | None) -> None:
        for queue in list(self._watchers):
            if queue.full():
                # who does not read gets the newest once it does; each message holds all there is to know
                queue.get_nowait()
            queue.put_nowait(message)

    def _end(self) -> None:
        self._send(None)
        if self._task is not None:
            self._task.cancel()


def _short(value: str) -> str:
    return hashlib.blake2b(value.encode(), digest_size=6).hexdigest()
