"""Results of asset checks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flowstone.core.check_record import CheckRecord
from flowstone.protocols import CheckStore
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import fetch_all, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresChecks(CheckStore):
    """Implements `flowstone.protocols.CheckStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, records: Sequence[CheckRecord]) -> int:
        if not records:
            return 0
        with self._database.transaction() as connection:
            return insert_checks(connection, records)

    def results(
        self,
        asset: str,
        *,
        partition: str | None = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        parameters = {"asset": asset, "partition": partition, "check": check, "failed": failed, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "checks/results", parameters)

    def latest(
        self,
        asset: str | None = None,
        *,
        partition: str | None = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        parameters = {"asset": asset, "partition": partition, "failed": failed, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "checks/latest", parameters)

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, tuple[CheckRecord, ...]]:
        found: dict[int, tuple[CheckRecord, ...]] = dict.fromkeys(step_ids, ())
        with self._database.connection() as connection:
            records = fetch_all(connection, CheckRecord, "checks/of_steps", {"steps": list(step_ids)})
        for record in records:
            found[record.step_id] += (record,)
        return found


def insert_checks(connection: Connection[TupleRow], records: Iterable[CheckRecord]) -> int:
    """Record what checks found, in the transaction of the caller; return how many rows that made."""
    rows = [
        {
            "step_id": one.step_id,
            "attempt": one.attempt,
            "token": one.token,
            "check": one.check,
            "passed": one.passed,
            "severity": one.severity,
            "blocking": one.blocking,
            "description": one.description,
            "error": one.error,
            "metadata": one.metadata,
            "started_at": one.started_at,
            "took_seconds": one.took_seconds,
        }
        for one in records
    ]
    return connection.execute(load_sql("checks/record"), {"rows": to_json(rows)}).rowcount
