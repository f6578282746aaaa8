"""What the database says about the installation: for `flowstone doctor`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_one

OLDEST_SERVER = 14
"""Oldest major version of PostgreSQL that is tested."""


@dataclass(frozen=True, slots=True)
class AliveWorker:
    """A process with a valid lease.

    Args:
        id: its name.
        kind: `node` for workers, `inline` for processes that run assets themselves.
        host: where it runs.
        pid: its process id there.
        beat_at: when it last renewed its lease.
        queues: queues that it serves, and how many steps of each at once; None when it serves none.
        started_at: when it started; None when nobody said.
    """

    id: str
    kind: str
    host: str
    pid: int
    beat_at: datetime
    queues: Mapping[str, int] | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a database, as far as it could be read.

    Args:
        version: of the server, such as `18.1`.
        workers: processes with a valid lease; None when the table is missing.
    """

    version: str
    workers: tuple[AliveWorker, ...] | None

    @property
    def major(self) -> int:
        """Major version of the server.

        Example:
            >>> Health("18.1 (Debian)", ()).major
            18
        """
        found = re.match(r"\d+", self.version)
        return int(found[0]) if found else 0


def read_health(database: Database) -> Health:
    """Read server version, tables and workers, whatever of them is there.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    with database.connection() as connection:
        server = fetch_one(connection, _Server, "health/server")
        assert server is not None
        workers: tuple[AliveWorker, ...] | None = None
        if server.has_workers:
            workers = tuple(fetch_all(connection, AliveWorker, "workers/alive"))
    return Health(server.version, workers)


class _Server(NamedTuple):
    """The server, and whether our tables are there."""

    version: str
    has_workers: bool
