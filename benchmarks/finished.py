"""Finished work of the past: millions of steps with edges, lineage, attempts and values, written by SQL."""

from __future__ import annotations

from psycopg import Connection
from psycopg.rows import TupleRow

from flowstone.sql import sections
from flowstone.stores.postgres.database import Database

PER_RUN = 10_000
_RUNS_BETWEEN_VACUUMS = 25
_JOBS = 300_000
_STATEMENTS = sections("finished", "benchmarks")


def fill(dsn: str, steps: int) -> None:
    """Write runs of the last 100 days, evenly spread, and let the server look at the tables as it does at night.

    Args:
        dsn: a migrated database.
        steps: how many; a multiple of 10,000.
    """
    runs = steps // PER_RUN
    with Database(dsn).dedicated() as connection:
        base = _base(connection, steps)
        for run in range(1, runs + 1):  # one by one, as a target has one active step at a time
            place = {"from": base + run * PER_RUN, "to": base + (run + 1) * PER_RUN - 1}
            given = place | {"first": run, "last": run, "runs": runs, "base": base}
            with connection.transaction():
                for name in ("runs", "begun", "ended", "attempts", "values", "read", "lineage", "edges"):
                    connection.execute(_STATEMENTS[name], given)
            if run % _RUNS_BETWEEN_VACUUMS == 0:
                connection.execute("VACUUM flowstone.steps")
        newest = runs if runs % 10 else runs - 1
        connection.execute(_STATEMENTS["in_use"], {"newest": newest})
        connection.execute(_STATEMENTS["jobs"], {"jobs": _JOBS})
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def _base(connection: Connection[TupleRow], steps: int) -> int:
    """Return an id below those of all these steps; later ones are higher."""
    row = connection.execute("SELECT pg_catalog.nextval('flowstone.step_ids')").fetchone()
    assert row is not None
    base = -(-row[0] // PER_RUN) * PER_RUN
    connection.execute("SELECT pg_catalog.setval('flowstone.step_ids', %s)", [base + steps + 2 * PER_RUN])
    connection.execute("SELECT pg_catalog.setval('flowstone.tokens', %s)", [base + steps + 2 * PER_RUN])
    return int(base)
