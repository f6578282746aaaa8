"""One embedded PostgreSQL for a whole run, with a database of its own for each measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from flowstone.stores.postgres.embedded.server import EmbeddedPostgres

if TYPE_CHECKING:
    from psycopg import Connection


class Server:
    """The server that all durable measurements share.

    Args:
        dsn: of its first database.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._numbers = count(1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database, with nothing of an earlier measurement left to write; drop it afterwards."""
        name = f"bench_{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
            connection.execute("CHECKPOINT")
        try:
            yield urlunsplit(urlsplit(self.dsn)._replace(path=f"/{name}"))
        finally:
            with self._connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def settings(self) -> dict[str, str]:
        """Return the version and the settings that decide what a commit costs."""
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        with self._connect() as connection:
            read = "SELECT n, pg_catalog.current_setting(n) FROM unnest(%s::text[]) AS n"
            return dict(connection.execute(read, [list(names)]).fetchall())

    def _connect(self) -> Connection:
        import psycopg

        return psycopg.connect(self.dsn, autocommit=True)


@contextmanager
def running_server() -> Iterator[Server]:
    """Run an embedded PostgreSQL in a directory that is gone afterwards."""
    with (
        TemporaryDirectory(prefix="flowstone-bench-") as directory,
        EmbeddedPostgres(Path(directory, "db")) as dsn,
    ):
        yield Server(dsn)
