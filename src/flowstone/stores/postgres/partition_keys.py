"""The keys of dynamic partitions in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from flowstone.core.automation.record import PartitionChange
from flowstone.core.clean import clean_text
from flowstone.core.partitions import KeyChange, KeyState
from flowstone.protocols import PartitionKeys
from flowstone.sql import load_sql
from flowstone.stores.audit import of_keys
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_column

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_MAX_NOTE = 1000
_DONE = ("added", "removed")


class PostgresPartitionKeys(PartitionKeys):
    """Implements `flowstone.protocols.PartitionKeys` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def keys(self, name: str) -> list[str]:
        with self._database.connection() as connection:
            return fetch_column(connection, str, "partition_keys/keys", {"name": name})

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        parameters = {"name": name, "after": after}
        with self._database.connection() as connection:
            return fetch_all(connection, KeyState, "partition_keys/changed", parameters)

    def add(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        return self._change(name, keys, remove=False, by=by, reason=reason)

    def remove(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        return self._change(name, keys, remove=True, by=by, reason=reason)

    def history(self, name: str, key: str | None = None, *, limit: int = 100) -> list[KeyChange]:
        parameters = {"name": name, "key": key, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, KeyChange, "partition_keys/history", parameters)

    def _change(
        self, name: str, keys: Sequence[str], *, remove: bool, by: str | None, reason: str | None
    ) -> list[str]:
        changes = [PartitionChange(name, key, remove) for key in keys]
        with self._database.transaction() as connection:
            changed = [change.key for change in apply_changes(connection, changes, by=by, reason=reason)]
            if changed:
                details = of_keys(changed, reason)
                note(connection, f"partitions.{_DONE[remove]}", f"partitions:{name}", details, by=by)
            return changed


def apply_changes(
    connection: Connection[TupleRow],
    changes: Sequence[PartitionChange],
    *,
    by: str | None = None,
    reason: str | None = None,
) -> list[PartitionChange]:
    """Add and remove keys within a transaction, in this order.

    The definitions are locked until the transaction ends; other changes of them wait for it, readers do not.

    Args:
        connection: with a transaction open.
        changes: what to change; keys are encoded.
        by: who does it, for the history.
        reason: why, for the history.

    Returns:
        Those that changed something.
    """
    if not changes:
        return []
    names = {"names": list({change.definition for change in changes})}
    connection.execute(load_sql("partition_keys/lock"), names)
    notes = {"by": _note(by), "reason": _note(reason)}
    done: list[PartitionChange] = []
    for (name, remove), group in groupby(changes, key=lambda change: (change.definition, change.remove)):
        parameters = {"name": name, "keys": [change.key for change in group], **notes}
        if remove:
            changed = fetch_column(connection, str, "partition_keys/remove", parameters)
        else:
            changed = fetch_column(connection, str, "partition_keys/add", parameters)
        done += [PartitionChange(name, key, remove) for key in changed]
    return done


def _note(text: str | None) -> str | None:
    return None if text is None else clean_text(text, limit=_MAX_NOTE)
