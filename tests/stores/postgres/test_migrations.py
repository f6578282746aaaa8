from __future__ import annotations

import threading
from dataclasses import replace
from uuid import uuid4

import pytest

from flowstone.core.project import Project
from flowstone.errors import DatabaseError, MigrationChangedError, SchemaVersionError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.migrations import (
    Migration,
    MigrationState,
    known_migrations,
    require_current,
    status,
    upgrade,
)
from flowstone.stores.postgres.store import upgrade as install

pytestmark = pytest.mark.both_servers

FIRST = known_migrations()[0]
SECOND = Migration(
    2, "0002_second", "CREATE TABLE flowstone.second (n int); CREATE TABLE flowstone.third (n int);"
)


@pytest.fixture
def empty(empty_database_url):
    with Database(empty_database_url) as database:
        yield database


def tables(database: Database) -> set[str]:
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text = 'flowstone' AND relkind = 'r'"
        )
        return {row[0] for row in rows}


def test_files_are_numbered_without_gaps():
    assert [migration.version for migration in known_migrations()] == list(range(1, len(known_migrations()) + 1))


def test_checksum_does_not_depend_on_line_endings():
    assert replace(FIRST, text=FIRST.text.replace("\n", "\r\n")).checksum == FIRST.checksum


def test_upgrade_applies_everything_once(empty):
    names = [migration.name for migration in known_migrations()]
    assert [entry.state for entry in status(empty)] == [MigrationState.PENDING] * len(names)
    assert upgrade(empty) == names
    assert upgrade(empty) == []
    require_current(empty)
    assert [entry.state for entry in status(empty)] == [MigrationState.APPLIED] * len(names)
    assert all(entry.applied_at is not None for entry in status(empty))


def test_the_template_is_current(database):
    require_current(database)


def test_schema_prepared_by_an_administrator_is_used(empty):
    with empty.connection() as connection:
        connection.execute("CREATE SCHEMA flowstone")
    assert upgrade(empty, migrations=[FIRST]) == [FIRST.name]


def test_missing_tables_are_notified_with_the_remedy(empty):
    with pytest.raises(SchemaVersionError, match=r"no FlowStone tables yet.*flowstone db upgrade"):
        require_current(empty)


def test_older_tables_are_notified_with_the_remedy(empty):
    upgrade(empty, migrations=[FIRST])
    with pytest.raises(SchemaVersionError, match=r"older.*0002_second.*flowstone db upgrade"):
        require_current(empty, migrations=[FIRST, SECOND])
    assert upgrade(empty, migrations=[FIRST, SECOND]) == ["0002_second"]
    assert tables(empty) == {"migrations", "second", "third"}


def test_newer_tables_are_refused_by_both(empty):
    upgrade(empty, migrations=[FIRST, SECOND])
    for refuse in (require_current, upgrade):
        with pytest.raises(SchemaVersionError, match=r"newer.*0002_second.*Install the version"):
            refuse(empty, migrations=[FIRST])


def test_changed_migration_is_refused_by_both(empty):
    upgrade(empty, migrations=[FIRST, SECOND])
    changed = replace(SECOND, text=SECOND.text + " -- harmless")
    for refuse in (require_current, upgrade):
        with pytest.raises(MigrationChangedError, match="0002_second") as caught:
            refuse(empty, migrations=[FIRST, changed])
        assert SECOND.checksum in str(caught.value)
        assert changed.checksum in str(caught.value)


def test_failing_migration_leaves_nothing_and_keeps_the_earlier_ones(empty):
    broken = replace(SECOND, text="CREATE TABLE flowstone.half (n int); SELECT 1 / 0;")
    with pytest.raises(DatabaseError, match=r"0002_second could not be applied.*division by zero"):
        upgrade(empty, migrations=[FIRST, broken])
    assert tables(empty) == {"migrations"}
    assert upgrade(empty, migrations=[FIRST, SECOND]) == ["0002_second"]


def test_also_runs_on_every_upgrade(empty):
    def also(connection):
        connection.execute("CREATE TABLE IF NOT EXISTS public.transport (n int)")
        connection.execute("INSERT INTO public.transport VALUES (1)")

    def broken(connection):
        with connection.transaction():
            also(connection)
            connection.execute("SELECT 1 / 0")

    upgrade(empty, also=also)
    assert upgrade(empty, also=also) == []
    with pytest.raises(DatabaseError, match="Other tables"):
        upgrade(empty, also=broken)
    with empty.connection() as connection:
        assert connection.execute("SELECT count(*) FROM public.transport").fetchone() == (2,)


def test_two_migrators_at_once(empty_database_url):
    slow = Migration(2, "0002_slow", "SELECT pg_sleep(0.2); CREATE TABLE flowstone.slow (n int);")
    barrier = threading.Barrier(4)
    applied: list[list[str]] = []

    def migrate() -> None:
        with Database(empty_database_url) as database:
            barrier.wait()
            applied.append(upgrade(database, migrations=[FIRST, slow]))

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [[], [], [], [FIRST.name, "0002_slow"]]


def test_a_project_needs_no_rights_on_public(empty_database_url):
    role = f"limited_{uuid4().hex}"
    with Database(empty_database_url).dedicated() as connection:
        connection.execute(f"CREATE ROLE {role}")
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        connection.execute(f"CREATE SCHEMA flowstone_shop AUTHORIZATION {role}")
    try:
        limited = f"{empty_database_url}&options=-c%20role%3D{role}"
        names = [one.name for one in known_migrations()]
        assert install(Database(limited, project=Project("shop"))) == [*names, "Oban: its tables"]
        with Database(empty_database_url).dedicated() as connection:
            made = connection.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = %s", [role])
            assert made.fetchall() == [("flowstone_shop",)]
    finally:
        with Database(empty_database_url).dedicated() as connection:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
