"""What people do to running work, with our commands or with Oban's own tools.

Oban's tools write into `oban_jobs` and send signals; the truth about a step lies in our tables. So whatever they
did is found in the rows, done to the steps with everything that follows from it, and written to the audit log.
That part comes first; `PostgresControl` (pause, resume, resize, why, prune) is what our own commands and views
call.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from flowstone import telemetry
from flowstone.core.control import PruneCounts, QueueStatus, StepDiagnosis
from flowstone.core.insights.fleet import MAX_COUNTED
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.errors import ExecutorUnavailableError, RunNotFoundError
from flowstone.protocols import Control
from flowstone.protocols.stores import Retention
from flowstone.sql import load_sql
from flowstone.stores.postgres import approvals, oban_jobs
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.commit import propagate
from flowstone.stores.postgres.counters import UNLIMITED, Stopping, refill
from flowstone.stores.postgres.database import Database, in_transaction, note_ended
from flowstone.stores.postgres.rows import CancelledStep
from flowstone.stores.postgres.scatters import stop_items
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


log = logging.getLogger("flowstone")

_REVIVABLE = (State.FAILED, State.CANCELLED)


def follow_cancels(database: Database, *, within_seconds: float, signalled: Sequence[int]) -> int:
    """Cancel the steps of jobs that were cancelled with Oban's tools; return how many.

    Args:
        database: where.
        within_seconds: how far to look back for rows that were cancelled.
        signalled: running jobs that a signal names.
    """
    parameters = {"within_seconds": within_seconds, "signalled": list(signalled)}
    with database.connection() as connection:
        found = fetch_all(connection, _CancelledJob, "control/cancelled", parameters)
    return _cancel(database, found)


def follow_cancels_left(database: Database, *, limit: int) -> int:
    """Cancel the steps of jobs whose rows do not say when they were cancelled; return how many."""
    with database.connection() as connection:
        found = fetch_all(connection, _CancelledJob, "control/cancelled_left", {"limit": limit})
    return _cancel(database, found)


def reconcile(connection: Connection[TupleRow], jobs: Sequence[tuple[int, int | None]]) -> None:
    """Put jobs that were taken, and started nothing, back to what their steps say.

    A job that was retried although its step is over has the step run once more, or says in its `meta` why not.

    Args:
        connection: with the transaction in which they were taken.
        jobs: (job, step that it names).
    """
    named = {"jobs": [job for job, _ in jobs], "steps": [step for _, step in jobs]}
    notes: dict[int, str] = {job: "the step that it names is not recorded" for job, step in jobs if step is None}
    revived = []
    refused = []
    for step in fetch_all(connection, _RetriedStep, "control/retried", named):
        if (why := step.why_not()) is None:
            revived.append(step.step_id)
        else:
            notes[step.job_id] = f"not run again: {why}"
            refused.append((step.job_id, step.step_id))
            log.warning("Job %s of Oban was retried and does not run again: %s.", step.job_id, why)
    if revived:
        connection.execute(load_sql("control/revive"), {"steps": revived})
        log.info("%d steps run again because their jobs were retried with Oban's tools.", len(revived))
    if refused:
        connection.execute(
            load_sql("control/note_refused"),
            {
                "jobs": [job for job, _ in refused],
                "steps": [step for _, step in refused],
                "notes": [notes[job] for job, _ in refused],
            },
        )
    connection.execute(load_sql("control/reconcile"), named | {"notes": [notes.get(job) for job, _ in jobs]})


def resume_producers(connection: Connection[TupleRow], queue: str) -> None:
    """Notify our nodes that a queue goes on which was paused with Oban's tools; those of others are not meant."""
    producers = fetch_all(connection, _Producer, "control/paused_producers", {"queue": queue})
    signals = [
        json.dumps({"action": "resume", "queue": queue, "ident": f"{one.name}.{one.node}"}) for one in producers
    ]
    if signals:
        connection.execute(load_sql("control/signal"), {"payloads": signals})


class _CancelledJob(NamedTuple):
    """A step whose job was cancelled."""

    step_id: int
    job_id: int


