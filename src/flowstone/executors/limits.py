"""Limits within one process, and executors that hold back around any other one.

`LocalLimits` is for executors that run their jobs here; `RateLimited` and `CircuitBreaker` wrap another executor.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from flowstone.core.capability import Capability
from flowstone.core.declaring import checks_options, shown
from flowstone.core.forks import renew_after_fork
from flowstone.core.job import Job
from flowstone.core.limits import Breaker, Circuit, Limit, Rate, parse_limit
from flowstone.core.materialization import Materialization
from flowstone.core.state import State
from flowstone.errors import CapabilityError, OptionsError
from flowstone.executors.inline import check_call
from flowstone.executors.select import limits_of
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
        >>> with limits.hold({"warehouse": 1, "api": Rate(10, "second")}):
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
    def hold(self, limits: Mapping[str, Limit]) -> Iterator[None]:
        """Wait until every limit allows a start, and count as one until the end of the block.

        Args:
            limits: number at once or rate by name; breakers are for workers only.
        """
        slots = {name: limit for name, limit in limits.items() if isinstance(limit, int)}
        rates = {name: limit for name, limit in limits.items() if isinstance(limit, Rate)}
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


class _Around:
    """An executor around another one: its name, its capabilities, and its limits with one more.

    Over a durable executor the limit is placed with every step, and workers keep it; nothing is held back here.
    """

    def __init__(self, inner: Executor, name: str, limit: Limit) -> None:
        self._inner = inner
        self._durable = Capability.DURABLE in inner.capabilities
        self.name = inner.name
        self.capabilities = inner.capabilities
        self.limits = {**limits_of(inner), name: limit}

    def bind(self, run: RunJob) -> None:
        self._inner.bind(run)

    def check(self, options: Mapping[str, Any]) -> None:
        check_call(self._inner, options)

    def cancel(self, job: Job) -> None:
        if isinstance(self._inner, CancelsJobs):
            self._inner.cancel(job)

    def status(self, job: Job) -> State | str | None:
        return self._inner.status(job) if isinstance(self._inner, ReportsStatus) else None


@checks_options
class RateLimited(_Around):
    """Starts at most so many steps in a time, through another executor; the rest waits, nothing fails.

    Over a durable executor the limit is placed with every step and holds for the whole fleet; over others
    it holds for this process.

    Args:
        inner: the executor that does the work.
        rate: a `Rate`, text such as `10/minute`, or a number of steps at once.
        name: name of the limit; executors that share it share the limit.

    Raises:
        DefinitionError: the rate cannot be understood.
        OptionsError: it is a breaker, or `inner` is no executor.

    Example:
        >>> from flowstone.executors.inline import SyncExecutor
        >>> RateLimited(SyncExecutor(), Rate(10, "minute")).limits
        {'rate of sync': Rate(10, 'minute')}
    """

    def __init__(self, inner: Executor, rate: Rate | str | int, *, name: str | None = None) -> None:
        limit = parse_limit(rate)
        if isinstance(limit, Breaker):
            raise OptionsError(f"RateLimited(..., {shown(rate)}): that is a breaker; give it to CircuitBreaker.")
        _refuse_name(inner, "RateLimited")
        super().__init__(inner, name or f"rate of {inner.name}", limit)
        self._local = LocalLimits()

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job when the rate allows it."""
        with nullcontext() if self._durable else self._local.hold(self.limits):
            return self._inner.execute(job, **options)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job when the rate allows it."""
        with nullcontext() if self._durable else self._local.hold(self.limits):
            return self._inner.schedule(job, **options)


@checks_options
class CircuitBreaker(_Around):
    """Pauses after repeated failures, then tries one step before it lets the others go on.

    Meant for work that depends on something that may be down: waiting is cheaper than failing through a
    thousand partitions. Over a durable executor the breaker is placed with every step: it counts and holds for the
    whole fleet, and parks what may not start. Over others it counts, and makes its callers wait, in this process.

    Args:
        inner: the executor that does the work.
        breaker: a `Breaker`, or text such as `breaker 5 failures/60 s`; 5 failures and 60 seconds by default.
        failures: in place of a breaker: failed attempts in a row that open the circuit.
        reset_seconds: in place of a breaker: how long it stays open before one step is tried.
        name: name of the breaker in the fleet; executors that share it share its count.

    Raises:
        DefinitionError: the breaker cannot be understood.
        OptionsError: it is a rate, a breaker was given in both ways, or `inner` is no executor.

    Example:
        >>> from flowstone.executors.inline import SyncExecutor
        >>> CircuitBreaker(SyncExecutor(), Breaker(failures=3, seconds=5)).is_open
        False
    """

    def __init__(
        self,
        inner: Executor,
        breaker: Breaker | str | None = None,
        *,
        failures: int | None = None,
        reset_seconds: float | timedelta | None = None,
        name: str | None = None,
    ) -> None:
        _refuse_name(inner, "CircuitBreaker")
        self._breaker = _breaker(breaker, failures, reset_seconds)
        super().__init__(inner, name or f"breaker of {inner.name}", self._breaker)
        self._circuit = Circuit()
        self._begin()
        renew_after_fork(self, CircuitBreaker._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether steps wait because of earlier failures in this process.

        Raises:
            CapabilityError: the executor is durable; `flow.why` and `flowstone why` say what holds in the fleet.
        """
        if self._durable:
            raise CapabilityError(self.name, "a circuit breaker in this process", self.capabilities)
        return self._circuit.open_until is not None

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job, after the pause when the circuit is open."""
        if self._durable:
            return self._inner.execute(job, **options)
        tried = self._wait()
        try:
            done = self._inner.execute(job, **options)
        except BaseException:
            self._count(failed=True, tried=tried)
            raise
        self._count(failed=False, tried=tried)
        return done

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job, after the pause when the circuit is open; its outcome is not counted in this process."""
        if not self._durable:
            with self._changed:
                pause = (self._circuit.open_until or 0.0) - time.monotonic()
                self._changed.wait_for(lambda: not self.is_open, max(0.0, pause))
        return self._inner.schedule(job, **options)

    def _wait(self) -> bool:
        """Wait until a job may start; return whether it is the one that is tried while the others wait."""
        with self._changed:
            # everybody asks as the same step: a thread that waits is there, and needs no turn kept for it
            while (pause := self._circuit.pause(0, now=time.monotonic(), trying=self._trying)) != 0.0:
                self._changed.wait(pause)
            self._trying = tried = self._circuit.open_until is not None
            return tried

    def _count(self, *, failed: bool, tried: bool) -> None:
        with self._changed:
            self._circuit.end(self._breaker, failed=failed, tried=tried, now=time.monotonic())
            if tried:
                self._trying = False
            self._changed.notify_all()


def _breaker(
    breaker: Breaker | str | None, failures: int | None, reset_seconds: float | timedelta | None
) -> Breaker:
    if breaker is None:
        return Breaker(5 if failures is None else failures, 60.0 if reset_seconds is None else reset_seconds)
    if failures is not None or reset_seconds is not None:
        raise OptionsError("CircuitBreaker(...): give a Breaker, or failures and reset_seconds, not both.")
    limit = parse_limit(breaker)
    if not isinstance(limit, Breaker):
        raise OptionsError(f"CircuitBreaker(..., {shown(breaker)}): give Breaker(failures=5, seconds=60).")
    return limit


def _refuse_name(inner: object, around: str) -> None:
    if isinstance(inner, str | type) or not hasattr(inner, "execute"):
        raise OptionsError(f"{around}({shown(inner)}, ...): give an executor object, such as SyncExecutor().")
