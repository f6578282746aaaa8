"""Runs jobs one after the other and gives an account of each: for debugging and for teaching."""

from __future__ import annotations

import logging
import reprlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from flowstone.core.capability import Capability
from flowstone.core.declaring import checks_options, shown
from flowstone.core.forks import renew_after_fork
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.partition import partition_label
from flowstone.core.text import clean_text
from flowstone.errors import OptionsError
from flowstone.executors.options import check_options, refuse_later, seconds_option
from flowstone.executors.sync import SyncExecutor
from flowstone.protocols import ChecksOptions, Executor, RunJob

log = logging.getLogger("flowstone.executors")
account_log = logging.getLogger("flowstone.serial")

_MAX_PAUSE_SECONDS = 600.0
_OPTIONS = frozenset({"timeout_seconds", "on_step", "pause_between", "verbose"})
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
        check_options(self.name, options, _OPTIONS)
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
        check_options(self.name, options, _OPTIONS)
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
