"""Versions in PostgreSQL: listed, which one was when, restored, erased.

A restore locks the versions against pruning, then the pointers in the order in which commits lock them, and only
then checks whether a target is under way: a commit that is at work meanwhile waits for the pointer, is seen as
active, and comes later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.clean import clean_text
from flowstone.core.partitions import PartitionKey
from flowstone.core.step import Target
from flowstone.core.version import (
    ActiveTarget,
    CommittedAt,
    ErasableValue,
    EraseCounts,
    OutputChange,
    PublishedVersion,
    Repointed,
    RestoreVersion,
    RunVersion,
    VersionAt,
    VersionRecord,
    which_at,
)
from flowstone.protocols import Publisher
from flowstone.protocols.versions import VersionStore
from flowstone.sql import load_sql
from flowstone.stores.audit import new_line, of_targets
from flowstone.stores.postgres import publications
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.database import Database, in_transaction
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value
from flowstone.stores.versions import (
    MAX_REASON,
    LockedVersion,
    before_commits,
    check_restore,
    erased_line,
    refuse_active,
    restored_line,
)

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_PAGE = 5_000
_FEW_PARTITIONS = 200
"""Of an asset with more, the newest versions are those in use."""


class _VersionRow(NamedTuple):
    """A version and when it was committed, or put in use."""

    asset: str
    partition_key: PartitionKey
    step_id: int
    at: datetime

    @property
    def target(self) -> Target:
        """Its target."""
        return self.asset, self.partition_key


class PostgresVersions(VersionStore):
    """Implements `flowstone.protocols.VersionStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.publisher: Publisher | None = None
        """Publishes what is put in use; None as long as no IO manager of the app does."""

    def page(self, target: Target, *, before: int | None = None, limit: int = 100) -> list[VersionRecord]:
        parameters = {"asset": target[0], "partition": target[1], "before": before, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, VersionRecord, "versions/page", parameters)

    def newest(self, asset: str, *, limit: int = 50) -> list[VersionRecord]:
        with self._database.connection() as connection:
            some = {"asset": asset, "after": "", "limit": _FEW_PARTITIONS + 1}
            keys = ["", *fetch_column(connection, str, "versions/partitions", some)]
            if len(keys) > _FEW_PARTITIONS:
                in_use = {"asset": asset, "limit": limit}
                return fetch_all(connection, VersionRecord, "versions/newest_in_use", in_use)
            parameters = {"asset": asset, "partitions": keys, "limit": limit}
            return fetch_all(connection, VersionRecord, "versions/newest", parameters)

    def count(self, target: Target, *, limit: int) -> int:
        parameters = {"asset": target[0], "partition": target[1], "limit": limit}
        with self._database.connection() as connection:
            return fetch_value(connection, int, "versions/count", parameters) or 0

    def get(self, step_ids: Sequence[int]) -> list[VersionRecord]:
        with self._database.connection() as connection:
            return fetch_all(connection, VersionRecord, "versions/get", {"steps": list(step_ids)})

    def changes(self, targets: Sequence[Target]) -> list[OutputChange]:
        with self._database.connection() as connection:
            return fetch_all(connection, OutputChange, "versions/changes", _of(targets))

    def at(self, targets: Sequence[Target], at: datetime) -> dict[Target, VersionAt]:
        commits, changes, current = self._history(targets)
        return {target: which_at(at, commits[target], changes[target], current.get(target)) for target in targets}

    def before(self, versions: Sequence[PublishedVersion]) -> dict[Target, VersionAt]:
        commits, changes, current = self._history([(one.asset, one.partition_key) for one in versions])
        return before_commits(versions, commits, changes, current)

    def of_run(self, target: Target, run_id: str) -> RunVersion | None:
        parameters = {"asset": target[0], "partition": target[1], "run_id": run_id}
        with self._database.connection() as connection:
            return fetch_one(connection, RunVersion, "versions/of_run", parameters)

    def published(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[PublishedVersion]:
        parameters = {"run_id": run_id, "after": after, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, PublishedVersion, "versions/published", parameters)

    def partitions(
        self, asset: str, *, after: PartitionKey | None = None, limit: int = 1000
    ) -> list[PartitionKey]:
        parameters = {"asset": asset, "after": after or "", "limit": limit}
        with self._database.connection() as connection:
            return fetch_column(connection, PartitionKey, "versions/partitions", parameters)

    def active(self, targets: Sequence[Target]) -> list[ActiveTarget]:
        with self._database.connection() as connection:
            return fetch_all(connection, ActiveTarget, "versions/active", _of(targets))

    def restore(
        self,
        versions: Sequence[RestoreVersion],
        *,
        by: str | None = None,
        reason: str | None = None,
        force: bool = False,
        run_id: str | None = None,
    ) -> list[Repointed]:
        def restore(connection: Connection[TupleRow]) -> list[Repointed]:
            targets = [one.target for one in versions]
            steps = {"steps": [one.step_id for one in versions if one.step_id is not None]}
            locked = fetch_all(connection, LockedVersion, "versions/lock_versions", steps)
            rows = fetch_all(connection, _VersionRow, "versions/lock_pointers", _of(targets))
            before = {row.target: CommittedAt(row.step_id, row.at) for row in rows}
            check_restore(versions, {one.step_id: one for one in locked}, before)
            found = [
                Repointed(one.target, before[one.target].step_id if one.target in before else None, one.step_id)
                for one in versions
            ]
            changed = [one for one in found if one.changed]
            if not changed:
                return found
            if not force:
                refuse_active("restored", self._active(connection, [one.target for one in changed]))
            action, subject, details = restored_line(changed, reason, run_id)
            line = new_line(action, subject, details, by=by)
            self._point(connection, changed, before, line.actor, reason)
            note(connection, action, subject, details, by=by)
            if self.publisher is not None:
                publications.restored(connection, self.publisher, changed)
            return found

        found = in_transaction(self._database, restore)
        if self.publisher is not None:
            self.publisher.after([one.target for one in found])
        return found

    def erase_counts(self, targets: Sequence[Target]) -> EraseCounts:
        with self._database.connection() as connection:
            return fetch_one(connection, EraseCounts, "versions/erase_counts", _of(targets)) or EraseCounts()

    def erase(self, targets: Sequence[Target], *, by: str | None = None, reason: str | None = None) -> list[int]:
        def erase(connection: Connection[TupleRow]) -> list[int]:
            connection.execute(load_sql("versions/lock_pointers"), _of(targets))
            refuse_active("erased", self._active(connection, targets))
            counts = fetch_one(connection, EraseCounts, "versions/erase_counts", _of(targets)) or EraseCounts()
            subject, _ = of_targets(targets)
            actor = new_line("versions.erased", subject, by=by).actor
            parameters = _of(targets) | {"actor": actor, "reason": _reason(reason)}
            erased = fetch_column(connection, int, "versions/erase", parameters)
            if erased:
                if self._database.durable:
                    for page in batched(erased, _PAGE):
                        connection.execute(load_sql("versions/erase_jobs"), {"steps": list(page)})
                connection.execute(load_sql("notifications/erase"), {"steps": erased})
                note(connection, *erased_line(targets, counts, reason), by=by)
            return erased

        return in_transaction(self._database, erase)

    def erased_values(
        self, targets: Sequence[Target], *, after: int = 0, limit: int = 1000
    ) -> list[ErasableValue]:
        parameters = _of(targets) | {"after": after, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, ErasableValue, "versions/erased_values", parameters)

    def forget_values(self, step_ids: Sequence[int]) -> int:
        with self._database.transaction() as connection:
            return connection.execute(load_sql("versions/forget_values"), {"steps": list(step_ids)}).rowcount

    def _active(self, connection: Connection[TupleRow], targets: Sequence[Target]) -> list[ActiveTarget]:
        return fetch_all(connection, ActiveTarget, "versions/active", _of(targets))

    def _point(
        self,
        connection: Connection[TupleRow],
        changed: Sequence[Repointed],
        before: Mapping[Target, CommittedAt],
        actor: str,
        reason: str | None,
    ) -> None:
        since = [before[one.target].at if one.target in before else None for one in changed]
        parameters = _of([one.target for one in changed]) | {
            "steps": [one.step_id for one in changed],
            "before": [one.before for one in changed],
            "before_since": since,
            "actor": actor,
            "reason": _reason(reason),
        }
        connection.execute(load_sql("versions/point"), parameters)

    def _history(
        self, targets: Sequence[Target]
    ) -> tuple[
        Mapping[Target, list[CommittedAt]], Mapping[Target, list[OutputChange]], Mapping[Target, CommittedAt]
    ]:
        """Read what `which_at` needs, of one state of the tables."""
        commits: defaultdict[Target, list[CommittedAt]] = defaultdict(list)
        changes: defaultdict[Target, list[OutputChange]] = defaultdict(list)
        with self._database.transaction() as connection:
            # pointers last: a version that is committed in between is in use, and not among the commits
            for row in fetch_all(connection, _VersionRow, "versions/commits", _of(targets)):
                commits[row.target].append(CommittedAt(row.step_id, row.at))
            for change in fetch_all(connection, OutputChange, "versions/changes", _of(targets)):
                changes[change.asset, change.partition_key].append(change)
            pointers = fetch_all(connection, _VersionRow, "versions/pointers", _of(targets))
        return commits, changes, {row.target: CommittedAt(row.step_id, row.at) for row in pointers}


def _of(targets: Sequence[Target]) -> dict[str, object]:
    """Return the parameters that name targets."""
    return {"assets": [asset for asset, _ in targets], "partitions": [key for _, key in targets]}


def _reason(reason: str | None) -> str | None:
    return clean_text(reason, limit=MAX_REASON) if reason else None
