from __future__ import annotations

import os
import signal
import threading
import time

import psycopg
import pytest

from flowstone import FlowStone, Settings, asset
from flowstone.errors import DatabaseError, DatabaseUnavailableError, SchemaVersionError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.embedded.cluster import FileLock
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
from flowstone.testing.postgres import UNSAFE_BUT_FAST, remove_server

# Port 9 answers nobody on a test machine; a connection to it is refused at once.
NOBODY = "postgresql://ann:hunter2@127.0.0.1:9/data"


def terminate_others(database: Database) -> None:
    with database.dedicated() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_nothing_is_opened_before_the_first_use():
    database = Database(NOBODY)
    assert repr(database) == "Database('postgresql://ann:***@127.0.0.1:9/data')"
    database.close()


def test_an_absent_server_learns_soon_and_without_the_password(caplog):
    started = time.monotonic()
    with Database(NOBODY) as database, pytest.raises(DatabaseUnavailableError) as caught, database.connection():
        pass
    assert time.monotonic() - started < 15
    assert caught.value.target == "postgresql://ann:***@127.0.0.1:9/data"
    assert "refused" in str(caught.value)
    assert "hunter2" not in str(caught.value) + caplog.text


def test_a_missing_database_is_reported(database_url):
    missing = database_url.replace("/test_", "/gone_")
    with Database(missing) as database, pytest.raises(DatabaseUnavailableError, match="does not exist"):
        database.ping()


def test_sessions_are_named_autocommitting_and_in_utc(database_url):
    with Database(database_url, application_name="the test") as database, database.connection() as connection:
        assert connection.autocommit
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)
        assert connection.execute("SHOW application_name").fetchone() == ("the test",)


def test_what_the_dsn_says_wins(database_url):
    dsn = f"{database_url}&application_name=theirs&options=-c%20work_mem%3D5MB"
    with Database(dsn, application_name="ours") as database, database.connection() as connection:
        assert connection.execute("SHOW application_name").fetchone() == ("theirs",)
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)


def test_a_transaction_is_all_or_nothing(database):
    with database.transaction() as connection:
        connection.execute("CREATE TABLE kept (n int)")
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:  # noqa: PT012
        connection.execute("CREATE TABLE gone (n int)")
        raise ZeroDivisionError
    with database.connection() as connection:
        row = connection.execute("SELECT to_regclass('kept') IS NULL, to_regclass('gone') IS NULL").fetchone()
    assert row == (False, True)


def test_pooled_connections_that_died_are_replaced_unseen(database):
    with database.connection() as first:
        before = first.info.backend_pid
    terminate_others(database)
    with database.connection() as second:
        assert second.execute("SELECT pg_backend_pid()").fetchone() != (before,)


def test_a_connection_lost_in_use_learns_as_unavailable(database):
    with pytest.raises(DatabaseUnavailableError, match="terminating"), database.connection() as c:  # noqa: PT012
        terminate_others(database)
        c.execute("SELECT 1")
    with database.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_other_errors_of_the_server_pass_through(database):
    import psycopg

    with pytest.raises(psycopg.errors.LockNotAvailable), database.transaction() as one:  # noqa: PT012
        one.execute("CREATE TABLE t (n int)")
        one.execute("SELECT pg_advisory_xact_lock(1)")
        with database.transaction() as two:
            two.execute("SET LOCAL lock_timeout = '10ms'")
            two.execute("SELECT pg_advisory_xact_lock(1)")


@pytest.mark.parametrize("query", ["SELECT asked FROM flowstone.steps", "SELECT 1 FROM flowstone.not_there"])
def test_tables_that_were_upgraded_meanwhile_say_what_to_do(database, query):
    refused = pytest.raises(SchemaVersionError, match=r"do not fit this version.*start it again")
    with refused, database.connection() as one:
        one.execute(query)


def test_a_busy_pool_is_not_an_absent_server(database_url, monkeypatch):
    monkeypatch.setattr("flowstone.stores.postgres.database._BUSY_SECONDS", 0.1)
    with (
        Database(database_url, max_size=1, connect_timeout_seconds=0.1) as database,
        database.connection(),
        pytest.raises(DatabaseError, match="All 1 connections") as caught,
        database.connection(),
    ):
        pass
    assert not isinstance(caught.value, DatabaseUnavailableError)


def test_a_closed_database_says_so(database):
    database.ping()
    database.close()
    database.close()
    with pytest.raises(DatabaseError, match="closed by this program"), database.connection():
        pass


def test_many_threads_open_one_pool(database_url):
    with Database(database_url, max_size=4) as database:
        results: list[object] = []

        def ask() -> None:
            with database.connection() as connection:
                results.append(connection.execute("SELECT 1").fetchone())

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [(1,)] * 16


def test_a_server_that_stays_away_is_logged_by_nobody_but_the_caller(tmp_path, caplog):
    embedded = EmbeddedPostgres(tmp_path / "server", settings=UNSAFE_BUT_FAST)
    try:
        with embedded as dsn, Database(dsn, connect_timeout_seconds=0.5) as database:
            database.ping()
            with database.connection():
                pass
            kill_server(embedded)
            for _ in range(2):
                with pytest.raises(DatabaseUnavailableError), database.connection():
                    pass
            assert "error connecting" not in caplog.text
            embedded.start()
            with database.connection() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        remove_server(tmp_path / "server")


def kill_server(embedded: EmbeddedPostgres) -> None:
    pid = embedded.server_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    alive = FileLock(embedded.directory / "server.lock")
    assert alive.wait_exclusive(timeout_seconds=30)  # its backends live a moment longer
    alive.close()


def test_the_id_of_a_step_compares_with_numbers_and_with_texts(database_url: str) -> None:
    """As in a user's own SQL: the column of a table, and the args of an Oban job."""
    flow = FlowStone([asset(name="one")(lambda: 1)], settings=Settings(database_url=database_url, executor="sync"))
    with flow, psycopg.connect(database_url) as connection:
        job = flow.schedule("one")
        query = "SELECT asset FROM flowstone.steps WHERE id = %s AND id::text = %s AND id = ANY(%s)"
        assert connection.execute(query, [job.id, job.id, [job.id]]).fetchall() == [("one",)]
        assert (job.id, type(flow.runs.step(job).id)) == (flow.runs.step(job).id, int)
