"""Places work on Oban's queue and waits for what workers commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from flowstone.core.capability import Capability
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.step import StepRecord
from flowstone.errors import ExecutorUnavailableError, RunNotFoundError, WaitTimeoutError
from flowstone.executors.inline import PLACING_OPTIONS, check_options, placing_options, seconds_option
from flowstone.protocols import ChecksOptions, RunJob, Store

_OPTIONS = frozenset({"wait_timeout"}) | PLACING_OPTIONS
_CHECK_SECONDS = 2.0


class ObanExecutor(ChecksOptions):
    """Runs jobs on worker nodes, durably.

    The job itself was placed by the transaction that opened its run; this class waits and answers. It never
    falls back to another executor.

    Args:
        store: where steps are recorded; it must carry Oban's tables.
        answer: turns a finished step into its materialization, or raises its error.
        notice: returns, for a step, what logs what it waits for.

    Raises:
        ExecutorUnavailableError: there is no such store.
    """

    name = "oban"
    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.CONCURRENT,
            Capability.SCHEDULED_AT,
            Capability.PRIORITY,
            Capability.RETRY,
            Capability.QUEUE,
            Capability.MAX_ATTEMPTS,
            Capability.UNIQUE,
        }
    )

    def __init__(
        self,
        store: Store,
        *,
        answer: Callable[[StepRecord], Materialization],
        notice: Callable[[int], Callable[[], object]],
    ) -> None:
        if not store.shared:
            raise ExecutorUnavailableError(
                self.name,
                "no database is configured",
                "Pass FlowStone(..., database_url=...) or set FLOWSTONE_DATABASE_URL; 'embedded' needs no server.",
            )
        if not store.durable:
            raise ExecutorUnavailableError(
                self.name,
                store.queue_problem or "the database has no queue",
                "Install the extra with pip install 'flowstone[oban]' and run `flowstone db upgrade`.",
            )
        self._store = store
        self._answer = answer
        self._notice = notice

    def bind(self, run: RunJob) -> None:
        """Keep nothing: workers run the jobs."""

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, _OPTIONS)
        seconds_option("wait_timeout", options.get("wait_timeout"), warn=True)
        placing_options(options)

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Wait for the committed outcome of a job: notification first, a poll once a second as backstop.

        Args:
            job: the job.
            **options: `wait_timeout` in seconds; the job goes on when it is over.

        Raises:
            WaitTimeoutError: it was not over in time.
            StepFailedError: it failed; the text is that of the worker.
        """
        check_options(self.name, options, _OPTIONS)
        limit = seconds_option("wait_timeout", options.get("wait_timeout"))
        step_id = int(job.id)
        deadline = time.monotonic() + limit if limit is not None else None
        notice = self._notice(step_id)
        while True:
            pause = _CHECK_SECONDS if deadline is None else min(_CHECK_SECONDS, deadline - time.monotonic())
            if self._store.catalog.wait([step_id], run_id=job.run_id, timeout_seconds=max(0.0, pause)):
                break
            if self._store.catalog.wait([step_id], timeout_seconds=0.0):
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(job.asset, limit or 0.0, str(job.id))
            notice()
        record = self._store.catalog.step(step_id)
        if record is None:
            raise RunNotFoundError("step", str(job.id))
        return self._answer(record)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Return the job: the transaction that recorded it has placed it already."""
        check_options(self.name, options, _OPTIONS)
        return job
