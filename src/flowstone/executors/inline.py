"""The executors of this process, and the options of a call, checked before anything is placed.

`sync` runs in the caller's thread, `serial` does so with an account of each step, `async` runs side by side in
threads.

An executor is given jobs and a callable `run(job)`; it decides when and where to call it, and knows nothing else.
Start with `SyncExecutor`.
"""

from __future__ import annotations

import heapq
import inspect
import json
import logging
import math
import reprlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

from flowstone.core.capability import Capability
from flowstone.core.clean import clean_text
from flowstone.core.declaring import (
    YEAR_SECONDS,
    checks_options,
    duration,
    shown,
    spelled,
    warn_of_milliseconds,
    whole_number,
)
from flowstone.core.forks import renew_after_fork
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.partitions import partition_label
from flowstone.errors import CapabilityError, OptionsError, option_hint
from flowstone.protocols import ChecksOptions, Executor, RunJob

MAX_OPTIONS_BYTES = 64 * 1024
_MAX_QUEUE = 127


def check_options(executor: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse options that an executor does not understand.

    Raises:
        OptionsError: naming the option and the known ones.

    Example:
        >>> check_options("sync", {"timeout_seconds": 5}, frozenset({"timeout_seconds"}))
    """
    for name in options:
        if name not in known:
            taken = known | {"retry"}  # which is looked at before an executor sees the others
            listed = ", ".join(sorted(taken))
            raise OptionsError(
                f"The executor {executor!r} has no option {name!r}.{option_hint(name, taken)} "
                f"Its options: {listed}."
            )


def check_call(executor: Executor, options: Mapping[str, Any]) -> None:
    """Have an executor look at the options of a call; one that does not is asked what its methods take.

    Raises:
        OptionsError: naming the option and what would do.
    """
    if isinstance(executor, ChecksOptions):
        executor.check(options)
        return
    for method in (executor.execute, executor.schedule):
        try:
            parameters = inspect.signature(method).parameters.values()
        except (TypeError, ValueError):
            continue
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            named = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_POSITIONAL]
            check_options(executor.name, options, frozenset(named[1:]))


def check_portable(executor: str, options: Mapping[str, Any]) -> None:
    """Refuse options that cannot travel to another process.

    Raises:
        OptionsError: an option is not JSON, or all of them are too large.
    """
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionsError(
                f"The option {name!r} cannot be sent to a worker of {executor!r}: {error}. "
                "Options carry names and plain values (JSON), never objects; declare objects as resources."
            ) from error
    size = len(json.dumps(dict(options)))
    if size > MAX_OPTIONS_BYTES:
        raise OptionsError(
            f"The options are {size:,} bytes, more than {MAX_OPTIONS_BYTES:,}. Store the data and pass its name."
        )


def seconds_option(
    name: str, value: object, *, or_none: bool = False, maximum: float = YEAR_SECONDS, warn: bool = False
) -> float | None:
    """Return a duration option in seconds.

    Args:
        name: the option.
        value: a timedelta or seconds; None for none.
        or_none: whether 0 will do.
        maximum: the longest that makes sense.
        warn: warn of a number that looks like milliseconds, as whoever looks at an option first does.

    Raises:
        OptionsError: it is not a timedelta or a number above 0, or longer than makes sense.
    """
    if value is None:
        return None
    seconds = duration(value, maximum=math.inf)
    if seconds is None or not (seconds or or_none):
        minimum = "from 0 on" if or_none else "above 0"
        raise OptionsError(f"{name}={shown(value)}: give a number of seconds {minimum}, or a timedelta.")
    if seconds > maximum:
        meant = seconds / 1000
        remedy = f" Did you mean {meant:g}?" if meant <= maximum and meant < _PLAIN_DIGITS else ""
        raise OptionsError(
            f"{name}={shown(value)} is {spelled(seconds)}, more than {spelled(maximum)}: it is in seconds, not "
            f"milliseconds.{remedy}"
        )
    if warn:
        warn_of_milliseconds(name, value, seconds)
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingOptions:
    """What a call asks of the jobs that it places on a queue.

    Args:
        queue: queue of the jobs, in place of the assets' own.
        max_attempts: attempts of each in all, in place of the retry policy's.
        priority: 0 (first) to 9, in place of the assets' and the verb's.
        unique_seconds: a job of the same asset and partition that was placed less than that ago answers instead of
            a new one, over or not, forced or not.
        scheduled_at: earliest start.
    """

    queue: str | None = None
    max_attempts: int | None = None
    priority: int | None = None
    unique_seconds: float | None = None
    scheduled_at: datetime | None = None


_PLAIN_DIGITS = 1_000_000  # from here on `g` writes an exponent

NO_PLACING_OPTIONS = PlacingOptions()

PLACING_OPTIONS = frozenset({"queue", "max_attempts", "priority", "unique", "scheduled_at"})
"""Options that say how jobs are placed; executors with a queue take them."""


def placing_options(options: Mapping[str, Any]) -> PlacingOptions:
    """Return what the options of a call say about how its jobs are placed.

    Raises:
        OptionsError: one of them cannot work; names option, value and remedy.

    Example:
        >>> from datetime import timedelta
        >>> placing_options({"queue": "reports", "unique": timedelta(minutes=5)}).unique_seconds
        300.0
    """
    return PlacingOptions(
        queue=_queue(options.get("queue")),
        max_attempts=_whole("max_attempts", options.get("max_attempts"), 1, 1000),
        priority=_whole("priority", options.get("priority"), 0, 9),
        unique_seconds=seconds_option("unique", options.get("unique")),
        scheduled_at=_start_time(options.get("scheduled_at")),
    )


def _queue(value: object) -> str | None:
    if value is None:
        return None
    fits = isinstance(value, str) and 0 < len(value) <= _MAX_QUEUE and value.strip() == value
    if not fits or not str(value).isprintable():
        raise OptionsError(
            f"queue={value!r}: give the name of a queue, text of 1 to {_MAX_QUEUE} printable characters."
        )
    return str(value)


def _whole(name: str, value: object, minimum: int, maximum: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not minimum <= value <= maximum:
        first = " (first)" if name == "priority" else ""
        raise OptionsError(f"{name}={value!r}: give a whole number from {minimum}{first} to {maximum}.")
    return value


def _start_time(value: object) -> datetime | None:
    if value is None:
        return None
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise OptionsError(
            f"scheduled_at={value!r}: give a time with a time zone, such as datetime(..., tzinfo=UTC) or its text."
        )
    return moment


def refuse_later(executor: str, job: Job) -> None:
    """Refuse a job that is to start later, for executors that only work now.

    Raises:
        CapabilityError: the job has a start time.
    """
    if job.scheduled_at is not None:
        raise CapabilityError(executor, "scheduled_at", ())


_SYNC_OPTIONS = frozenset({"timeout_seconds"})


class SyncExecutor(Executor, ChecksOptions):
    """Runs a job right where it is called: breakpoints and tracebacks look as if the function was called.

    There is no timeout by default. With `timeout_seconds` (here or on the asset) the function runs in a child
    process, where it can really be stopped.

    Example:
        >>> SyncExecutor().name
        'sync'
    """

    name = "sync"
    capabilities = frozenset({Capability.NON_PERSISTENT, Capability.RETRY, Capability.TIMEOUT})

    def __init__(self) -> None:
        self._run: RunJob | None = None

    def bind(self, run: RunJob) -> None:
        self._run = run

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, _SYNC_OPTIONS)
        seconds_option("timeout_seconds", options.get("timeout_seconds"), warn=True)

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job now.

        Args:
            job: the job.
            **options: `timeout_seconds`.

        Raises:
            OptionsError: an option is unknown or unusable.
            BaseException: whatever the asset raised.
        """
        assert self._run is not None, "bind() comes first"
        if not options:
            return self._run(job, stoppable=True)
        check_options(self.name, options, _SYNC_OPTIONS)
        limit = seconds_option("timeout_seconds", options.get("timeout_seconds"))
        return self._run(job, timeout_seconds=limit, stoppable=True)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Run a job now and return its handle; its failure shows in its status, it is not raised."""
        refuse_later(self.name, job)
        self.check(options)
        try:
            self.execute(job, **options)
        except KeyboardInterrupt:  # may be a person at the terminal
            raise
        except BaseException:  # noqa: BLE001, S110 - recorded with the step, where the handle's status finds it
            pass
        return job


log = logging.getLogger("flowstone.executors")
account_log = logging.getLogger("flowstone.serial")

_MAX_PAUSE_SECONDS = 600.0
_SERIAL_OPTIONS = frozenset({"timeout_seconds", "on_step", "pause_between", "verbose"})
_summary = reprlib.Repr(maxstring=60, maxother=60, maxlist=5, maxdict=5, maxset=5, maxtuple=5)


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something that the serial executor reports about a step.

    Args:
        phase: `before` a step, or `after` it.
        number: the step's number since the executor was made, from 1.
        job: the step.
        duration_seconds: how long it took, after it.
        state: its state, after it; `failed` when it raised.
        value: a short text of its value, after it.
        error: a short text of its error, when it raised.
    """

    phase: Literal["before", "after"]
    number: int
    job: Job
    duration_seconds: float | None = None
    state: str | None = None
    value: str | None = None
    error: str | None = None


@checks_options
class SerialExecutor(Executor, ChecksOptions):
    """Sync plus a step-by-step account; never more than one step at a time in this process.

    Args:
        on_step: called before and after every step; what it raises before a step fails that step.
        pause_between: pause before every step, a timedelta or seconds; 0 for none.
        verbose: whether the account is logged as well, as INFO of the logger `flowstone.serial`. Where nobody has
            configured logging it is written to standard error.

    Example:
        >>> SerialExecutor(pause_between=0.5).name
        'serial'
    """

    name = "serial"
    capabilities = frozenset(
        {Capability.SEQUENTIAL, Capability.NON_PERSISTENT, Capability.RETRY, Capability.TIMEOUT}
    )

    def __init__(
        self,
        *,
        on_step: Callable[[StepEvent], None] | None = None,
        pause_between: float | timedelta | None = None,
        verbose: bool = True,
    ) -> None:
        self._on_step = _listener(on_step)
        self._pause = (
            seconds_option("pause_between", pause_between, or_none=True, maximum=_MAX_PAUSE_SECONDS) or 0.0
        )
        self._verbose = _flag(verbose)
        self._inner = SyncExecutor()
        self._begin()
        renew_after_fork(self, SerialExecutor._begin)
        self._number = 0

    def _begin(self) -> None:
        self._turn = threading.RLock()

    def bind(self, run: RunJob) -> None:
        self._inner.bind(run)

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, _SERIAL_OPTIONS)
        seconds_option("timeout_seconds", options.get("timeout_seconds"), warn=True)
        seconds_option("pause_between", options.get("pause_between"), or_none=True, maximum=_MAX_PAUSE_SECONDS)
        _listener(options.get("on_step"))
        _flag(options.get("verbose", True))

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job now, and report it.

        Args:
            job: the job.
            **options: `timeout_seconds`, and `on_step`, `pause_between` and `verbose` for this call.
        """
        check_options(self.name, options, _SERIAL_OPTIONS)
        report = options.pop("on_step", None) or self._on_step or _nobody
        given = seconds_option("pause_between", options.pop("pause_between", None), or_none=True)
        pause = self._pause if given is None else given
        verbose = options.pop("verbose", self._verbose)
        with self._turn:
            if pause:
                time.sleep(pause)
            self._number += 1
            return self._account(job, _Account(report, verbose=verbose), options)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Run a job now and return its handle; its failure shows in its status, it is not raised."""
        refuse_later(self.name, job)
        self.check(options)
        try:
            self.execute(job, **options)
        except KeyboardInterrupt:  # may be a person at the terminal
            raise
        except BaseException:  # noqa: BLE001, S110 - recorded with the step, where the handle's status finds it
            pass
        return job

    def _account(self, job: Job, account: _Account, options: dict[str, Any]) -> Materialization:
        number = self._number
        account.before(StepEvent("before", number, job))
        started = time.perf_counter()
        try:
            done = self._inner.execute(job, **options)
        except BaseException as error:
            took = time.perf_counter() - started
            text = clean_text(f"{type(error).__name__}: {error}", limit=500)
            account.after(StepEvent("after", number, job, took, "failed", error=text))
            raise
        took = time.perf_counter() - started
        value = _summary.repr(done.value) if done.stored is not None else None
        account.after(StepEvent("after", number, job, took, done.state.value, value))
        return done


