"""What attempts log, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from flowstone.core.logs import LogBatch, LogCount, LogPosition, Trim, WrittenBatch
from flowstone.core.partitions import PartitionKey
from flowstone.protocols import LogStore
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all

_START = LogPosition(datetime(1970, 1, 1, tzinfo=UTC), 0, 0, 0, 0)


class PostgresLogs(LogStore):
    """Implements `flowstone.protocols.LogStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, batches: Sequence[LogBatch], trims: Sequence[Trim]) -> None:
        with self._database.transaction() as connection:
            # nobody waits for the disk because of a log: a crash of the server may take its last moment
            connection.execute("SET LOCAL synchronous_commit = off")
            if batches:
                rows = {
                    "steps": [one.step_id for one in batches],
                    "attempts": [one.attempt for one in batches],
                    "tokens": [one.token for one in batches],
                    "first": [one.line for one in batches],
                    "lines": [one.lines for one in batches],
                    "runs": [one.run_id for one in batches],
                    "bodies": [one.body for one in batches],
                }
                connection.execute(load_sql("logs/append"), rows)
            if trims:
                ends = {
                    "steps": [one.step_id for one in trims],
                    "attempts": [one.attempt for one in trims],
                    "tokens": [one.token for one in trims],
                    "heads": [one.head for one in trims],
                    "tails": [one.tail for one in trims],
                }
                connection.execute(load_sql("logs/trim"), ends)

    def read(
        self,
        step_id: int,
        attempt: int,
        *,
        after: tuple[int, int] = (0, 0),
        newest: bool = False,
        limit: int = 1000,
    ) -> list[LogBatch]:
        token, line = after
        parameters = {"step_id": step_id, "attempt": attempt, "token": token, "line": line, "limit": limit}
        with self._database.connection() as connection:
            if newest:
                return fetch_all(connection, LogBatch, "logs/read_newest", parameters)[::-1]
            return fetch_all(connection, LogBatch, "logs/read", parameters)

    def of_run(
        self, run_id: str, *, after: LogPosition | None = None, newest: bool = False, limit: int = 1000
    ) -> list[WrittenBatch]:
        parameters = {"run_id": run_id, "limit": limit, **(after or _START)._asdict()}
        with self._database.connection() as connection:
            if newest:
                rows = fetch_all(connection, _RunBatch, "logs/of_run_newest", parameters)[::-1]
            else:
                rows = fetch_all(connection, _RunBatch, "logs/of_run", parameters)
        return [row.written() for row in rows]

    def counts(self, step_ids: Sequence[int]) -> list[LogCount]:
        with self._database.connection() as connection:
            return fetch_all(connection, LogCount, "logs/counts", {"steps": list(step_ids)})

    def forget(self, step_ids: Sequence[int]) -> int:
        with self._database.connection() as connection:
            return connection.execute(load_sql("logs/forget"), {"steps": list(step_ids)}).rowcount

    def prune(self, *, older_than_seconds: float, limit: int = 10_000) -> int:
        parameters = {"older_than_seconds": older_than_seconds, "limit": limit}
        with self._database.connection() as connection:
            return connection.execute(load_sql("logs/prune"), parameters).rowcount


class _RunBatch(NamedTuple):
    """A batch of a run, and when it was written."""

    written_at: datetime
    step_id: int
    attempt: int
    token: int
    line: int
    lines: int
    run_id: str
    body: str
    asset: str
    partition_key: PartitionKey

    def written(self) -> WrittenBatch:
        place = LogPosition(self.written_at, self.step_id, self.attempt, self.token, self.line)
        return WrittenBatch(place, LogBatch(*self[1:8]), self.asset, self.partition_key)