class _RetriedStep(NamedTuple):
    """A step that is over and whose job was made available again."""

    step_id: int
    job_id: int
    state: State
    run_id: str
    is_item: bool
    durable: bool
    active: int | None

    def why_not(self) -> str | None:
        """Return why it cannot run again, if it cannot."""
        if self.state not in _REVIVABLE:
            return f"its step is {self.state}; have it computed again with `flowstone materialize --force`"
        if self.is_item:
            return f"it is an item of a scattered step; use `flowstone retry` with the run above {self.run_id}"
        if not self.durable:
            return f"its run {self.run_id} was not placed on this queue"
        if self.active is not None:
            return f"step {self.active} computes the same asset and partition already"
        return None


class _Producer(NamedTuple):
    """What a node of Oban calls itself."""

    name: str
    node: str


def _cancel(database: Database, found: Sequence[_CancelledJob]) -> int:
    if not found:
        return 0
    stopping = Stopping()
    jobs = {one.step_id: one.job_id for one in found}
    cancelled = in_transaction(database, lambda connection: _cancel_steps(connection, jobs, stopping))
    if stopping:
        stop_items(database, stopping)
    if cancelled:
        log.info("%d steps were cancelled because their jobs were, with Oban's tools.", cancelled)
    return cancelled


def _cancel_steps(connection: Connection[TupleRow], jobs: dict[int, int], stopping: Stopping) -> int:
    steps = {"ids": sorted(jobs)}
    # workers lock the job before the step
    connection.execute(load_sql("ledger/job_of_step"), steps)
    cancelled = fetch_all(connection, CancelledStep, "ledger/cancel_steps", steps)
    over = [step for step in cancelled if step.state is State.CANCELLED]
    if telemetry.listening():
        note_ended([step.event() for step in over])
    approvals.cancel(connection, [step.id for step in over if step.had_requested], durable=True)
    noted = {"steps": [step.id for step in cancelled], "jobs": [jobs[step.id] for step in cancelled]}
    connection.execute(load_sql("control/note_cancelled"), noted)
    propagate(connection, [step.moved for step in over], {}, durable=True, stopping=stopping)
    return len(cancelled)


_BATCH = 2000
_ABOVE_ALL = 2**63 - 1
_VERSION = re.compile(r"(\d{1,18})-(\d{1,9})(?:\.(\d{1,18}))?")


