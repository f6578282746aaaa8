"""What the database says about the installation: for `flowstone doctor`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import load_sql

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
    """

    id: str
    kind: str
    host: str
    pid: int
    beat_at: datetime


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


def look(database: Database) -> Health:
    """Read server version, tables and workers, whatever of them is there.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    with database.connection() as connection:
        row = connection.execute(load_sql("health/server")).fetchone()
        assert row is not None
        version, has_workers = row
        workers: tuple[AliveWorker, ...] | None = None
        if has_workers:
            found = connection.execute(load_sql("workers/alive")).fetchall()
            workers = tuple(
                AliveWorker(name, kind, host, pid, beat) for name, kind, host, pid, _, _, beat in found
            )
    return Health(version, workers)
