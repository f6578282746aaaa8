"""Steps that begin with the commit that releases them, on the worker that commits.

Without this a released step is written as ready, announced, fetched, and written again as begun. On the worker
that computed its last input all of that can be one write, if it has room and nobody else is kept waiting: see
`release_here.sql`, and decision 33 in docs/adr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, BegunStep, WorkerRoom
from flowstone.stores.postgres.rows import ReleasedStep, StartedStep, to_ids
from flowstone.stores.postgres.sql import fetch_all

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


@dataclass(slots=True)
class _ReleasedRow(StartedStep):
    """A step that has less to wait for; it runs, or is what `ReleasedStep` says."""

    run_id: str
    state: State
    job_id: int | None
    durable: bool
    queue: str
    priority: int
    snoozes: int
    age_seconds: float
    shape: str | None
    keys: str | None

    def begun(self, of_run: Attempt) -> BegunStep:
        """Return the attempt that began.

        Args:
            of_run: another attempt of its run.
        """
        assert of_run.run is not None
        assert self.job_id is not None
        attempt = self.started(
            of_run.run,
            queued_seconds=0.0,
            job_id=self.job_id,
            snoozes=self.snoozes,
            age_seconds=self.age_seconds,
            deps_timeout_seconds=of_run.deps_timeout_seconds,
            shape=self.shape,
            keys=self.keys,
        )
        return BegunStep(self.queue, attempt)


@dataclass(slots=True)
class BeginHere:
    """What one transaction begins on the worker that commits.

    Args:
        room: what the worker has room for.
        runs: an attempt of each run that it commits.
        begun: steps that began, the most urgent first.
    """

    room: WorkerRoom
    runs: Mapping[str, Attempt]
    begun: list[BegunStep] = field(default_factory=list)

    @classmethod
    def of(cls, room: WorkerRoom | None, completions: Sequence[AttemptResult]) -> BeginHere | None:
        """Return what begins the steps that these attempts release; None without room for any."""
        runs = {one.attempt.run_id: one.attempt for one in completions if one.attempt.run is not None}
        return cls(room, runs) if room is not None and runs else None

    def release(self, connection: Connection[TupleRow], children: Mapping[int, int]) -> list[ReleasedStep]:
        """Count inputs down and begin what there is room for; return the new state of each.

        Args:
            connection: with the transaction in which the inputs ended.
            children: how many inputs of each step ended.
        """
        queues = self.room.queues
        parameters = {
            "children": to_ids(children),
            "inputs": to_ids(children.values()),
            "runs": list(self.runs),
            "queues": list(queues),
            "rooms": list(queues.values()),
            "idle": [queue in self.room.only_idle for queue in queues],
            "worker_id": self.room.worker_id,
        }
        rows = fetch_all(connection, _ReleasedRow, "release_here", parameters)
        running = sorted(
            (row for row in rows if row.state is State.RUNNING), key=lambda row: (row.priority, row.step_id)
        )
        self.begun += [row.begun(self.runs[row.run_id]) for row in running]
        return [
            ReleasedStep(row.step_id, row.run_id, row.state, row.job_id, row.durable, row.queue) for row in rows
        ]
