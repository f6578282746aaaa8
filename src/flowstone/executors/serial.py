"""Runs jobs one after the other and gives an account of each: for debugging and for teaching."""

from __future__ import annotations

import reprlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flowstone.core.capability import Capability
from flowstone.core.forks import renew_after_fork
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.text import clean_text
from flowstone.executors.options import check_options, refuse_later, seconds_option
from flowstone.executors.sync import SyncExecutor
from flowstone.protocols import RunJob

_OPTIONS = frozenset({"timeout_seconds", "on_step", "pause_between"})
_summary = reprlib.Repr(maxstring=60, maxother=60, maxlist=5, maxdict=5, maxset=5, maxtuple=5)


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something that the serial executor tells about a step.

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


class SerialExecutor:
    """Sync plus a step-by-step account; never more than one step at a time in this process.

    Args:
        on_step: told before and after every step; what it raises before a step fails that step.
        pause_between: pause before every step but the first, in seconds.

    Example:
        >>> SerialExecutor(pause_between=0.5).name
        'serial'
    """

    name = "serial"
    capabilities = frozenset(
        {Capability.SEQUENTIAL, Capability.NON_PERSISTENT, Capability.RETRY, Capability.TIMEOUT}
    )

    def __init__(
        self, *, on_step: Callable[[StepEvent], None] | None = None, pause_between: float | None = None
    ) -> None:
        self._on_step = on_step
        self._pause = seconds_option("pause_between", pause_between) or 0.0
        self._inner = SyncExecutor()
        self._begin()
        renew_after_fork(self, SerialExecutor._begin)
        self._number = 0

    def _begin(self) -> None:
        self._turn = threading.RLock()

    def bind(self, run: RunJob) -> None:
        """See `flowstone.protocols.Executor`."""
        self._inner.bind(run)

    def check(self, options: Mapping[str, Any]) -> None:
        """See `flowstone.protocols.ChecksOptions`."""
        check_options(self.name, options, _OPTIONS)
        for name in ("timeout_seconds", "pause_between"):
            seconds_option(name, options.get(name))

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job now, telling about it.

        Args:
            job: the job.
            **options: `timeout_seconds`, and `on_step` and `pause_between` for this call.
        """
        check_options(self.name, options, _OPTIONS)
        tell = options.pop("on_step", None) or self._on_step or _nobody
        pause = seconds_option("pause_between", options.pop("pause_between", None)) or self._pause
        with self._turn:
            if self._number and pause:
                time.sleep(pause)
            self._number += 1
            return self._account(job, tell, options)

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

    def _account(self, job: Job, tell: Callable[[StepEvent], None], options: dict[str, Any]) -> Materialization:
        number = self._number
        tell(StepEvent("before", number, job))
        started = time.perf_counter()
        try:
            done = self._inner.execute(job, **options)
        except BaseException as error:
            took = time.perf_counter() - started
            text = clean_text(f"{type(error).__name__}: {error}", limit=500)
            tell(StepEvent("after", number, job, took, "failed", error=text))
            raise
        took = time.perf_counter() - started
        value = _summary.repr(done.value) if done.stored is not None else None
        tell(StepEvent("after", number, job, took, done.state.value, value))
        return done


def _nobody(event: StepEvent) -> None:
    """Nobody listens."""
