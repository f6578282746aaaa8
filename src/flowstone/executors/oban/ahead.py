"""Taking short jobs ahead of their turn, so that a worker does not idle while it asks for the next ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from flowstone.executors.oban.attempts import Attempts, Running

_SHORT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 1.0
_WEIGHT = 0.05


class FetchAhead:
    """Lets a queue take up to twice its limit while its steps are short, and start no more than the limit.

    Asking for jobs costs several milliseconds. While steps take less than that, a second batch is taken with
    the first, so that asking and working overlap. What does not get its turn within a second is given back.

    Args:
        queues: queue name to limit.
        attempts: told about attempts that are given back.
    """

    def __init__(self, queues: Mapping[str, int], attempts: Attempts) -> None:
        self._limits = dict(queues)
        self._attempts = attempts
        self._gates = {queue: asyncio.Semaphore(limit) for queue, limit in queues.items()}
        # as if steps had been long, until they were seen to be short
        self._typical = dict.fromkeys(queues, 1.0)
        self._waiting: dict[int, tuple[float, Running]] = {}
        self._closed = False

    def beyond(self, queue: str) -> int:
        """Return how many jobs may be taken beyond the free places of a queue."""
        return self._limits[queue] if self._typical[queue] < _SHORT_SECONDS else 0

    def took(self, queue: str, seconds: float) -> None:
        """Learn from how long a step took; called from its thread."""
        self._typical[queue] += _WEIGHT * (min(seconds, 1.0) - self._typical[queue])

    def resize(self, queue: str, limit: int) -> None:
        """Start another number of steps at once from now on; those that run are not counted again."""
        self._limits[queue] = limit
        self._gates[queue] = asyncio.Semaphore(limit)

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True

    @asynccontextmanager
    async def turn(self, queue: str, running: Running) -> AsyncIterator[bool]:
        """Wait for a place; gives False when the attempt was given back, or the node stops, meanwhile."""
        key = running.claim.token
        self._waiting[key] = (time.monotonic(), running)
        async with self._gates[queue]:
            mine = self._waiting.pop(key, None) is not None
            yield mine and not self._closed

    def overdue(self) -> list[Running]:
        """Take out what has waited for too long; its turn will not come any more."""
        before = time.monotonic() - _LONGEST_WAIT_SECONDS
        late = [key for key, (since, _) in self._waiting.items() if since < before]
        found = [self._waiting.pop(key)[1] for key in late]
        for running in found:
            self._attempts.dropped(running)
        return found
