"""What people see when they ask about queues and about work that does not move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from flowstone.core.clean import error_line
from flowstone.core.insights.fleet import MAX_COUNTED
from flowstone.core.limits import describe_open
from flowstone.core.partitions import PartitionKey, decode_partition, partition_label
from flowstone.core.state import State
from flowstone.core.zones import utc_text
from flowstone.errors import command

_SOON_SECONDS = 600.0


class PruneCounts(NamedTuple):
    """What pruning deletes, or would delete.

    Args:
        steps: number of steps.
        runs: number of runs of which nothing is left.
        values: number of stored values.
        size_bytes: their size, as far as it is known.
    """

    steps: int = 0
    runs: int = 0
    values: int = 0
    size_bytes: int = 0


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
        declared_limits: the different limits that living workers declare for it, the smallest first.
        paused_nodes: workers on which it was paused with Oban's own tools; `paused` when that is all of them.
    """

    name: str
    paused: bool
    node_limit: int | None
    available: int
    scheduled: int
    executing: int
    paused_nodes: int = 0
    declared_limits: tuple[int, ...] = ()

    @property
    def is_scaled(self) -> bool:
        """Whether its limit was changed at run time."""
        return self.node_limit is not None


@dataclass(frozen=True, slots=True)
class StepDiagnosis:
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
    breaker_failures: int | None = None  # of the breaker that it waits for, while that is not closed
    breaker_open_until: datetime | None = None
    paused_nodes: int = 0  # workers on which its queue was paused with Oban's own tools
    lost_holder: str | None = None  # the process that would have to end it, when that is lost
    open_inputs: tuple[tuple[str, PartitionKey, State], ...] = ()

    def explain(self, now: datetime | None = None) -> list[str]:
        """Return what holds the step up, or what it is doing, the most important first; never empty.

        Args:
            now: the present, to say how long it still is.

        Example:
            >>> def nothing(field):
            ...     return 0 if field in ("step_id", "waiting_on", "active_steps", "workers", "ahead") else None
            >>> known = {field: nothing(field) for field in StepDiagnosis.__dataclass_fields__}
            >>> known |= {"state": State.PENDING, "queue": "assets", "durable": True, "job_id": 1}
            >>> StepDiagnosis(**known).explain()
            ["no worker serves the queue 'assets': start `flowstone worker --queue assets`"]
        """
        if self.state.is_terminal:
            text = self.error or self.reason
            return [f"it is over: {self.state.value}" + (f" ({error_line(text)[:200]})" if text else "")]
        if self.lost_holder is not None:
            return [self._lost()]
        if self.state in (State.RUNNING, State.CANCELLING):
            since = f" since {utc_text(self.started_at)}" if self.started_at else ""
            return [f"it is {self.state.value} on {self.worker}{since}, attempt {self.attempt}"]
        if self.state is State.WAITING and self.open_inputs:
            return [f"input {describe_target(*target)} is {state.value}" for *target, state in self.open_inputs]
        found = [*self._stopped_by_people(), *self._not_yet(now), *self._no_room()]
        if not found and self.job_state == "available":
            jobs = "1 job is" if self.ahead == 1 else f"{self.ahead:,} jobs are"
            if self.ahead > MAX_COUNTED:
                jobs = f"more than {MAX_COUNTED:,} jobs are"
            found = [f"{jobs} ahead of it in the queue {self.queue!r}, served by {_workers(self.workers)}"]
        return found or ["it is about to start"]

    def _lost(self) -> str:
        ran = self.state in (State.RUNNING, State.CANCELLING)
        what = f"its attempt {self.attempt} ran in" if ran else "it waited for"
        who = f"{what} {self.lost_holder}, which was lost: it died or lost its lease"
        if not self.durable:
            return f"{who}; whoever asks for it again ends this and computes it"
        if self.workers:
            return f"{who}; a worker ends this attempt and goes on within seconds"
        return (
            f"{who}, and no worker serves the queue {self.queue!r}: start `{command('worker', queue=self.queue)}`"
        )

    def _stopped_by_people(self) -> Iterator[str]:
        if self.run_paused:
            yield f"its run {self.run_id} is paused: `{command('resume', self.run_id)}`"
        if self.queue_paused:
            yield f"the queue {self.queue!r} is paused: `{command('resume', queue=self.queue)}`"
        elif self.paused_nodes:
            where = f"on {self.paused_nodes} of {_workers(max(self.workers, self.paused_nodes))}"
            resume = command("resume", queue=self.queue)
            yield f"the queue {self.queue!r} was paused with Oban's tools {where}: `{resume}`"

    def _not_yet(self, now: datetime | None) -> Iterator[str]:
        """Yield what it waits for by itself: an input of another run, a slot, a time."""
        if self.parked_for and self.breaker_failures is not None:
            yield describe_open(self.parked_for, self.breaker_failures, self.breaker_open_until)
        elif self.parked_for:
            yield f"it waits for a slot of the limit {self.parked_for!r}"
        elif self.reason and not self.run_paused:
            yield self.reason
        if self.scheduled_at is not None and self.state in (State.SCHEDULED, State.RETRYING, State.WAITING):
            what = "its next attempt is due" if self.state is State.RETRYING else "it tries again"
            if self.state is State.SCHEDULED:
                what = "it is scheduled"
            left = (self.scheduled_at - now).total_seconds() if now is not None else 0.0
            soon = f", in {left:.0f} s" if 0.5 < left < _SOON_SECONDS else ""
            yield f"{what} at {utc_text(self.scheduled_at)}{soon}"
        if self.error and self.state is State.RETRYING:
            yield f"attempt {self.attempt} of {self.max_attempts} failed: {error_line(self.error)[:200]}"

    def _no_room(self) -> Iterator[str]:
        limited = self.durable and self.state is State.PENDING and self.max_concurrency is not None
        maximum = self.max_concurrency or 0
        full = self.job_id is None or (self.job_id == 0 and self.active_steps >= maximum)
        if limited and full and not self.run_paused:
            what = "placed" if self.job_id is None else "at work"
            yield f"the window of its run is full: {self.active_steps} of at most {maximum} steps are {what}"
        if self.durable and not self.workers:
            yield f"no worker serves the queue {self.queue!r}: start `{command('worker', queue=self.queue)}`"


def describe_target(asset: str, partition: str) -> str:
    """Return an (asset, encoded partition) as people read it.

    Example:
        >>> describe_target("orders", "d:2024-01-01")
        'orders [2024-01-01]'
    """
    return f"{asset} [{partition_label(decode_partition(partition))}]" if partition else asset


def _workers(number: int) -> str:
    return "1 worker" if number == 1 else f"{number} workers"
