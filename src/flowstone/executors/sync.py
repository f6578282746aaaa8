"""Runs jobs in the caller's thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowstone.core.capability import Capability
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.executors.options import check_options, refuse_later, seconds_option
from flowstone.protocols import ChecksOptions, Executor, RunJob

_OPTIONS = frozenset({"timeout_seconds"})


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
        check_options(self.name, options, _OPTIONS)
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
        check_options(self.name, options, _OPTIONS)
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
