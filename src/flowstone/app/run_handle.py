"""The handle of a run that was placed without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flowstone.app.results import Progress, RunResult
from flowstone.core.state import State
from flowstone.core.step import RunRecord


class RunVerbs(Protocol):
    """What a handle asks of `flow.runs`."""

    def find(self, run_id: str) -> RunRecord | None:
        """Return a run, if there is one."""

    def wait(
        self,
        run_id: str,
        *,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Wait until a run is over."""

    def cancel(self, run_id: str) -> RunRecord:
        """Cancel a run."""


class RunHandle:
    """A run that goes on without its caller: what `wait=False` answers with.

    It holds an id and nothing that has to be closed; `flow.runs.wait(run_id)` does the same from anywhere.

    Attributes:
        id: the run.
        record: the run as it was recorded when it was looked at last; None as long as the transaction that placed
            it is not committed.
    """

    def __init__(self, run_id: str, runs: RunVerbs) -> None:
        self.id = run_id
        self.record: RunRecord | None = None
        self._runs = runs

    @property
    def run_id(self) -> str:
        """The run, as results call it."""
        return self.id

    @property
    def state(self) -> State:
        """The state when the run was read last; `not_found` as long as its transaction is not committed."""
        return State.NOT_FOUND if self.record is None else self.record.state

    def refresh(self) -> RunHandle:
        """Read the run again and return the handle itself."""
        self.record = self._runs.find(self.id)
        return self

    def progress(self) -> Progress:
        """Read the run again and return how far it is."""
        self.refresh()
        if self.record is None:
            return Progress(self.id, 0, {})
        return Progress(self.id, self.record.total, self.record.counts)

    def wait(
        self,
        timeout_seconds: float | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Wait until the run is over and return its outcome; see `flow.runs.wait`.

        Raises:
            WaitTimeoutError: it was not over in time; it goes on.
            RunNotFoundError: the transaction that placed it was rolled back, or is not committed yet.
        """
        result = self._runs.wait(self.id, timeout_seconds=timeout_seconds, on_progress=on_progress)
        self.record = result.record
        return result

    def cancel(self) -> State:
        """Cancel every step of the run that is not over, and return its state now."""
        self.record = self._runs.cancel(self.id)
        return self.record.state

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.state.value}>"