class _Account:
    """Reports one step to a listener and to the log."""

    def __init__(self, report: Callable[[StepEvent], None], *, verbose: bool) -> None:
        self._report = report
        self._log = _logger() if verbose else None

    def before(self, event: StepEvent) -> None:
        if self._log is not None:
            self._log.info("%d. %s begins", event.number, _target(event.job))
        self._report(event)

    def after(self, event: StepEvent) -> None:
        """Report a step that is over; it stays so, whatever the listener does."""
        if self._log is not None:
            came = event.error or event.value
            what = f"{event.state}: {came}" if came else f"{event.state}"
            self._log.info("%d. %s %s (%.3f s)", event.number, _target(event.job), what, event.duration_seconds)
        try:
            self._report(event)
        except Exception:
            log.exception("on_step raised after step %d, which is over all the same", event.number)


def _target(job: Job) -> str:
    return f"{job.asset} [{partition_label(job.partition)}]" if job.partition is not None else job.asset


def _logger() -> logging.Logger:
    """Return the logger of accounts, which is heard also where nobody has configured logging."""
    if account_log.level == logging.NOTSET:
        account_log.setLevel(logging.INFO)
    if not account_log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        account_log.addHandler(handler)
        account_log.propagate = False
    return account_log


def _listener(given: object) -> Callable[[StepEvent], None] | None:
    if given is not None and not callable(given):
        raise OptionsError(f"on_step={shown(given)}: give a function of one StepEvent.")
    return given