class PostgresControl(Control, Retention):
    """Implements `flowstone.protocols.Control` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def pause_run(self, run_id: str) -> int:
        with self._database.transaction() as connection:
            self._set_paused(connection, run_id, paused=True)
            withdrawn = fetch_column(connection, int, "control/withdraw", {"run_id": run_id})
            parameters = {"run_id": run_id, "withdrawn": len(withdrawn)}
            connection.execute(load_sql("control/take_off"), parameters)
            note(connection, "run.paused", f"run:{run_id}", {"withdrawn": len(withdrawn)})
            return len(withdrawn)

    def resume_run(self, run_id: str) -> int:
        with self._database.transaction() as connection:
            run = self._set_paused(connection, run_id, paused=False)
            note(connection, "run.resumed", f"run:{run_id}")
            if not run.durable:
                return 0
            limit = run.max_concurrency
            room = UNLIMITED if limit is None else max(0, limit - run.active_steps)
            placed = refill(connection, run_id, room)
            oban_jobs.place(connection, placed, queues=oban_jobs.range_queues(connection, [run_id]))
            return len(placed)

    def set_queue(
        self,
        name: str,
        *,
        paused: bool | None = None,
        node_limit: int | None = None,
        reset_limit: bool = False,
    ) -> None:
        self._require_queue()
        with self._database.transaction() as connection:
            parameters = {"name": name, "paused": paused, "node_limit": node_limit, "reset_limit": reset_limit}
            connection.execute(load_sql("queue/set"), parameters)
            if paused is not None:
                note(connection, "queue.paused" if paused else "queue.resumed", f"queue:{name}")
            if node_limit is not None or reset_limit:
                limit = "declared" if reset_limit else node_limit
                note(connection, "queue.scaled", f"queue:{name}", {"limit": limit})
            if paused is False:
                resume_producers(connection, name)
            oban_jobs.announce(connection, [name])

    def queues(self) -> list[QueueStatus]:
        self._require_queue()
        with self._database.connection() as connection:
            return fetch_all(connection, QueueStatus, "queue/list")

    def served_queues(self) -> list[str]:
        with self._database.connection() as connection:
            return fetch_column(connection, str, "queue/served")

    def diagnosis(self, target: Target) -> StepDiagnosis | None:
        parameters = {"asset": target[0], "partition": target[1]}
        with self._database.connection() as connection:
            found = fetch_one(connection, StepDiagnosis, "control/why", parameters)
            if found is None:
                return None
            inputs = fetch_all(connection, _OpenInput, "control/open_inputs", {"step_id": found.step_id})
            open_inputs = tuple((one.asset, one.partition_key, one.state) for one in inputs)
            found = replace(found, open_inputs=open_inputs)
            if found.durable and not found.state.is_terminal and self._database.durable:
                named = {
                    "queue": found.queue,
                    "job_id": found.job_id,
                    "step_id": found.step_id,
                    "counted": MAX_COUNTED + 1,
                }
                job = fetch_one(connection, _JobDiagnosis, "control/why_job", named)
                if job is not None:
                    found = replace(found, **job._asdict())
        return found

    def prune(
        self, *, older_than_seconds: float, discard: Callable[[Sequence[StoredOutput]], None]
    ) -> PruneCounts:
        age = {"older_than_seconds": older_than_seconds}
        steps = values = size_bytes = 0
        more = True
        while more:  # what a step was made from is mostly older; what is not goes the next time
            more = False
            for batch in self._ended_steps(older_than_seconds):
                with self._database.transaction() as connection:
                    rows = fetch_all(connection, _Prunable, "control/prunable", {"steps": batch})
                    if not rows:
                        continue
                    outputs = [row.output for row in rows if row.output]
                    # values go first: a crash in between leaves a record without its old value, not a value
                    # that nothing knows of
                    discard(outputs)
                    connection.execute(load_sql("control/prune_steps"), {"steps": [row.id for row in rows]})
                more = True
                steps += len(rows)
                values += len(outputs)
                size_bytes += sum(output.size_bytes or 0 for output in outputs)
        with self._database.transaction() as connection:
            runs = connection.execute(load_sql("control/prune_runs"), age)
            pruned = PruneCounts(steps, runs.rowcount, values, size_bytes)
            if any(pruned):
                note(connection, "records.pruned", "records", pruned._asdict() | age)
            return pruned

    def _ended_steps(self, older_than_seconds: float) -> Iterator[list[int]]:
        """Yield the steps of runs that ended long ago, in batches; readers mostly come before what they read.

        Each step once: what is kept, which may be millions, is not passed over again for each batch.
        """
        small: list[str] = []
        room = _BATCH
        for run in self._ended_runs(older_than_seconds):
            if run.steps > room and small:
                yield self._steps_of_runs(small)
                small, room = [], _BATCH
            if run.steps > _BATCH:
                yield from self._steps_of_large(run.id)
            elif run.steps:
                small.append(run.id)
                room -= run.steps
        if small:
            yield self._steps_of_runs(small)

    def _ended_runs(self, older_than_seconds: float) -> Iterator[_EndedRun]:
        page = {"older_than_seconds": older_than_seconds, "counted": _BATCH + 1, "limit": _BATCH}
        place = {"before": "infinity", "before_id": ""}
        while True:
            with self._database.connection() as connection:
                runs = fetch_all(connection, _EndedRun, "control/ended_runs", page | place)
            yield from runs
            if len(runs) < _BATCH:
                return
            place = {"before": runs[-1].finished_at.isoformat(), "before_id": runs[-1].id}

    def _steps_of_large(self, run_id: str) -> Iterator[list[int]]:
        below = _ABOVE_ALL
        while True:
            parameters = {"run_id": run_id, "below": below, "limit": _BATCH}
            with self._database.connection() as connection:
                found = fetch_column(connection, int, "control/steps_of_run", parameters)
            if not found:
                return
            yield found
            below = found[-1]

    def _steps_of_runs(self, runs: Sequence[str]) -> list[int]:
        with self._database.connection() as connection:
            return fetch_column(connection, int, "control/steps_of_runs", {"runs": list(runs)})

    def prunable(self, *, older_than_seconds: float) -> PruneCounts:
        parameters = {"older_than_seconds": older_than_seconds}
        with self._database.connection() as connection:
            return fetch_one(connection, PruneCounts, "control/count_prunable", parameters) or PruneCounts()

    def recorded_of(self, asset: str) -> tuple[PruneCounts, int]:
        with self._database.connection() as connection:
            found = fetch_one(connection, _OfAsset, "control/count_of_asset", {"asset": asset})
        assert found is not None
        return PruneCounts(found.steps, 0, found.with_value, found.size_bytes), found.open_steps

    def prune_asset(self, asset: str, *, discard: Callable[[Sequence[StoredOutput]], None]) -> PruneCounts:
        steps = values = size_bytes = 0
        while True:
            with self._database.transaction() as connection:
                connection.execute(load_sql("control/forget_pointers"), {"asset": asset})
                found = {"asset": asset, "limit": _BATCH}
                rows = fetch_all(connection, _Prunable, "control/of_asset", found)
                outputs = [row.output for row in rows if row.output]
                discard(outputs)
                connection.execute(load_sql("control/prune_steps"), {"steps": [row.id for row in rows]})
                if not rows:
                    connection.execute(load_sql("control/forget_changes"), {"asset": asset})
                if not rows and steps:
                    pruned = PruneCounts(steps, 0, values, size_bytes)
                    note(connection, "asset.pruned", f"asset:{asset}", pruned._asdict())
            steps += len(rows)
            values += len(outputs)
            size_bytes += sum(output.size_bytes or 0 for output in outputs)
            if not rows:
                return PruneCounts(steps, 0, values, size_bytes)

    def _require_queue(self) -> None:
        """Refuse what needs Oban's tables where these are missing.

        Raises:
            ExecutorUnavailableError: says what is missing.
        """
        if not self._database.durable:
            why = self._database.queue_problem or "the database has no queue"
            raise ExecutorUnavailableError("oban", why, "Run `flowstone db upgrade`.")

    def needed_versions(self, versions: Sequence[str]) -> set[str]:
        found = {version: _VERSION.fullmatch(version) for version in versions}
        ours = [
            (version, int(match[1]), int(match[2]), int(match[3]) if match[3] else None)
            for version, match in found.items()
            if match
        ]
        needed = {version for version, match in found.items() if not match}
        for start in range(0, len(ours), _BATCH):
            page = ours[start : start + _BATCH]
            parameters = {
                "versions": [version for version, *_ in page],
                "steps": [step for _, step, _, _ in page],
                "attempts": [attempt for _, _, attempt, _ in page],
                "tokens": [token for *_, token in page],
            }
            with self._database.connection() as connection:
                needed |= set(fetch_column(connection, str, "control/needed_versions", parameters))
        return needed

    def _set_paused(self, connection: Connection[TupleRow], run_id: str, *, paused: bool) -> _Paused:
        run = fetch_one(connection, _Paused, "control/pause_run", {"run_id": run_id, "paused": paused})
        if run is None:
            raise RunNotFoundError("run", run_id)
        return run


class _OpenInput(NamedTuple):
    """An input of a step that is not there yet."""

    id: int
    asset: str
    partition_key: PartitionKey
    state: State


class _JobDiagnosis(NamedTuple):
    """What Oban's tables know of a step, in the words of `StepDiagnosis`."""

    job_state: str | None
    ahead: int
    paused_nodes: int


