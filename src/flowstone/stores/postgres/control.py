"""What people do to running work: pause, resume, resize, ask why, prune."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flowstone.core.control import PruneCounts, QueueStatus, StepSituation
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.errors import ExecutorUnavailableError, RunNotFoundError
from flowstone.protocols import Control
from flowstone.protocols.stores import Retention
from flowstone.stores.postgres import operators, transport
from flowstone.stores.postgres.counting import UNLIMITED, refill
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import load_sql

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
            withdrawn = connection.execute(load_sql("control/withdraw"), {"run_id": run_id}).fetchall()
            parameters = {"run_id": run_id, "withdrawn": len(withdrawn)}
            connection.execute(load_sql("control/take_off"), parameters)
            return len(withdrawn)

    def resume_run(self, run_id: str) -> int:
        with self._database.transaction() as connection:
            durable, limit, active = self._set_paused(connection, run_id, paused=False)
            if not durable:
                return 0
            room = UNLIMITED if limit is None else max(0, limit - active)
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
            rows = connection.execute(load_sql("queues/list")).fetchall()
        return [
            QueueStatus(name, paused, limit, available, scheduled, executing, nodes, tuple(declared))
            for name, paused, limit, available, scheduled, executing, nodes, declared in rows
        ]

    def served_queues(self) -> list[str]:
        with self._database.connection() as connection:
            return [row[0] for row in connection.execute(load_sql("queues/served"))]

    def situation(self, target: Target) -> StepSituation | None:
        parameters = {"asset": target[0], "partition": target[1]}
        with self._database.connection() as connection:
            row = connection.execute(load_sql("control/why"), parameters).fetchone()
            if row is None:
                return None
            inputs = connection.execute(load_sql("control/open_inputs"), {"step_id": row[0]}).fetchall()
            open_inputs = tuple((asset, key, State(state)) for _, asset, key, state in inputs)
            found = replace(StepSituation(row[0], State(row[1]), *row[2:]), open_inputs=open_inputs)
            if found.durable and not found.state.is_terminal and self._database.durable:
                named = {"queue": found.queue, "job_id": found.job_id}
                job = connection.execute(load_sql("control/why_job"), named).fetchone()
                if job is not None:
                    found = replace(found, job_state=job[0], ahead=job[1], paused_nodes=job[2])
        return found

    def prune(
        self, *, older_than_seconds: float, discard: Callable[[Sequence[StoredOutput]], None]
    ) -> PruneCounts:
        age = {"older_than_seconds": older_than_seconds}
        steps = values = size_bytes = 0
        while True:
            with self._database.transaction() as connection:
                rows = connection.execute(load_sql("control/prunable"), age | {"limit": _BATCH}).fetchall()
                outputs = [StoredOutput.from_json(output) for _, output in rows if output]
                # values go first: a crash in between leaves a record without its old value, not a value
                # that nothing knows of
                discard(outputs)
                connection.execute(load_sql("control/prune_steps"), {"steps": [row[0] for row in rows]})
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
            row = connection.execute(load_sql("control/count_prunable"), parameters).fetchone()
        return PruneCounts(*row) if row else PruneCounts()

    def recorded_of(self, asset: str) -> tuple[PruneCounts, int]:
        with self._database.connection() as connection:
            row = connection.execute(load_sql("control/count_of_asset"), {"asset": asset}).fetchone()
        assert row is not None
        return PruneCounts(row[0], 0, row[1], row[2]), row[3]

    def prune_asset(self, asset: str, *, discard: Callable[[Sequence[StoredOutput]], None]) -> PruneCounts:
        steps = values = size_bytes = 0
        while True:
            with self._database.transaction() as connection:
                connection.execute(load_sql("control/forget_pointers"), {"asset": asset})
                found = {"asset": asset, "limit": _BATCH}
                rows = connection.execute(load_sql("control/of_asset"), found).fetchall()
                outputs = [StoredOutput.from_json(output) for _, output in rows if output]
                discard(outputs)
                connection.execute(load_sql("control/prune_steps"), {"steps": [row[0] for row in rows]})
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

    def wanted_versions(self, versions: Sequence[str]) -> set[str]:
        found = {version: _VERSION.fullmatch(version) for version in versions}
        ours = [(version, int(match[1]), int(match[2])) for version, match in found.items() if match]
        wanted = {version for version, match in found.items() if not match}
        for start in range(0, len(ours), _BATCH):
            page = ours[start : start + _BATCH]
            parameters = {
                "versions": [version for version, _, _ in page],
                "steps": [step for _, step, _ in page],
                "attempts": [attempt for _, _, attempt in page],
            }
            with self._database.connection() as connection:
                rows = connection.execute(load_sql("control/wanted_versions"), parameters)
                wanted |= {row[0] for row in rows}
        return wanted

    def _set_paused(
        self, connection: Connection[TupleRow], run_id: str, *, paused: bool
    ) -> tuple[bool, int | None, int]:
        row = connection.execute(load_sql("control/pause_run"), {"run_id": run_id, "paused": paused}).fetchone()
        if row is None:
            raise RunNotFoundError("run", run_id)
        return bool(row[0]), row[1], int(row[2])


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
            row = connection.execute(load_sql("control/rename_state"), names).fetchone()
            assert row is not None
            if row[0] and row[1]:
                waiting[old] = new
            elif row[0]:
                moved = connection.execute(load_sql("control/rename_asset"), names).fetchone()
                log.info("The history of %r (%d steps) is now that of %r.", old, moved[0] if moved else 0, new)
    return waiting
