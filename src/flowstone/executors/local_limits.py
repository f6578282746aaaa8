"""Named limits within one process, for executors that run their jobs here."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flowstone.core.forks import renew_after_fork
from flowstone.core.limits import Rate, parse_limit


class Room:
    """Lets so many in at once: a context manager that any number of threads may enter.

    Args:
        places: how many.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._begin()
        renew_after_fork(self, Room._begin)

    def _begin(self) -> None:
        # in a forked child, nobody is left of those who were inside
        self._free = threading.Semaphore(self._places)

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(self, *_: object) -> None:
        self._free.release()


class LocalLimits:
    """Lets callers wait for limits; what is fleet-wide on workers holds per process here.

    Example:
        >>> limits = LocalLimits()
        >>> with limits.hold({"warehouse": 1, "api": "10/second"}):
        ...     pass
    """

    def __init__(self) -> None:
        self._starts: dict[str, list[float]] = defaultdict(list)
        self._begin()
        renew_after_fork(self, LocalLimits._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def hold(self, limits: Mapping[str, int | str]) -> Iterator[None]:
        """Wait until every limit allows a start, and count as one until the end of the block.

        Args:
            limits: name to number at once, or rate such as `10/minute`; breakers are for workers only.
        """
        parsed = {name: parse_limit(value) for name, value in limits.items()}
        slots = {name: limit for name, limit in parsed.items() if isinstance(limit, int)}
        rates = {name: limit for name, limit in parsed.items() if isinstance(limit, Rate)}
        with self._changed:
            while True:
                if any(self._taken[name] >= limit for name, limit in slots.items()):
                    self._changed.wait()
                elif pause := self._rate_pause(rates):
                    self._changed.wait(pause)
                else:
                    break
            self._taken.update(slots.keys())
        try:
            yield
        finally:
            with self._changed:
                self._taken.subtract(slots.keys())
                self._changed.notify_all()

    def _rate_pause(self, rates: Mapping[str, Rate]) -> float:
        """Take from all rates and return 0, or return the seconds until that may be possible."""
        now = time.monotonic()
        waits = [rate.pause(self._starts[name], now=now) for name, rate in rates.items()]
        if any(waits):
            return max(waits)
        for name in rates:
            self._starts[name].append(now)
        return 0.0
