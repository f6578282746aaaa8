"""Publishing in PostgreSQL: in the committing transaction, or noted there and done right after it.

`committed`, `restored` and `Retracted` are called inside the transactions that change which version is in use, and
only when an IO manager of the app publishes. What lies in the app's own database is replaced there and then; the
rest is noted in `unpublished` by the same transaction, and stays there until it is visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.outcome import Succeeded
from flowstone.core.output import Publication, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, Target
from flowstone.core.version import Repointed
from flowstone.protocols import PublicationStore, Publisher
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import MovedStep
from flowstone.stores.postgres.sql import fetch_all, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class _Drawn(NamedTuple):
    """A token, and the store that drew it."""

    token: int
    issuer: str


class Change(NamedTuple):
    """A version that is in use now, or is no more."""

    asset: str
    partition_key: PartitionKey
    stored: StoredOutput
    step_id: int


class PostgresPublications(PublicationStore):
    """Implements `flowstone.protocols.PublicationStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._issuer: str | None = None

    def issuer(self) -> str:
        if self._issuer is None:
            with self._database.connection() as connection:
                self._issuer = fetch_value(connection, str, "publications/issuer") or ""
        return self._issuer

    def pending(
        self, targets: Sequence[Target] | None = None, *, limit: int = 100, after: int = 0
    ) -> list[Publication]:
        chosen = _of(targets) if targets is not None else {"assets": None, "partitions": None}
        parameters = chosen | {"limit": limit, "after": after}
        with self._database.connection() as connection:
            return fetch_all(connection, Publication, "publications/pending", parameters)

    def done(self, publication: Publication) -> None:
        parameters = {
            "asset": publication.asset,
            "partition": publication.partition_key,
            "token": publication.token,
        }
        with self._database.connection() as connection:
            connection.execute(load_sql("publications/done"), parameters)


def committed(
    connection: Connection[TupleRow],
    publisher: Publisher,
    completions: Sequence[AttemptResult],
    moved: Sequence[MovedStep],
) -> None:
    """Publish what attempts committed; those that were refused are not among the moved steps.

    Args:
        connection: with the transaction that commits them.
        publisher: publishes.
        completions: the ends of attempts.
        moved: the steps that moved by them.
    """
    done = {step.id for step in moved if step.state is State.COMPLETED}
    found = [
        Change(one.attempt.asset, one.attempt.partition_key, one.outcome.stored, one.attempt.step_id)
        for one in completions
        if isinstance(one.outcome, Succeeded)
        and one.attempt.step_id in done
        and publisher.concerns(one.outcome.stored)
    ]
    _publish(connection, publisher, found, [])


def restored(connection: Connection[TupleRow], publisher: Publisher, changed: Sequence[Repointed]) -> list[Target]:
    """Publish versions that were put in use again, and that there is none where that is so; return the targets."""
    steps = [one.step_id for one in changed if one.step_id is not None]
    before = [one.before for one in changed if one.before is not None]
    found = fetch_all(connection, Change, "publications/of_steps", {"steps": [*steps, *before]})
    of_step = {one.step_id: one for one in found if publisher.concerns(one.stored)}
    shown = [of_step[step] for step in steps if step in of_step]
    gone = [of_step[one.before] for one in changed if one.before in of_step and one.step_id not in of_step]
    _publish(connection, publisher, shown, gone)
    return [(one.asset, one.partition_key) for one in (*shown, *gone)]


def in_use(connection: Connection[TupleRow], publisher: Publisher, targets: Sequence[Target]) -> list[Change]:
    """Return which versions of targets others see; the caller is about to take them out of use."""
    found = fetch_all(connection, Change, "publications/in_use", _of(targets))
    return [one for one in found if publisher.concerns(one.stored)]


def retracted(connection: Connection[TupleRow], publisher: Publisher, gone: Sequence[Change]) -> None:
    """Publish that there is no version of some targets any more."""
    _publish(connection, publisher, [], gone)


def _publish(
    connection: Connection[TupleRow], publisher: Publisher, shown: Sequence[Change], gone: Sequence[Change]
) -> None:
    changes = [(one, True) for one in shown] + [(one, False) for one in gone]
    if not changes:
        return
    changes.sort(key=lambda one: one[0][:2])  # whoever publishes several locks them in this order
    drawn = fetch_all(connection, _Drawn, "publications/draw", {"number": len(changes)})
    found = [
        Publication(one.asset, one.partition_key, by.token, by.issuer, one.stored, is_in_use)
        for (one, is_in_use), by in zip(changes, drawn, strict=True)
    ]
    later = {one.token for one in publisher.within(found, connection)}
    noted = [
        (one, publication)
        for (one, _), publication in zip(changes, found, strict=True)
        if publication.token in later
    ]
    if noted:
        parameters = _of([(one.asset, one.partition_key) for one, _ in noted]) | {
            "steps": [one.step_id for one, _ in noted],
            "tokens": [publication.token for _, publication in noted],
            "in_use": [publication.in_use for _, publication in noted],
        }
        connection.execute(load_sql("publications/note"), parameters)


def _of(targets: Sequence[Target]) -> dict[str, object]:
    """Return the parameters that name targets."""
    return {"assets": [asset for asset, _ in targets], "partitions": [key for _, key in targets]}
