"""Rules of notifications that several processes declare, and what only PostgreSQL can show of deciding."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowstone.core.notification import NotifyEvent, NotifyRule
from flowstone.stores.postgres.notifications import PostgresNotifications
from flowstone.stores.postgres.store import CheckedDatabase

FAILED = frozenset({NotifyEvent.FAILED})


def rule(name: str, **more: object) -> NotifyRule:
    return NotifyRule(name=name, events=FAILED, **more)  # type: ignore[arg-type]


@pytest.fixture
def first(database_url: str) -> Iterator[PostgresNotifications]:
    with CheckedDatabase(database_url) as database:
        yield PostgresNotifications(database)


@pytest.fixture
def second(database_url: str) -> Iterator[PostgresNotifications]:
    with CheckedDatabase(database_url) as database:
        yield PostgresNotifications(database)


def names(store: PostgresNotifications) -> list[str]:
    with store._database.connection() as connection:
        rows = connection.execute("SELECT name FROM flowstone.notify_rules ORDER BY 1").fetchall()
    return [row[0] for row in rows]


def declared_before(store: PostgresNotifications, age: str) -> None:
    with store._database.connection() as connection:
        connection.execute(
            "UPDATE flowstone.notify_rules SET declared_at = clock_timestamp() - %s::interval", [age]
        )


def test_a_rule_about_everything_that_was_renamed_decides_nothing_for_good(
    first: PostgresNotifications, second: PostgresNotifications
) -> None:
    """Which app it was of is not known: it goes when no process has declared it for long enough."""
    first.watch([rule("all")])
    first.declare(["a"])
    second.watch([rule("everything")])
    second.declare(["a"])
    assert names(second) == ["all", "everything"]
    declared_before(second, "8 days")
    second.keep_rules(for_seconds=7 * 86_400.0)
    assert names(second) == ["everything"]


def test_a_process_that_lives_keeps_its_rules(first: PostgresNotifications, second: PostgresNotifications) -> None:
    first.watch([rule("all")])
    first.declare(["a"])
    declared_before(first, "6 days")
    first.keep_rules(for_seconds=7 * 86_400.0)
    second.watch([rule("everything")])
    second.keep_rules(for_seconds=86_400.0)
    assert names(second) == ["all"]


def test_what_waits_for_a_rule_of_another_process_is_not_given_up(
    first: PostgresNotifications, second: PostgresNotifications
) -> None:
    first.watch([rule("all")])
    first.declare(["a"])
    with first._database.connection() as connection:
        connection.execute(
            "INSERT INTO flowstone.notifications (rule, key, counts, notices, due_at, claim_after) "
            "VALUES ('all', 'late', '{}', '[]', '2000-01-01', '2000-01-01')"
        )
    assert second.keep_rules(for_seconds=86_400.0) == []
    declared_before(first, "2 days")
    assert [one.rule for one in second.keep_rules(for_seconds=86_400.0)] == ["all"]


def late_runs(store: PostgresNotifications, number: int) -> None:
    """Record runs that have gone on for a day; the last of them is of the asset `a`."""
    with store._database.connection() as connection:
        connection.execute(
            "INSERT INTO flowstone.runs (id, kind, selection, assets, executor, durable, priority, created_at, "
            "total_steps, open_steps, deps_timeout_seconds) "
            "SELECT 'r' || n, 'backfill', 'x', ARRAY[CASE n WHEN %(number)s THEN 'a' ELSE 'b' END], "
            "'oban', true, 4, clock_timestamp() - interval '1 day' + make_interval(secs => n), 1, 1, 60 "
            "FROM generate_series(1, %(number)s) AS n",
            {"number": number},
        )


def test_runs_of_others_hide_no_run_that_takes_too_long(first: PostgresNotifications) -> None:
    """However many there are that the rule is not about."""
    first.watch([rule("ops", deadline_seconds=60.0, assets=frozenset({"a"}))])
    late_runs(first, 1200)
    assert first.overdue() == 1
    (one,) = first.newest()
    assert [notice.subject for notice in one.notices] == ["r1200"]


def test_what_time_decides_is_decided_by_one_process(
    first: PostgresNotifications, second: PostgresNotifications
) -> None:
    """airflow#19500, airflow#50481, airflow#21072: a mail from each scheduler, and again in each of its rounds."""
    for store in (first, second):
        store.watch([NotifyRule(name="ops", events=frozenset(NotifyEvent), deadline_seconds=60.0)])
    late_runs(first, 50)
    with ThreadPoolExecutor(1) as pool:
        with first._database.transaction() as connection:
            assert first._overdue(connection) == 50
            assert first._set_late(connection, {"a": "old"}, {}) == ["a"]
            # it neither decides the same nor waits for the other
            meanwhile = pool.submit(lambda: (second.overdue(), second.set_late({"a": "old"}, {})))
            assert meanwhile.result(timeout=20) == (0, [])
        assert (second.overdue(), second.set_late({"a": "old"}, {})) == (0, [])
    counts = [one.counts for one in first.newest()]
    assert (counts.count({"deadline": 1}), counts.count({"late": 1}), len(counts)) == (50, 1, 51)
