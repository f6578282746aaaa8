"""Limits within one process, and executors that hold back around any other one.

`LocalLimits` is for executors that run their jobs here; `RateLimited` and `CircuitBreaker` wrap another executor.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flowstone.core.capability import Capability
from flowstone.core.declaring import checks_options, duration, shown, whole_number
from flowstone.core.forks import renew_after_fork
from flowstone.core.job import Job
from flowstone.core.limits import Breaker, Rate, parse_limit
from flowstone.core.materialization import Materialization
from flowstone.core.state import State
from flowstone.errors import CapabilityError, OptionsError
from flowstone.executors.inline import check_call
from flowstone.protocols import CancelsJobs, Executor, ReportsStatus, RunJob


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


@checks_options
class RateLimited:
    """Starts at most so many steps in a time, through another executor; the rest waits, nothing fails.

    Over a durable executor the limit is placed with every step and holds for the whole fleet; over others
    it holds for this process.

    Args:
        inner: the executor that does the work.
        rate: such as `10/minute`, or a number of steps at once.
        name: name of the limit; executors that share it share the limit.

    Raises:
        DefinitionError: the rate cannot be understood.

    Example:
        >>> from flowstone.executors.inline import SyncExecutor
        >>> RateLimited(SyncExecutor(), "10/minute").limits
        {'rate of sync': '10/minute'}
    """

    def __init__(self, inner: Executor, rate: str | int, *, name: str | None = None) -> None:
        parse_limit(rate)
        _refuse_name(inner, "RateLimited")
        self._inner = inner
        self._local = LocalLimits()
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.limits = {**_limits(inner), name or f"rate of {inner.name}": rate}

    def bind(self, run: RunJob) -> None:
        """See `flowstone.protocols.Executor`."""
        self._inner.bind(run)

    def check(self, options: Mapping[str, Any]) -> None:
        """See `flowstone.protocols.ChecksOptions`."""
        check_call(self._inner, options)

    def cancel(self, job: Job) -> None:
        """See `flowstone.protocols.CancelsJobs`."""
        if isinstance(self._inner, CancelsJobs):
            self._inner.cancel(job)

    def status(self, job: Job) -> State | str | None:
        """See `flowstone.protocols.ReportsStatus`."""
        return self._inner.status(job) if isinstance(self._inner, ReportsStatus) else None

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job when the rate allows it."""
        if Capability.DURABLE in self.capabilities:
            return self._inner.execute(job, **options)
        with self._local.hold(self.limits):
            return self._inner.execute(job, **options)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job when the rate allows it."""
        if Capability.DURABLE in self.capabilities:
            return self._inner.schedule(job, **options)
        with self._local.hold(self.limits):
            return self._inner.schedule(job, **options)


@checks_options
class CircuitBreaker:
    """Pauses after repeated failures, then tries one step before it lets the others go on.

    Meant for work that depends on something that may be down: waiting is cheaper than failing through a
    thousand partitions. Over a durable executor the breaker is placed with every step: it counts and holds for the
    whole fleet, and parks what may not start. Over others it counts, and makes its callers wait, in this process.

    Args:
        inner: the executor that does the work.
        failures: failed attempts in a row that open the circuit.
        reset_seconds: how long it stays open before one step is tried.
        name: name of the breaker in the fleet; executors that share it share its count.

    Raises:
        ValueError: `failures` or `reset_seconds` are not above 0.

    Example:
        >>> from flowstone.executors.inline import SyncExecutor
        >>> CircuitBreaker(SyncExecutor(), failures=3, reset_seconds=5.0).is_open
        False
    """

    def __init__(
        self, inner: Executor, *, failures: int = 5, reset_seconds: float = 60.0, name: str | None = None
    ) -> None:
        _refuse_name(inner, "CircuitBreaker")
        reset = duration(reset_seconds)
        if whole_number(failures, minimum=1, maximum=1_000_000) is None or not reset:
            raise ValueError(
                f"CircuitBreaker(failures={shown(failures)}, reset_seconds={shown(reset_seconds)}): give a whole "
                "number from 1 on, and a timedelta or seconds above 0."
            )
        reset_seconds = reset
        text = Breaker(failures, reset_seconds).text
        parse_limit(text)
        self.limits = {**_limits(inner), name or f"breaker of {inner.name}": text}
        self._inner = inner
        self._limit = failures
        self._reset = reset_seconds
        self._failed = 0
        self._opened_at = 0.0
        self._begin()
        renew_after_fork(self, CircuitBreaker._begin)
        self.name = inner.name
        self.capabilities = inner.capabilities

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether steps wait because of earlier failures in this process.

        Raises:
            CapabilityError: the executor is durable; `flow.why` and `flowstone why` say what holds in the fleet.
        """
        if Capability.DURABLE in self.capabilities:
            raise CapabilityError(self.name, "a circuit breaker in this process", self.capabilities)
        return self._failed >= self._limit

    def bind(self, run: RunJob) -> None:
        """See `flowstone.protocols.Executor`."""
        self._inner.bind(run)

    def check(self, options: Mapping[str, Any]) -> None:
        """See `flowstone.protocols.ChecksOptions`."""
        check_call(self._inner, options)

    def cancel(self, job: Job) -> None:
        """See `flowstone.protocols.CancelsJobs`."""
        if isinstance(self._inner, CancelsJobs):
            self._inner.cancel(job)

    def status(self, job: Job) -> State | str | None:
        """See `flowstone.protocols.ReportsStatus`."""
        return self._inner.status(job) if isinstance(self._inner, ReportsStatus) else None

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job, after the pause when the circuit is open."""
        if Capability.DURABLE in self.capabilities:
            return self._inner.execute(job, **options)
        self._wait()
        try:
            done = self._inner.execute(job, **options)
        except BaseException:
            self._count(failed=True)
            raise
        self._count(failed=False)
        return done

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job, after the pause when the circuit is open; its outcome is not counted in this process."""
        if Capability.DURABLE in self.capabilities:
            return self._inner.schedule(job, **options)
        with self._changed:
            pause = self._opened_at + self._reset - time.monotonic()
            self._changed.wait_for(lambda: not self.is_open, max(0.0, pause))
        return self._inner.schedule(job, **options)

    def _wait(self) -> None:
        with self._changed:
            while self.is_open:
                pause = self._opened_at + self._reset - time.monotonic()
                if pause <= 0 and not self._trying:
                    self._trying = True
                    return
                self._changed.wait(max(pause, 0.0) or None)

    def _count(self, *, failed: bool) -> None:
        with self._changed:
            self._trying = False
            if failed:
                self._failed += 1
                self._opened_at = time.monotonic()
            else:
                self._failed = 0
            self._changed.notify_all()


def _refuse_name(inner: object, around: str) -> None:
    if isinstance(inner, str | type) or not hasattr(inner, "execute"):
        raise OptionsError(f"{around}({shown(inner)}, ...): give an executor object, such as SyncExecutor().")


def _limits(inner: Executor) -> dict[str, int | str]:
    """Return what an executor holds back by already."""
    return dict(getattr(inner, "limits", None) or {})
