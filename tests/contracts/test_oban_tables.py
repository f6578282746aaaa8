"""What FlowStone assumes of Oban's tables. A failure here after an upgrade names the assumption that broke."""

from __future__ import annotations

import pytest
from oban.schema import install_sql
from tests.contracts.oban_scene import put, state_of

from flowstone.stores.postgres import oban_jobs
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import JOB_STATES

# every column that our statements name: type, whether null is refused, whether there is a default
COLUMNS = {
    "id": ("bigint", True, False),
    "state": ("oban_job_state", True, True),
    "queue": ("text", True, True),
    "worker": ("text", True, False),
    "attempt": ("smallint", True, True),
    "max_attempts": ("smallint", True, True),
    "priority": ("smallint", True, True),
    "args": ("jsonb", True, True),
    "attempted_by": ("text[]", True, True),
    "scheduled_at": ("timestamp without time zone", True, True),
    "attempted_at": ("timestamp without time zone", False, False),
    "cancelled_at": ("timestamp without time zone", False, False),
    "completed_at": ("timestamp without time zone", False, False),
    "discarded_at": ("timestamp without time zone", False, False),
}


def rows(database: Database, sql: str) -> list[tuple[object, ...]]:
    with database.connection() as connection:
        return connection.execute(sql).fetchall()  # type: ignore[arg-type]


def test_columns_we_write_have_the_types_we_write(database: Database) -> None:
    found = {
        row[0]: tuple(row[1:])
        for row in rows(
            database,
            """SELECT attname, format_type(atttypid, atttypmod), attnotnull, atthasdef FROM pg_attribute
            WHERE attrelid = 'public.oban_jobs'::regclass AND attnum > 0 AND NOT attisdropped""",
        )
    }
    assert {name: found.get(name) for name in COLUMNS} == COLUMNS


def test_columns_we_do_not_write_may_be_left_out(database: Database) -> None:
    needed = rows(
        database,
        """SELECT attname FROM pg_attribute WHERE attrelid = 'public.oban_jobs'::regclass AND attnum > 0
        AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attidentity = '' ORDER BY 1""",
    )
    assert needed == [("worker",)]


def test_the_id_is_an_identity_that_can_be_drawn_beforehand_and_overridden(database: Database) -> None:
    (identity,) = rows(
        database,
        """SELECT attidentity, pg_get_serial_sequence('public.oban_jobs', 'id') FROM pg_attribute
        WHERE attrelid = 'public.oban_jobs'::regclass AND attname = 'id'""",
    )
    assert identity == ("a", "public.oban_jobs_id_seq")
    first, second = put(database), put(database)
    assert second == first + 1


def test_every_state_we_set_or_ask_for_exists(database: Database) -> None:
    found = {str(row[0]) for row in rows(database, "SELECT unnest(enum_range(NULL::public.oban_job_state))")}
    ours = {*JOB_STATES.values(), "available", "executing", "suspended"}
    assert ours <= found
    # a new state could be one in which a job is alive, which the sweep would have to know
    assert found == {
        *("available", "scheduled", "suspended", "executing", "retryable", "completed", "discarded", "cancelled")
    }


def test_constraints_allow_what_we_write(database: Database) -> None:
    constraints = dict(
        rows(
            database,
            """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = 'public.oban_jobs'::regclass AND contype <> 'n'""",
        )
    )
    assert set(constraints) == {
        *("attempt_range", "queue_length", "worker_length", "positive_max_attempts", "non_negative_priority"),
        "oban_jobs_pkey",
    }
    # attempts are counted by the step, so the job's own limit must be out of reach
    job = put(database, attempt=32767)
    assert state_of(database, job) == "available"


def test_the_index_that_our_fetch_uses_exists(database: Database) -> None:
    (definition,) = rows(
        database,
        """SELECT indexdef FROM pg_indexes
        WHERE indexname = 'oban_jobs_state_queue_priority_scheduled_at_id_index'""",
    )
    assert "(state, queue, priority, scheduled_at, id)" in str(definition[0])


def test_nothing_of_oban_fires_on_our_inserts(database: Database) -> None:
    found = rows(
        database, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'public.oban_jobs'::regclass AND NOT tgisinternal"
    )
    assert found == []


def test_jobs_survive_a_crash_of_the_server(database: Database) -> None:
    persistence = dict(
        rows(
            database,
            "SELECT relname, relpersistence FROM pg_class WHERE relname LIKE 'oban\\_%%' AND relkind = 'r'",
        )
    )
    # the other two are emptied by one, and nothing of ours may depend on them
    assert persistence == {"oban_jobs": "p", "oban_leaders": "u", "oban_producers": "u"}


def test_the_installation_makes_its_types_in_the_first_schema_of_the_path(empty_database_url: str) -> None:
    with Database(empty_database_url) as database:
        with database.dedicated() as connection:
            connection.execute("CREATE SCHEMA other")
            connection.execute("SET search_path TO other, public")
            oban_jobs.install(connection, schema="public")
        assert rows(database, "SELECT to_regclass('public.oban_jobs') IS NOT NULL") == [(True,)]
        assert rows(
            database,
            """SELECT n.nspname FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
            WHERE t.typname = 'oban_job_state'""",
        ) == [("public",)]


def test_the_installation_may_be_repeated(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("SET LOCAL search_path TO public")
        connection.execute(install_sql(), prepare=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("parameter", ["%", "%s"])
def test_the_installation_needs_no_parameters(parameter: str) -> None:
    assert parameter not in install_sql()
