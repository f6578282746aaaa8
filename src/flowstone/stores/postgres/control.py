"""What people do to running work: pause, resume, resize, ask why, prune."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.control import PruneCounts, QueueStatus, StepDiagnosis
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.errors import ExecutorUnavailableError, RunNotFoundError
from flowstone.protocols import Control
from flowstone.protocols.stores import Retention
from flowstone.stores.postgres import operators, transport
from flowstone.stores.postgres.counting import UNLIMITED, refill
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger("flowstone")

_BATCH = 2000
_VERSION = re.compile(r"(\d{1,18})-(\d{1,9})")


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
            return len(withdrawn)

    def resume_run(self, run_id: str) -> int:
        with self._database.transaction() as connection:
            run = self._set_paused(connection, run_id, paused=False)
            if not run.durable:
                return 0
            limit = run.max_concurrency
            room = UNLIMITED if limit is None else max(0, limit - run.active_steps)
            placed = refill(connection, run_id, room)
            queues = transport.enqueue(connection, placed) | transport.range_queues(connection, [run_id])
            transport.announce(connection, queues)
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
            connection.execute(load_sql("queues/set"), parameters)
            if paused is False:
                operators.resume_producers(connection, name)
            transport.announce(connection, [name])

    def queues(self) -> list[QueueStatus]:
        self._require_queue()
        with self._database.connection() as connection:
            return fetch_all(connection, QueueStatus, "queues/list")

    def served_queues(self) -> list[str]:
        with self._database.connection() as connection:
            return fetch_column(connection, str, "queues/served")

    def diagnosis(self, target: Target) -> StepDiagnosis | None:
        parameters = {"asset": target[0], "partition": target[1]}
        with self._database.connection() as connection:
            found = fetch_one(connection, StepDiagnosis, "control/why", parameters)
            if found is None:
                return None
            inputs = fetch_all(connection, _OpenInput, "control/open_inputs", {"step_id": found.step_id})
            open_inputs = tuple((one.asset, one.partition, one.state) for one in inputs)
            found = replace(found, open_inputs=open_inputs)
            if found.durable and not found.state.is_terminal and self._database.durable:
                named = {"queue": found.queue, "job_id": found.job_id}
                job = fetch_one(connection, _JobDiagnosis, "control/why_job", named)
                if job is not None:
                    found = replace(found, **job._asdict())
        return found

    def prune(
        self, *, older_than_seconds: float, discard: Callable[[Sequence[StoredOutput]], None]
    ) -> PruneCounts:
        age = {"older_than_seconds": older_than_seconds}
        steps = values = size_bytes = 0
        while True:
            with self._database.transaction() as connection:
                rows = fetch_all(connection, _Prunable, "control/prunable", age | {"limit": _BATCH})
                outputs = [row.output for row in rows if row.output]
                # values go first: a crash in between leaves a record without its old value, not a value
                # that nothing knows of
                discard(outputs)
                connection.execute(load_sql("control/prune_steps"), {"steps": [row.id for row in rows]})
            steps += len(rows)
            values += len(outputs)
            size_bytes += sum(output.size_bytes or 0 for output in outputs)
            if not rows:
                break
        with self._database.transaction() as connection:
            runs = connection.execute(load_sql("control/prune_runs"), age)
            return PruneCounts(steps, runs.rowcount, values, size_bytes)

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
        ours = [(version, int(match[1]), int(match[2])) for version, match in found.items() if match]
        needed = {version for version, match in found.items() if not match}
        for start in range(0, len(ours), _BATCH):
            page = ours[start : start + _BATCH]
            parameters = {
                "versions": [version for version, _, _ in page],
                "steps": [step for _, step, _ in page],
                "attempts": [attempt for _, _, attempt in page],
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
    partition: str
    state: State


class _JobDiagnosis(NamedTuple):
    """What Oban's tables know of a step, in the words of `StepDiagnosis`."""

    job_state: str | None
    ahead: int
    paused_nodes: int


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
