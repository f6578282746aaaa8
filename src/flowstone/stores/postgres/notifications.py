"""Notifications in PostgreSQL: claimed by whoever can send them; and what only time decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.clean import clean_text
from flowstone.core.notification import (
    MAX_TEXT,
    UNDECLARED,
    Notice,
    Notification,
    NotificationState,
    NotifyEvent,
    NotifyRule,
)
from flowstone.protocols import NotificationStore
from flowstone.sql import load_sql
from flowstone.stores.audit import of_given_up
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.database import Database, in_transaction
from flowstone.stores.postgres.outbox import Group, RunRow, Watch, write
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresNotifications(NotificationStore):
    """Implements `flowstone.protocols.NotificationStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def watch(self, rules: Sequence[NotifyRule]) -> None:
        self._database.watch = Watch(rules)

    def declare(self, assets: Sequence[str]) -> None:
        rows = [
            {
                "name": one.name,
                "events": sorted(one.events),
                "assets": None if one.assets is None else sorted(one.assets),
                "automations": None if one.automations is None else sorted(one.automations),
                "wait_seconds": one.wait_seconds,
                "deadline_seconds": one.deadline_seconds,
            }
            for one in self._database.watch.own
        ]
        parameters = {"rules": to_json(rows), "assets": list(assets)}
        in_transaction(
            self._database, lambda connection: connection.execute(load_sql("notifications/declare"), parameters)
        )

    def rules(self) -> list[NotifyRule]:
        with self._database.connection() as connection:
            return list(self._database.watch.rules(connection))

    @property
    def has_pending(self) -> bool:
        return self._database.watch.decided

    def pending(self, rules: Sequence[str]) -> int:
        with self._database.connection() as connection:
            found = fetch_value(connection, int, "notifications/pending", {"rules": list(rules)}) or 0
        self._database.watch.decided = bool(found)
        return found

    def due(self, rules: Sequence[str]) -> list[str]:
        if not rules:
            return []
        with self._database.connection() as connection:
            return fetch_column(connection, str, "notifications/due", {"rules": list(rules)})

    def claim(self, rules: Sequence[str], *, lease_seconds: float, limit: int = 10) -> list[Notification]:
        if not rules:
            return []
        parameters = {"rules": list(rules), "lease_seconds": lease_seconds, "limit": limit}
        with self._database.transaction() as connection:
            claimed = fetch_all(connection, Notification, "notifications/claim", parameters)
        return sorted(claimed, key=lambda one: one.id)

    def renew(self, notifications: Sequence[Notification], *, lease_seconds: float) -> None:
        ordered = sorted(notifications, key=lambda one: one.id)
        held = {"ids": [one.id for one in ordered], "tokens": [one.token for one in ordered]}
        self._execute("renew", held | {"lease_seconds": lease_seconds})

    def acknowledge(self, notification: Notification) -> None:
        self._execute("acknowledge", _held(notification))

    def release(self, notification: Notification, *, error: str, retry_in_seconds: float) -> None:
        more = {"error": clean_text(error, limit=MAX_TEXT), "retry_in_seconds": retry_in_seconds}
        self._execute("release", _held(notification) | more)

    def give_up(self, notification: Notification, *, error: str) -> None:
        text = clean_text(error, limit=MAX_TEXT)
        with self._database.transaction() as connection:
            parameters = _held(notification) | {"error": text}
            if fetch_value(connection, int, "notifications/give_up", parameters) is not None:
                note(connection, *of_given_up(notification, text))

    def newest(self, *, state: NotificationState | None = None, limit: int = 100) -> list[Notification]:
        with self._database.connection() as connection:
            return fetch_all(connection, Notification, "notifications/newest", {"state": state, "limit": limit})

    def get(self, notification_id: int) -> Notification | None:
        with self._database.connection() as connection:
            return fetch_one(connection, Notification, "notifications/get", {"id": notification_id})

    def retry(self, notification_ids: Sequence[int]) -> list[int]:
        with self._database.transaction() as connection:
            again = fetch_column(connection, int, "notifications/retry", {"ids": list(notification_ids)})
            for one in again:
                note(connection, "notification.retried", f"notification:{one}")
        self._database.watch.decided = True
        return sorted(again)

    def counts(self) -> dict[NotificationState, int]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _CountRow, "notifications/counts")
        return {row.state: row.number for row in rows}

    def newest_commits(self, assets: Sequence[str]) -> dict[str, datetime]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _SinceRow, "notifications/newest_commits", {"assets": sorted(assets)})
        return {row.asset: row.at for row in rows}

    def seen_since(self, assets: Sequence[str], *, note: bool = True) -> dict[str, datetime]:
        parameters = {"assets": sorted(assets)}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _SinceRow, "notifications/seen", parameters)
            if note and len(rows) < len(parameters["assets"]):
                connection.execute(load_sql("notifications/see"), parameters)
                rows = fetch_all(connection, _SinceRow, "notifications/seen", parameters)
        return {row.asset: row.at for row in rows}

    def set_late(self, late: Mapping[str, str], fresh: Mapping[str, str]) -> list[str]:
        return in_transaction(self._database, lambda connection: self._set_late(connection, late, fresh))

    def overdue(self) -> int:
        if not any(one.deadline_seconds for one in self._database.watch.own):
            return 0
        return in_transaction(self._database, self._overdue)

    def keep_rules(self, *, for_seconds: float) -> list[Notification]:
        parameters = {
            "own": [one.name for one in self._database.watch.own],
            "seconds": for_seconds,
            "error": UNDECLARED,
        }
        with self._database.transaction() as connection:
            connection.execute(load_sql("notifications/renew_rules"), parameters)
            connection.execute(load_sql("notifications/forget_rules"), parameters)
            abandoned = fetch_all(connection, Notification, "notifications/abandon", parameters)
            for one in abandoned:
                note(connection, *of_given_up(one, UNDECLARED))
        return sorted(abandoned, key=lambda one: one.id)

    def prune(self, *, older_than_seconds: float) -> int:
        parameters = {"older_than_seconds": older_than_seconds}
        with self._database.transaction() as connection:
            return connection.execute(load_sql("notifications/prune"), parameters).rowcount

    def _execute(self, statement: str, parameters: Mapping[str, object]) -> None:
        with self._database.connection() as connection:
            connection.execute(load_sql(f"notifications/{statement}"), parameters)

    def _alone(self, connection: Connection[TupleRow]) -> bool:
        """Whether no other process of the project decides by the time at this moment."""
        named = {"name": f"flowstone.{self._database.project.name}"}
        return bool(fetch_value(connection, bool, "notifications/lock", named))

    def _set_late(
        self, connection: Connection[TupleRow], late: Mapping[str, str], fresh: Mapping[str, str]
    ) -> list[str]:
        if not self._alone(connection):
            return []
        known = set(fetch_column(connection, str, "notifications/late", {"assets": [*late, *fresh]}))
        became = sorted(late.keys() - known)
        over = sorted(fresh.keys() & known)
        self._write_lateness(connection, NotifyEvent.LATE, {one: late[one] for one in became})
        self._write_lateness(connection, NotifyEvent.RECOVERED, {one: fresh[one] for one in over})
        for statement, assets in (("notifications/mark", became), ("notifications/clear", over)):
            if assets:
                empty = [""] * len(assets)
                marks = {"subjects": assets, "partitions": empty, "details": empty}
                connection.execute(load_sql(statement), {"kinds": ["late"] * len(assets), **marks})
        return became

    def _write_lateness(
        self, connection: Connection[TupleRow], event: NotifyEvent, texts: Mapping[str, str]
    ) -> None:
        if not texts:
            return
        now, watch = datetime.now(UTC), self._database.watch
        groups = []
        for rule in watch.rules(connection):
            notices = [Notice(event, one, now, text=text) for one, text in texts.items() if rule.wants(event, one)]
            if notices:  # one message for all that became late together
                groups.append(Group(rule, event.value, None, notices))
        write(connection, watch, groups)

    def _overdue(self, connection: Connection[TupleRow]) -> int:
        if not self._alone(connection):
            return 0
        found = 0
        now, watch = datetime.now(UTC), self._database.watch
        for rule in watch.own:
            if rule.deadline_seconds is None:
                continue
            assets = None if rule.assets is None else sorted(rule.assets)
            parameters = {"rule": rule.name, "seconds": rule.deadline_seconds, "assets": assets}
            runs = fetch_all(connection, RunRow, "notifications/overdue", parameters)
            groups = [_overdue(rule, run, now) for run in runs]
            write(connection, watch, groups)
            found += len(groups)
        return found


def _overdue(rule: NotifyRule, run: RunRow, now: datetime) -> Group:
    text = f"{run.shown} takes longer than {rule.deadline_seconds:g} s"
    notice = Notice(NotifyEvent.DEADLINE, run.run_id, now, text=text, run_id=run.run_id)
    return Group(rule, f"deadline:{run.run_id}", run.run_id, [notice], waits=False)


class _CountRow(NamedTuple):
    """How many notifications are in a state."""

    state: NotificationState
    number: int


class _SinceRow(NamedTuple):
    """A time in the life of an asset."""

    asset: str
    at: datetime


def _held(notification: Notification) -> dict[str, object]:
    return {"id": notification.id, "token": notification.token}
