"""The audit log in PostgreSQL: written in the transaction of an action, read by whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowstone.core.actor import AUTOMATION
from flowstone.core.audit import AuditFilter, AuditRecord
from flowstone.core.step import NewRun
from flowstone.protocols import AuditStore
from flowstone.sql import load_sql
from flowstone.stores.audit import new_line, of_run
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import fetch_all

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


def note(
    connection: Connection[TupleRow],
    action: str,
    subject: str,
    details: Mapping[str, object] | None = None,
    *,
    by: str | None = None,
) -> None:
    """Write a line of the audit log in the transaction that is open here.

    How a new action is audited: its method in the PostgreSQL store calls this with its own connection, so that the
    line is there exactly if the action is; its counterpart in memory calls `Tables.note` with the same words while
    it holds the lock. Who acts is found here (`acting(...)` around the verb). What changed nothing is not noted.

    Args:
        connection: with the transaction of the action open.
        action: what, such as `run.cancelled`.
        subject: to what, such as `run:ID`.
        details: counts, the filter, and the like; what is None is left out.
        by: who, when the action names them itself.
    """
    line = new_line(action, subject, details, by=by)
    connection.execute(load_sql("audit/note"), line._asdict() | {"details": to_json(line.details)})


def note_placed(connection: Connection[TupleRow], run: NewRun, steps: int) -> None:
    """Write that a person or a program placed a run; of automations the ticks say that."""
    if run.requested_by is not None and run.requested_via != AUTOMATION:
        note(connection, "run.placed", f"run:{run.id}", of_run(run, steps), by=run.requested_by)


class PostgresAudit(AuditStore):
    """Implements `flowstone.protocols.AuditStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, action: str, subject: str, details: Mapping[str, object] | None = None) -> None:
        with self._database.transaction() as connection:
            note(connection, action, subject, details)

    def lines(
        self, requested: AuditFilter | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[AuditRecord]:
        found = requested or AuditFilter()
        first, last = found.actions
        parameters = {
            "actor": found.actor,
            "first_action": first,
            "last_action": last,
            "subject": found.subject,
            "since": found.since,
            "until": found.until,
            "before": before,
            "limit": limit,
        }
        with self._database.connection() as connection:
            return fetch_all(connection, AuditRecord, "audit/lines", parameters)
