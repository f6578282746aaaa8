"""One embedded PostgreSQL for a whole run, with a database of its own for each measurement; an object storage."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from flowstone.stores.postgres.embedded.server import EmbeddedPostgres

if TYPE_CHECKING:
    from psycopg import Connection

BUCKET = "bench"


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


@contextmanager
def running_objects() -> Iterator[str]:
    """Run moto's server, which keeps objects in its memory, with an empty bucket `BUCKET`; yield its address."""
    import botocore.session

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            time.sleep(0.05)
        keys = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench", "region_name": "us-east-1"}
        client = botocore.session.get_session().create_client("s3", endpoint_url=endpoint, **keys)
        client.create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        process.kill()
        process.wait()
