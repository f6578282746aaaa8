"""What people see when they ask about queues and about work that does not move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowstone.core.partition import decode_partition, partition_label
from flowstone.core.state import State


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue in the fleet.

    Args:
        name: the queue.
        paused: whether nothing of it is started.
        node_limit: steps at once per worker node when that was changed at run time.
        available: jobs that could start now.
        scheduled: jobs with a later time, or resting.
        executing: jobs at work.
    """

    name: str
    paused: bool
    node_limit: int | None
    available: int
    scheduled: int
    executing: int


@dataclass(frozen=True, slots=True)
class StepSituation:
    """Everything that can hold up the newest step of a target; see `explain`."""

    step_id: int
    state: State
    reason: str | None
    waiting_on: int
    scheduled_at: datetime | None
    attempt: int
    max_attempts: int
    error: str | None
    parked_for: str | None
    job_id: int | None
    queue: str
    worker: str | None
    started_at: datetime | None
    run_id: str
    run_paused: bool
    max_concurrency: int | None
    active_steps: int
    durable: bool
    job_state: str | None
    queue_paused: bool
    workers: int
    ahead: int
    open_inputs: tuple[tuple[str, str, State], ...] = ()

    def explain(self) -> list[str]:
        """Return what holds the step up, the most important first; empty when nothing does.

        Example:
            >>> sorted(State)[0] in State
            True
        """
        if self.state.is_terminal:
            return [f"it is over: {self.state.value}" + (f" ({_first_line(self.error)})" if self.error else "")]
        if self.state in (State.RUNNING, State.CANCELLING):
            since = f" since {self.started_at:%Y-%m-%d %H:%M:%S} UTC" if self.started_at else ""
            return [f"it is {self.state.value} on {self.worker}{since}, attempt {self.attempt}"]
        if self.state is State.WAITING and self.open_inputs:
            return [
                f"input {asset} {key}".rstrip() + f" is {state.value}" for asset, key, state in self.open_inputs
            ]
        return self._not_started()

    def _not_started(self) -> list[str]:
        found = []
        if self.run_paused:
            found.append(f"its run {self.run_id} is paused: flow.runs.resume({self.run_id!r})")
        if self.queue_paused:
            found.append(f"the queue {self.queue!r} is paused: flow.queues.resume({self.queue!r})")
        if self.parked_for:
            found.append(f"it waits for a slot of the limit {self.parked_for!r}")
        if self.scheduled_at is not None and self.state in (State.SCHEDULED, State.RETRYING, State.WAITING):
            what = "its next attempt is due" if self.state is State.RETRYING else "it is scheduled"
            found.append(f"{what} at {self.scheduled_at:%Y-%m-%d %H:%M:%S} UTC")
            if self.error and self.state is State.RETRYING:
                found.append(f"attempt {self.attempt} of {self.max_attempts} failed: {_first_line(self.error)}")
        if self.reason and not self.parked_for:
            found.append(self.reason)
        if self.durable and self.job_id is None and not self.run_paused and self.max_concurrency is not None:
            most = self.max_concurrency
            found.append(f"the window of its run is full: {self.active_steps} of at most {most} steps are placed")
        if self.durable and not self.workers:
            found.append(f"no worker serves the queue {self.queue!r}: start `flowstone worker`")
        elif self.job_state == "available" and not found:
            found.append(f"{self.ahead} jobs are ahead of it in the queue {self.queue!r} ({self.workers} workers)")
        return found


def describe_target(asset: str, partition: str) -> str:
    """Return an (asset, encoded partition) as people read it.

    Example:
        >>> describe_target("orders", "d:2024-01-01")
        'orders [2024-01-01]'
    """
    return f"{asset} [{partition_label(decode_partition(partition))}]" if partition else asset


def _first_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