def _flag(given: object) -> bool:
    if not isinstance(given, bool):
        raise OptionsError(f"verbose={shown(given)}: give True or False.")
    return given


def _nobody(event: StepEvent) -> None:
    """Nobody listens."""


_CONCURRENT_OPTIONS = frozenset({"timeout_seconds"})
_log = logging.getLogger("flowstone.executors.async")
_IDLE_SECONDS = 5.0


@checks_options
class AsyncExecutor(Executor, ChecksOptions):
    """Runs jobs concurrently: `def` functions in threads, `async def` functions on one event loop.

    `schedule` returns at once; status and result are there for any thread, in the store, until this process
    ends. Jobs that have not ended by then are lost, which the capability `non_persistent` says.

    Args:
        max_concurrency: most jobs at once.
        timeout_seconds: limit for assets that declare none. A function in a thread cannot be stopped: its
            step fails, its result is never published, its thread ends when it ends.

    Example:
        >>> AsyncExecutor(max_concurrency=4).name
        'async'
    """

    name = "async"
    capabilities = frozenset(
        {
            Capability.CONCURRENT,
            Capability.SCHEDULED_AT,
            Capability.PRIORITY,
            Capability.NON_PERSISTENT,
            Capability.RETRY,
            Capability.TIMEOUT,
        }
    )

    def __init__(self, *, max_concurrency: int = 32, timeout_seconds: float = 60.0) -> None:
        if whole_number(max_concurrency, minimum=1, maximum=10_000) is None:
            raise OptionsError(f"max_concurrency={shown(max_concurrency)}: give a whole number from 1 to 10,000.")
        self.max_concurrency = max_concurrency
        self._timeout = seconds_option("timeout_seconds", timeout_seconds)
        self._run: RunJob | None = None
        self._begin()
        # what waits in the queue is the parent's, and its threads are not in a forked child
        renew_after_fork(self, AsyncExecutor._begin)

    def _begin(self) -> None:
        self._slots = threading.BoundedSemaphore(self.max_concurrency)
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, int, Job, dict[str, Any]]] = []
        self._order = count()
        self._threads = 0
        self._idle = 0

    def bind(self, run: RunJob) -> None:
        self._run = run

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, _CONCURRENT_OPTIONS)
        seconds_option("timeout_seconds", options.get("timeout_seconds"), warn=True)

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job as soon as there is room and wait for it.

        Args:
            job: the job.
            **options: `timeout_seconds`.
        """
        check_options(self.name, options, _CONCURRENT_OPTIONS)
        timeout = seconds_option("timeout_seconds", options.get("timeout_seconds")) or self._timeout
        assert self._run is not None, "bind() comes first"
        with self._slots:
            return self._run(job, timeout_seconds=timeout)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job and return at once; it starts when there is room and its time has come."""
        self.check(options)
        wait = (job.scheduled_at - datetime.now(UTC)).total_seconds() if job.scheduled_at else 0.0
        # what may start at once is ordered by priority alone
        due = time.monotonic() + wait if wait > 0 else 0.0
        with self._changed:
            heapq.heappush(self._queue, (due, job.priority, next(self._order), job, options))
            # idle threads that were notified already still count as idle, so compare with all that is queued
            if len(self._queue) > self._idle and self._threads < self.max_concurrency:
                self._threads += 1
                threading.Thread(target=self._serve, name="flowstone-async", daemon=True).start()
            self._changed.notify()
        return job

    def _serve(self) -> None:
        """Take jobs until there are none for a while; a thread per job at work, none when idle."""
        while True:
            taken = self._take()
            if taken is None:
                return
            job, options = taken
            try:
                self.execute(job, **options)
            except BaseException as error:  # noqa: BLE001 - recorded with the step; this thread goes on
                _log.debug("%s ended with %s", job.asset, type(error).__name__)

    def _take(self) -> tuple[Job, dict[str, Any]] | None:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._queue and self._queue[0][0] <= now:
                    _, _, _, job, options = heapq.heappop(self._queue)
                    return job, options
                wait = self._queue[0][0] - now if self._queue else _IDLE_SECONDS
                self._idle += 1
                notified = self._changed.wait(wait)
                self._idle -= 1
                if not notified and not self._queue:
                    self._threads -= 1
                    return None
