"""A database of a scale on a server of tests: written by whoever needs it first, then only cloned."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.scale.app import Scale
from tests.scale.history import fill

from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database, with_identifiers
from flowstone.stores.postgres.embedded.cluster import FileLock
from flowstone.stores.postgres.sql import fetch_value
from flowstone.testing.postgres import TemporaryServer

_TIMEOUT_SECONDS = 900.0


def template(server: TemporaryServer, scale: Scale) -> str:
    """Return the DSN of the database of a scale, which is to be cloned and not to be connected to.

    Args:
        server: which has a migrated template of its own.
        scale: how much.
    """
    name = f"scale_{scale.name}"
    lock = FileLock(server._directory / f"{name}.lock")
    try:
        assert lock.wait_exclusive(timeout_seconds=_TIMEOUT_SECONDS), f"{name} is being written for 15 minutes"
        with Database(server._dsn).dedicated() as connection:
            if not fetch_value(connection, bool, "database/exists", {"name": name}):
                with server.database() as dsn:
                    fill(dsn, scale)
                    made = urlsplit(dsn).path.lstrip("/")
                    connection.execute(with_identifiers(load_sql("database/rename"), name=made, template=name))
    finally:
        lock.close()
    return urlsplit(server._dsn)._replace(path=f"/{name}").geturl()
