"""Approvals in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowstone.core.approval import Approval, ApprovalState, AuditRecord
from flowstone.errors import ApprovalNotFoundError
from flowstone.protocols import ApprovalStore
from flowstone.stores.postgres import deciding
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_one, load_sql
from flowstone.stores.postgres.transactions import in_transaction

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresApprovals(ApprovalStore):
    """Implements `flowstone.protocols.ApprovalStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        with self._database.connection() as connection:
            if state is ApprovalState.PENDING:
                return fetch_all(connection, Approval, "approvals/pending", {"limit": limit})
            return fetch_all(connection, Approval, "approvals/newest", {"state": state, "limit": limit})

    def get(self, approval_id: int) -> Approval | None:
        with self._database.connection() as connection:
            return fetch_one(connection, Approval, "approvals/get", {"ids": [approval_id]})

    def of_step(self, step_id: int) -> Sequence[Approval]:
        with self._database.connection() as connection:
            return fetch_all(connection, Approval, "approvals/of_steps", {"steps": [step_id]})

    def decide(self, approval_id: int, *, approve: bool, by: str, comment: str | None = None) -> Approval:
        state = ApprovalState.APPROVED if approve else ApprovalState.REJECTED
        decided = self._decide(approval_id, state, by=by, comment=comment)
        if decided:
            return decided[0]
        # too late by the clock of the database, though nobody has noted that yet
        self._decide(approval_id, ApprovalState.EXPIRED)
        found = self.get(approval_id)
        if found is None:
            raise ApprovalNotFoundError(approval_id)
        raise found.too_late()

    def expire_due(self, *, limit: int = 1000) -> int:
        durable = self._database.durable
        return in_transaction(
            self._database, lambda connection: deciding.expire_due(connection, durable=durable, limit=limit)
        )

    def claim_notifications(self, *, lease_seconds: float, limit: int = 10) -> Sequence[Approval]:
        parameters = {"lease_seconds": lease_seconds, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, Approval, "approvals/claim_notifications", parameters)

    def acknowledge_notification(self, approval: Approval) -> None:
        self._execute("acknowledge_notification", {"id": approval.id, "state": approval.state})

    def release_notification(self, approval: Approval, *, retry_in_seconds: float) -> None:
        parameters = {"id": approval.id, "state": approval.state, "retry_in_seconds": retry_in_seconds}
        self._execute("release_notification", parameters)

    def audit(self, *, subject: str | None = None, limit: int = 100) -> Sequence[AuditRecord]:
        parameters = {"subject": subject, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, AuditRecord, "approvals/audit", parameters)

    def _decide(
        self, approval_id: int, state: ApprovalState, *, by: str | None = None, comment: str | None = None
    ) -> Sequence[Approval]:
        durable = self._database.durable

        def decide(connection: Connection[TupleRow]) -> Sequence[Approval]:
            return deciding.decide(connection, [approval_id], state, durable=durable, by=by, comment=comment)

        return in_transaction(self._database, decide)

    def _execute(self, statement: str, parameters: dict[str, object]) -> None:
        with self._database.connection() as connection:
            connection.execute(load_sql(f"approvals/{statement}"), parameters)
