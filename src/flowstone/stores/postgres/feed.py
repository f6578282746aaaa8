"""Attempts that are over, noted for programs that report them elsewhere by the transaction that ends them.

A trigger notes them, and it exists only once a program has subscribed: where none has, the commit pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from flowstone.core.output import StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord, StepRecord, Target
from flowstone.errors import DatabaseError
from flowstone.protocols import AttemptFeed, EndedAttempt, FeedEntry
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_value


class _AttemptRow(NamedTuple):
    """An attempt, with its step and the kind of its run."""

    step_id: int
    kind: str
    attempt: int
    state: State
    started_at: datetime
    finished_at: datetime
    worker: str | None
    error: str | None
    error_type: str | None
    retry_at: datetime | None
    read: tuple[int, ...]

    def record(self) -> AttemptRecord:
        """Return what is recorded of it."""
        return AttemptRecord(
            attempt=self.attempt,
            state=self.state,
            started_at=self.started_at,
            finished_at=self.finished_at,
            worker=self.worker,
            error=self.error,
            error_type=self.error_type,
            retry_at=self.retry_at,
            read=self.read,
        )


class _TargetRow(NamedTuple):
    """What a step is of."""

    id: int
    asset: str
    partition_key: PartitionKey


class _StoredRow(NamedTuple):
    """Where the output of a step lies."""

    id: int
    stored: StoredOutput | None


class PostgresAttemptFeed(AttemptFeed):
    """Implements `flowstone.protocols.AttemptFeed` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def subscribe(self, name: str) -> None:
        from psycopg import errors

        with self._database.transaction() as connection:
            connection.execute(load_sql("feed/subscribe"), {"feed": name})
            if fetch_value(connection, bool, "feed/has_trigger"):
                return
            try:
                connection.execute(load_sql("feed/create_trigger"))
            except errors.InsufficientPrivilege as error:
                raise DatabaseError(
                    f"Attempts cannot be noted for {name}: the role of {self._database.masked_dsn} may not create "
                    "a trigger on the table attempts. Start one worker with it as the role that ran `flowstone db "
                    "upgrade`, once; or let that one GRANT TRIGGER ON flowstone.attempts."
                ) from error

    def unsubscribe(self, name: str) -> None:
        with self._database.transaction() as connection:
            if not fetch_value(connection, int, "feed/unsubscribe", {"feed": name}):
                connection.execute(load_sql("feed/drop_trigger"))

    def claim(self, name: str, *, lease_seconds: float, limit: int) -> list[FeedEntry]:
        with self._database.transaction() as connection:
            connection.execute(load_sql("feed/polled"), {"feed": name})
            parameters = {"feed": name, "lease_seconds": lease_seconds, "limit": limit}
            return fetch_all(connection, FeedEntry, "feed/claim", parameters)

    def read(self, attempts: Sequence[tuple[int, int]]) -> list[EndedAttempt]:
        parameters = {"steps": list({step_id for step_id, _ in attempts})}
        with self._database.connection() as connection:
            steps = {one.id: one for one in fetch_all(connection, StepRecord, "feed/steps", parameters)}
            rows = fetch_all(connection, _AttemptRow, "feed/attempts", parameters)
        ended = {(row.step_id, row.attempt): row for row in rows if row.step_id in steps}
        return [
            EndedAttempt(steps[row.step_id], row.record(), row.kind)
            for row in (ended.get(attempt) for attempt in attempts)
            if row is not None
        ]

    def targets(self, step_ids: Sequence[int]) -> dict[int, Target]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _TargetRow, "feed/targets", {"steps": list(step_ids)})
        return {row.id: (row.asset, row.partition_key) for row in rows}

    def stored(self, step_ids: Sequence[int]) -> dict[int, StoredOutput | None]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _StoredRow, "feed/stored", {"steps": list(step_ids)})
        return {row.id: row.stored for row in rows}

    def acknowledge(self, entries: Sequence[FeedEntry]) -> None:
        with self._database.connection() as connection:
            connection.execute(load_sql("feed/acknowledge"), {"ids": [one.id for one in entries]})

    def release(self, entries: Sequence[FeedEntry], *, retry_in_seconds: float) -> None:
        parameters = {"ids": [one.id for one in entries], "seconds": retry_in_seconds}
        with self._database.connection() as connection:
            connection.execute(load_sql("feed/release"), parameters)

    def waiting(self, name: str, *, limit: int = 10_000) -> int:
        with self._database.connection() as connection:
            return fetch_value(connection, int, "feed/waiting", {"feed": name, "limit": limit}) or 0
