"""Attempts that are over, noted for programs that report them elsewhere by the transaction that ends them.

A trigger notes them, and it exists only once a program has subscribed: where none has, the commit pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.errors import DatabaseError
from flowstone.protocols import AttemptFeed, FeedEntry
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_value


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
