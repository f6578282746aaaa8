"""Tables that another program's Oban made: what is missing is added, the rest stays, or the reason is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstone import FlowStone, asset
from flowstone.app.worker import serve
from flowstone.config import Settings
from flowstone.errors import DatabaseError, ExecutorUnavailableError
from flowstone.stores.postgres import oban_jobs
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

# the tables as migrations of Oban in Elixir leave them
ELIXIR = """
CREATE TYPE public.oban_job_state AS ENUM
    ('available', {suspended}'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
CREATE TABLE public.oban_jobs (
    id bigserial PRIMARY KEY, state public.oban_job_state NOT NULL DEFAULT 'available',
    queue text NOT NULL DEFAULT 'default', worker text NOT NULL, args jsonb NOT NULL DEFAULT '{{}}',
    errors jsonb[] NOT NULL DEFAULT ARRAY[]::jsonb[], attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 20, inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
    scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()), attempted_at timestamp, completed_at timestamp,
    attempted_by text[], discarded_at timestamp, priority integer NOT NULL DEFAULT 0,
    tags text[] DEFAULT ARRAY[]::text[], meta jsonb DEFAULT '{{}}', cancelled_at timestamp,
    CONSTRAINT {priority}, CONSTRAINT attempt_range CHECK (attempt BETWEEN 0 AND max_attempts)
) WITH (fillfactor = 77);
CREATE UNLOGGED TABLE public.oban_peers (name text PRIMARY KEY, node text NOT NULL);
INSERT INTO public.oban_jobs (worker, errors) VALUES ('MyApp.Mailer', ARRAY['{{"attempt": 1}}']::jsonb[]);
COMMENT ON TABLE public.oban_jobs IS '{version}';
"""
ANY_PRIORITY = "non_negative_priority CHECK (priority >= 0)"
TOUCHED = """SELECT obj_description('public.oban_jobs'::regclass), c.reloptions,
    array_agg(k.conname ORDER BY k.conname),
    (SELECT array_agg(j::text) FROM public.oban_jobs AS j)
    FROM pg_class AS c LEFT JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype <> 'n'
    WHERE c.oid = 'public.oban_jobs'::regclass GROUP BY c.reloptions"""


def elixir(url: str, version: int, priority: str = ANY_PRIORITY) -> None:
    suspended = "'suspended', " if version >= 14 else ""
    with Database(url) as database, database.connection() as connection:
        connection.execute(ELIXIR.format(version=version, suspended=suspended, priority=priority))  # type: ignore[arg-type]


def execute(url: str, sql: str) -> list[tuple[object, ...]]:
    with Database(url) as database, database.connection() as connection:
        cursor = connection.execute(sql)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


@pytest.mark.both_servers
@pytest.mark.parametrize("version", [12, 13, 14])
def test_what_elixirs_tables_lack_is_added_and_the_rest_stays(empty_database_url: str, version: int) -> None:
    elixir(empty_database_url, version)
    before = execute(empty_database_url, TOUCHED)
    for first in (True, False):
        added = [one for one in upgrade(Database(empty_database_url)) if one.startswith("Oban: ")]
        assert ("Oban: the index flowstone_due" in added) is first
        assert bool(added) is first  # said, so that nobody reads "nothing to do"
        assert execute(empty_database_url, TOUCHED) == before
    with Database(empty_database_url) as database:
        assert oban_jobs.problems(database) == []
        with database.connection() as connection:
            assert oban_jobs.unusable(connection) is None


def test_a_constraint_that_refuses_our_rows_is_named_with_what_its_owner_can_do(empty_database_url: str) -> None:
    elixir(empty_database_url, 11, "priority_range CHECK (priority BETWEEN 0 AND 3)")
    with pytest.raises(DatabaseError, match=r"priority_range .* priorities 0 to 3 .* version 12"):
        upgrade(Database(empty_database_url))
    with Database(empty_database_url) as database:
        assert "priority_range" in oban_jobs.problems(database)[0]
    execute(empty_database_url, "ALTER TABLE public.oban_jobs DROP CONSTRAINT priority_range")
    upgrade(Database(empty_database_url))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ALTER TABLE public.oban_jobs DROP COLUMN meta", "no column meta"),
        ("ALTER SEQUENCE public.oban_jobs_id_seq OWNED BY NONE", "sequence"),
        ("ALTER TABLE public.oban_jobs ADD CONSTRAINT small CHECK (max_attempts <= 20)", "constraint small"),
        (
            "ALTER TABLE public.oban_jobs ADD COLUMN tenant int NOT NULL DEFAULT 1; "
            "ALTER TABLE public.oban_jobs ALTER COLUMN tenant DROP DEFAULT",
            "tenant",
        ),
    ],
)
def test_tables_that_cannot_carry_our_jobs_are_refused(empty_database_url: str, change: str, message: str) -> None:
    elixir(empty_database_url, 12)
    if "tenant" in message:
        execute(empty_database_url, "DELETE FROM public.oban_jobs")
    for statement in change.split("; "):
        execute(empty_database_url, statement)
    with pytest.raises(DatabaseError, match=message):
        upgrade(Database(empty_database_url))


def test_a_role_that_may_not_change_them_learns_whose_they_are(empty_database_url: str) -> None:
    upgrade(Database(empty_database_url))
    execute(empty_database_url, "DROP TABLE public.oban_leaders; DROP INDEX public.flowstone_due")
    execute(
        empty_database_url,
        "DROP ROLE IF EXISTS flowstone_guest; CREATE ROLE flowstone_guest; GRANT ALL ON ALL TABLES IN SCHEMA "
        "public TO flowstone_guest; GRANT USAGE ON SCHEMA public TO flowstone_guest",
    )
    try:
        with Database(empty_database_url) as database, database.dedicated() as connection:
            connection.execute("SET ROLE flowstone_guest")
            with pytest.raises(DatabaseError, match=r"the table oban_leaders.*may not add.*db upgrade"):
                oban_jobs.install(connection, schema="public")
    finally:
        execute(empty_database_url, "DROP OWNED BY flowstone_guest; DROP ROLE flowstone_guest")


def test_a_role_without_rights_learns_what_to_grant(empty_database_url: str) -> None:
    upgrade(Database(empty_database_url))
    execute(empty_database_url, 'DROP ROLE IF EXISTS "odd guest"; CREATE ROLE "odd guest"')
    execute(empty_database_url, 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "odd guest"')
    options = empty_database_url + "&options=-c%20role%3Dodd%5C%20guest"
    try:
        with Database(options) as database:
            (message,) = oban_jobs.problems(database)
        grant = 'GRANT DELETE, INSERT, UPDATE ON {} TO "odd guest"'
        assert message.endswith(f"{grant.format('oban_jobs')}; {grant.format('oban_producers')}")
    finally:
        execute(empty_database_url, 'DROP OWNED BY "odd guest"; DROP ROLE "odd guest"')


def test_without_them_people_are_notified_and_nothing_ends_with_a_traceback(
    empty_database_url: str, tmp_path: Path
) -> None:
    """Work in this process goes on, and `why` answers; what needs the queue says what is missing."""

    @asset
    def one() -> int:
        return 1

    upgrade(Database(empty_database_url))
    execute(empty_database_url, "DROP TABLE public.oban_producers")
    with FlowStone([one], settings=Settings(database_url=empty_database_url, storage=str(tmp_path))) as flow:
        assert flow.materialize("one").value == 1
        assert flow.why("one") == ["it is over: completed"]
        missing = "the table oban_producers is missing"
        for call in (flow.queues.list, lambda: flow.queues.pause("assets"), lambda: serve(flow)):
            with pytest.raises(ExecutorUnavailableError, match=missing):
                call()
        with pytest.raises(ExecutorUnavailableError, match=missing):
            flow.materialize("one", executor="oban", force=True)


def test_the_statements_of_the_package_have_what_is_left_out() -> None:
    from oban.schema import install_sql

    assert len(oban_jobs._STORAGE.findall(install_sql())) == 1
    assert len(oban_jobs._FUNCTION.findall(install_sql())) == 1
