"""One database for many tests of a store: a short test takes half of its time when it is emptied and not cloned.

For suites that use a database through a store and nothing else. Whoever changes tables or settings of it,
or looks at statistics, takes `database_url`, a clone of its own.
"""

from __future__ import annotations

import psycopg

from flowstone.core.project import Project

SHOP = Project("shop")
_KEPT = ("identity", "migrations")
"""Tables that migrations fill."""


class ReusedDatabase:
    """A migrated database whose tables are emptied.

    Args:
        dsn: where it is.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = psycopg.connect(dsn, autocommit=True)
        named = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        ours = "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind = %s ORDER BY 1"
        tables = [name for (name,) in self._connection.execute(named + ours, ["r"])]
        self._kept = [name for name in tables if name.rpartition(".")[2] in _KEPT]
        self._tables = [name for name in tables if name not in self._kept]
        self._sequences = [name for (name,) in self._connection.execute(named + ours, ["S"])]
        self._counted = self._count()

    def empty(self) -> str:
        """End whoever is still connected and leave the database as the migrations made it; return its DSN."""
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        self._connection.execute(
            f"SELECT pg_terminate_backend(pid, 30000) {others} AND backend_type = 'client backend'"
        )
        parts = [f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in self._tables]
        if filled := [name for (name,) in self._connection.execute(" UNION ALL ".join(parts))]:
            # truncating makes new files, which takes longer than deleting the few rows of a test
            deletes = [f"DELETE FROM {name}" for name in filled]
            self._connection.execute("; ".join(["SET session_replication_role = replica", *deletes]))
        starts = ", ".join(f"setval('{name}', 1, false)" for name in self._sequences)
        self._connection.execute(f"SELECT {starts}")
        assert self._count() == self._counted, "a test changed tables of a database that others use after it"
        return self.dsn

    def close(self) -> None:
        """Leave the database to whoever drops it."""
        self._connection.close()

    def _count(self) -> tuple[object, ...] | None:
        counted = ["pg_class", "pg_attribute", "pg_trigger", *self._kept]
        counts = ", ".join(f"(SELECT count(*) FROM {name})" for name in counted)
        return self._connection.execute(f"SELECT {counts}").fetchone()