class _EndedRun(NamedTuple):
    """A run that ended long ago, and how many steps it has, as far as that is counted."""

    id: str
    finished_at: datetime
    steps: int


class _Prunable(NamedTuple):
    """A step to be forgotten, with the value that it stored."""

    id: int
    output: StoredOutput | None


class _OfAsset(NamedTuple):
    """What is recorded of an asset."""

    steps: int
    with_value: int
    size_bytes: int
    open_steps: int


class _Paused(NamedTuple):
    """A run that was paused or resumed, with the counters of its window."""

    durable: bool
    max_concurrency: int | None
    active_steps: int


class _Renaming(NamedTuple):
    """Whether something is recorded under an earlier name, and whether it is in use."""

    is_there: bool
    is_in_use: bool


def carry_over(database: Database, renamed: Mapping[str, str]) -> dict[str, str]:
    """Give assets what is recorded under their earlier names.

    Args:
        database: where.
        renamed: earlier name to the name of today.

    Returns:
        Those that have to wait, because something under the earlier name is still in use.
    """
    waiting = {}
    for old, new in renamed.items():
        names = {"old": old, "new": new}
        with database.transaction() as connection:
            found = fetch_one(connection, _Renaming, "control/rename_state", names)
            assert found is not None
            if found.is_there and found.is_in_use:
                waiting[old] = new
            elif found.is_there:
                moved = fetch_value(connection, int, "control/rename_asset", names)
                log.info("The history of %r (%d steps) is now that of %r.", old, moved or 0, new)
    return waiting
