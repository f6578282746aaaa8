"""Values as tables that others select from: what PostgreSQL and DuckDB have in common.

`store` writes the rows of a version beside the table (`flowstone_tables.<table>_<hash>`), where nobody reads them;
`publish` replaces the rows of the partition in the table by those, in one transaction, guarded by the token in
`flowstone_tables.partitions`. `load` reads the rows of the version, so that a step reads what its lineage says,
whatever is visible by then. With `history=False` rows are moved, not copied: then only the visible version can be
loaded.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple, Protocol

from flowstone.core.declaring import is_storable, shown
from flowstone.core.output import MEMORY_ISSUER, OutputAddress, Publication, StoredOutput, type_name, unfenced
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import InProject
from flowstone.errors import ConfigurationError, SerializationError, StorageError
from flowstone.io.encoding import not_ours
from flowstone.io.sql_columns import (
    SqlColumn,
    SqlTable,
    check_typed,
    from_sql,
    require_pyarrow,
    to_sql,
    wider,
)
from flowstone.io.sql_names import (
    BOOKS,
    MAX_NAME_BYTES,
    Place,
    SchemaChanges,
    check_name,
    checked_tables,
    key_text,
    partition_cell,
    quoted,
    statement,
)
from flowstone.protocols import KeepVersions

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger("flowstone.io")

_VERSION = "flowstone_version"
_ROW = "flowstone_row"


class Session(Protocol):
    """One transaction on the database of the tables."""

    def rows(self, text: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement with `?` for parameters; return its rows."""

    def run(self, text: str, *parameters: object) -> int:
        """Run a statement; return how many rows it changed."""

    def script(self, text: str) -> None:
        """Run statements without parameters."""

    def write(self, relation: str, columns: Sequence[SqlColumn], data: pyarrow.Table, version: str) -> None:
        """Add the rows of a version to a table beside."""

    def read(self, columns: Sequence[SqlColumn], source: str, *parameters: object) -> pyarrow.Table:
        """Return columns of what follows `FROM`, in the types of `to_arrow_type`."""


class SqlTableIO(InProject, ABC):
    """What `TableIO` and `DuckDBTableIO` share."""

    extra = "parquet"
    _types: Mapping[str, str]
    _locking: LiteralString = ""
    _rows_columns: LiteralString = ""

    def __init__(
        self,
        *,
        schema: str,
        tables: Mapping[str, str] | None,
        partition_column: str,
        history: bool,
        schema_changes: SchemaChanges,
        name: str,
    ) -> None:
        about = type(self).__name__
        for option, text in (("schema", schema), ("partition_column", partition_column), ("name", name)):
            check_name(f"{about}({option}=...)", text)
        if schema == BOOKS:
            raise ConfigurationError(f"{about}(schema={schema!r}): this schema is taken by the book-keeping.")
        kind: object = schema_changes
        if not isinstance(kind, str) or kind not in ("widen", "refuse"):
            raise ConfigurationError(f"{about}(schema_changes={shown(schema_changes)}): give 'widen' or 'refuse'.")
        if not isinstance(history, bool):
            raise ConfigurationError(f"{about}(history={shown(history)}): give True or False.")
        self._schema = schema
        self._tables = checked_tables(about, tables)
        self._partition_column = partition_column
        self._history = history
        self._widens = schema_changes == "widen"
        self._name = name
        self._books_are_there = False
        self._warned: set[Place] = set()

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    @property
    def shared(self) -> bool:
        """True: every process that reaches the database can load the values."""
        return True

    # --- the protocol ------------------------------------------------------------------------------------------

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Write the rows of a version beside its table, which is made or widened when it has to be.

        Raises:
            SerializationError: it is no table, or its columns do not fit those of earlier versions.
            ConfigurationError: the table is not FlowStone's, or another asset's.
            StorageError: the database refused it.
        """
        require_pyarrow(self.extra, type(self).__name__)
        try:
            found = to_sql(value)
        except SerializationError as error:
            raise error.for_asset(address.asset, address.partition_key) from error.__cause__
        place = self._place(address.asset)
        version = self._version(address.fenced_version)
        kind, _ = partition_cell(address.partition_key)
        with self._errors("store", address.asset, address.partition_key):
            try:
                self._prepare(place, found, kind, address)
            except SerializationError as error:
                raise error.for_asset(address.asset, address.partition_key) from None
            with self._session() as session:
                self._forget_rows(session, place, version)
                session.run(statement("delete_version"), *place, version)
                if found.columns:  # a value without rows may have columns of no known type only
                    session.write(place.beside, found.columns, found.data, version)
                session.run(
                    statement("add_version"),
                    *place,
                    version,
                    key_text(address.partition_key),
                    found.data.num_rows,
                    json.dumps(found.columns),
                    json.dumps(found.description),
                )
        return StoredOutput(
            io=self._name,
            location=place.location(version),
            serializer="table",
            size_bytes=found.size_bytes,
            content_hash=found.content_hash,
            value_type=type_name(value),
            metadata={"table": f"{place.schema}.{place.table}", "rows": found.data.num_rows},
        )

    def load(self, stored: StoredOutput) -> object:
        """Return the value of a version, in the library that it was stored from.

        Raises:
            StorageError: its rows are gone, or not all there.
        """
        require_pyarrow(self.extra, type(self).__name__)
        place, version = self._located(stored, "load")
        with self._errors("load", stored.location, ""), self._session(reading=True) as session:
            found = self._recorded(session, place, version)
            if found is None:
                raise _gone("load", stored, "it was discarded, or never stored")
            if not found.columns:
                data = _nothing()
            elif found.kept:
                data = session.read(found.columns, f"{place.beside} WHERE {_VERSION} = ? ORDER BY {_ROW}", version)
            else:
                _, _, now = self._fence(session, place, found.key)
                if now != version:
                    by = f"version {now} took its place" if now else "the partition was taken out of use"
                    raise _gone("load", stored, f"{by}, and with history=False only what is visible is kept")
                data = self._read_visible(session, place, found)
        if data.num_rows != found.rows:
            raise StorageError(
                "load",
                stored.location,
                "",
                f"the database holds {data.num_rows:,} of its {found.rows:,} rows; they were changed by hand",
                kind="corrupt",
                remedy="Materialize the asset again.",
            )
        return from_sql(data, found.description)

    def publish(self, publication: Publication, connection: object | None) -> bool:
        """Replace the rows of exactly this partition; see `PublishingIO`.

        Raises:
            StorageError: the rows of the version are gone, or the database refused it.
        """
        stored = publication.stored
        place, version = self._located(stored, "publish")
        if connection is not None:
            return self._publish(self._within(connection), place, version, publication)
        with self._errors("publish", publication.asset, publication.partition_key), self._session() as session:
            return self._publish(session, place, version, publication)

    def discard(self, stored: StoredOutput) -> None:
        """Delete the rows of a version, if they are still there, and those that are visible if it is that one."""
        place, version = self._located(stored, "delete")
        with self._errors("delete", stored.location, ""), self._session() as session:
            self._discard(session, place, version)

    def discard_many(self, stored: Sequence[StoredOutput]) -> None:
        """Delete the rows of versions in one transaction; see `discard`."""
        of_place: dict[Place, list[str]] = {}
        for one in stored:
            place, version = self._located(one, "delete")
            of_place.setdefault(place, []).append(version)
        with self._errors("delete", f"{len(stored)} versions", ""), self._session() as session:
            for place, versions in of_place.items():
                found = self._all(session, "versions_named", *place, versions)
                if hidden := [version for version, is_visible in found if not is_visible]:
                    session.run(statement("forget_rows_of", beside=place.beside), hidden)
                    session.run(statement("delete_versions"), *place, hidden)
                for version in sorted(version for version, is_visible in found if is_visible):
                    self._discard(session, place, version)

    def find(self, stored: Sequence[StoredOutput]) -> list[bool]:
        """Return for each value whether its rows are there."""
        there = []
        with self._errors("find", f"{len(stored)} versions", ""), self._session(reading=True) as session:
            for one in stored:
                place, version = self._located(one, "find")
                found = self._recorded(session, place, version)
                there.append(
                    found is not None and (found.kept or self._fence(session, place, found.key)[2] == version)
                )
        return there

    def erase(self, asset: str, partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Delete versions of a partition, committed or not, and what of them is visible; return how many."""
        place, key, gone, erased = self._place(asset), key_text(partition_key), set(versions), 0
        with self._errors("delete", asset, partition_key), self._session() as session:
            for (version,) in self._all(session, "versions_of_partition", *place, key):
                name = self._own_version(version)
                if name is not None and unfenced(name) in gone:
                    erased += self._discard(session, place, version)
        return erased

    def sweep(self, *, older_than_seconds: float, keep: KeepVersions | None = None) -> int:
        """Delete rows of attempts that died before they committed; return how many versions that was.

        Args:
            older_than_seconds: not used; `keep` knows which attempts may still commit.
            keep: names the versions to spare; None deletes nothing.
        """
        if keep is None:
            return 0
        deleted = 0
        with self._errors("delete", "versions without a commit", ""):
            with self._session(reading=True) as session:
                places = [Place(*row) for row in self._all(session, "tables")]
            for place in places:
                after = ""
                while True:
                    with self._session() as session:
                        page = [row[0] for row in self._all(session, "versions_of", *place, after)]
                        if not page:
                            break
                        after = page[-1]
                        own = {name: one for one in page if (name := self._own_version(one)) is not None}
                        for name in sorted(set(own).difference(keep(list(own)))):
                            deleted += self._discard(session, place, own[name])
        return deleted

    # --- what differs ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether `publish` works on the connection of the committing transaction."""

    @abstractmethod
    def _session(self, *, reading: bool = False) -> AbstractContextManager[Session]:
        """Open a transaction; with `reading` all of it sees one state."""

    @abstractmethod
    def _within(self, connection: object) -> Session:
        """Return a session in the transaction that is open on a connection."""

    @abstractmethod
    def _errors(self, action: str, asset: str, partition: str) -> AbstractContextManager[None]:
        """Turn errors of the driver into StorageError."""

    @abstractmethod
    def _lock_table(self, session: Session, place: Place) -> None:
        """Keep others from changing a table meanwhile."""

    @abstractmethod
    def _index(self, session: Session, place: Place, *, partitioned: bool) -> None:
        """Make the indexes of a new table."""

    # --- pieces ------------------------------------------------------------------------------------------------

    def _prepare(self, place: Place, found: SqlTable, kind: str | None, address: OutputAddress) -> None:
        """Make the table, or change its columns, when that is needed; short transactions of their own."""
        with self._session() as session:
            self._open_books(session)
            known = self._table(session, place)
            if (
                known is not None
                and known.visible_is_there
                and not self._changes(place, known, found, kind, address)
            ):
                return
        self._books_are_there = True  # what made it is committed: other threads may rely on it
        with self._session() as session:
            self._lock_table(session, place)
            known = self._table(session, place)
            if known is not None:
                changes = self._changes(place, known, found, kind, address)
                if changes:
                    self._alter(session, place, known, changes)
                if (
                    not known.visible_is_there
                ):  # it was dropped by hand: the rows of versions are made visible again
                    self._create_visible(session, place, tuple(known.columns.items()), kind)
                return
            check_typed(found.data)
            if session.rows(statement("is_there"), *place)[0][0]:
                raise ConfigurationError(
                    f"There is a table {place.schema}.{place.table} already, and FlowStone did not make it: asset "
                    f"{address.asset!r} would replace its rows. Rename or drop it, or name another one with "
                    f"{type(self).__name__}(tables={{{address.asset!r}: ...}})."
                )
            if not session.rows(statement("schema_is_there"), place.schema)[0][0]:
                session.script(statement("make_schema", schema=quoted(place.schema)))
            self._create_visible(session, place, found.columns, kind)
            columns = ", ".join([*(self._column(*one) for one in found.columns), self._rows_columns])
            session.script(statement("make_table", table=place.beside, columns=columns))
            self._index(session, place, partitioned=kind is not None)
            columns_text = json.dumps({one.name: one.kind for one in found.columns})
            session.run(statement("add_table"), *place, self._owner(address.asset), columns_text, kind)

    def _create_visible(
        self, session: Session, place: Place, columns: Sequence[tuple[str, str]], kind: str | None
    ) -> None:
        parts = [self._column(name, column) for name, column in columns]
        if kind is not None:
            parts.append(f"{self._column(self._partition_column, kind)} NOT NULL")
        session.script(statement("make_table", table=place.visible, columns=", ".join(parts)))

    def _changes(
        self, place: Place, known: _Known, found: SqlTable, kind: str | None, address: OutputAddress
    ) -> dict[str, str]:
        """Return the columns that have to be added or widened, with their types.

        Raises:
            ConfigurationError: the table is another asset's.
            SerializationError: a column has another type now.
        """
        owner = self._owner(address.asset)
        if known.owner != owner:
            raise ConfigurationError(
                f"The table {place.schema}.{place.table} is written by {known.owner!r}, not by {owner!r}: two "
                f"assets cannot write one table. Name another one with {type(self).__name__}(tables="
                f"{{{address.asset!r}: ...}}); after a renaming, set its owner in {BOOKS}.tables to {owner!r}."
            )
        table = f"{place.schema}.{place.table}"
        if known.partition_kind != kind:
            raise _changed(
                table,
                f"its partitions were {known.partition_kind or 'none'} and are {kind or 'none'} now",
                "$",
                kind,
            )
        changes: dict[str, str] = {}
        for name, new in found.columns:
            old = known.columns.get(name)
            if old is None and any(name.lower() == one.lower() for one in known.columns):
                raise _changed(table, f"column {name!r} is there in another spelling", f"$[{name!r}]", new)
            if old is None:
                changes[name] = new
                continue
            both = wider(old, new)
            if both is None:
                raise _changed(table, f"column {name!r} was {old} and is {new} now", f"$[{name!r}]", new)
            if both != old:
                changes[name] = both
        if changes and not self._widens:
            listed = ", ".join(f"{name!r} ({kind})" for name, kind in changes.items())
            raise _changed(
                table, f"columns are new or wider, and schema_changes='refuse': {listed}", "$", "columns"
            )
        return changes

    def _alter(self, session: Session, place: Place, known: _Known, changes: Mapping[str, str]) -> None:
        relations = [place.beside, place.visible] if known.visible_is_there else [place.beside]
        for name, kind in changes.items():
            for relation in relations:
                if name in known.columns:
                    as_type = self._types_of(kind)
                    session.script(statement("widen_column", table=relation, column=quoted(name), kind=as_type))
                else:
                    session.script(statement("add_column", table=relation, column=self._column(name, kind)))
        known.columns.update(changes)
        session.run(statement("change_table"), json.dumps(known.columns), *place)

    def _publish(self, session: Session, place: Place, version: str, publication: Publication) -> bool:
        key = key_text(publication.partition_key)
        session.run(statement("add_partition"), *place, key)
        issuer, token, now = self._fence(session, place, key, locking=True)
        if issuer == publication.issuer and token > publication.token:
            return False
        if issuer not in ("", publication.issuer):
            self._warn_of_another(place, issuer, publication.issuer)
        shown_version = version if publication.in_use else None
        if (issuer, token, now) == (publication.issuer, publication.token, shown_version):
            return True
        found = self._recorded(session, place, version) if publication.in_use else None
        if publication.in_use and found is None:
            raise _gone("publish", publication.stored, "it was discarded")
        if found is None or found.kept or now != version:
            kind, cell = partition_cell(publication.partition_key)
            self._hide(session, place, kind, cell)
            if found is not None:
                self._show(session, place, version, found, kind, cell)
        point = (publication.issuer, publication.token, shown_version)
        session.run(statement("point"), *point, *place, key)
        return True

    def _warn_of_another(self, place: Place, issuer: str, own: str) -> None:
        """Say once of a table that it was published from another database, which may be in use."""
        if place in self._warned or issuer.startswith(MEMORY_ISSUER) or own.startswith(MEMORY_ISSUER):
            return
        self._warned.add(place)
        log.warning(
            "The table %s.%s was published last from another database of FlowStone (%s; this one is %s). If that "
            "one is still in use, give one of the two apps a project of its own: both number their steps from 1, "
            "so each overwrites and prunes what the other has stored.",
            *(*place, issuer, own),
        )

    def _hide(self, session: Session, place: Place, kind: str | None, cell: object) -> None:
        if kind is None:
            session.run(statement("hide_all", table=place.visible))
        else:
            column = quoted(self._partition_column)
            session.run(statement("hide", table=place.visible, partition=column), cell)

    def _show(
        self, session: Session, place: Place, version: str, found: _Version, kind: str | None, cell: object
    ) -> None:
        if not found.kept:
            raise _gone("publish", StoredOutput(self._name, place.location(version)), "another one took its place")
        names = {
            "table": place.visible,
            "beside": place.beside,
            "columns": ", ".join(quoted(one.name) for one in found.columns),
        }
        if not found.columns:
            shown_rows = 0
        elif kind is None:
            shown_rows = session.run(statement("show_all", **names), version)
        else:
            names |= {"partition": quoted(self._partition_column), "kind": self._types_of(kind)}
            shown_rows = session.run(statement("show", **names), cell, version)
        if shown_rows != found.rows:
            raise StorageError(
                "publish",
                place.location(version),
                "",
                f"{shown_rows:,} of its {found.rows:,} rows are there",
                kind="corrupt",
                remedy="Materialize the asset again.",
            )
        if not self._history:
            self._forget_rows(session, place, version)
            session.run(statement("let_go"), *place, version)

    def _read_visible(self, session: Session, place: Place, found: _Version) -> pyarrow.Table:
        kind, cell = partition_cell(PartitionKey(found.key))
        if kind is None:
            return session.read(found.columns, place.visible)
        return session.read(found.columns, f"{place.visible} WHERE {quoted(self._partition_column)} = ?", cell)

    def _discard(self, session: Session, place: Place, version: str) -> bool:
        found = self._recorded(session, place, version)
        if found is None:
            return False
        issuer, token, now = self._fence(session, place, found.key, locking=True)
        if now == version:
            self._hide(session, place, *partition_cell(PartitionKey(found.key)))
            session.run(statement("point"), issuer, token, None, *place, found.key)
        self._forget_rows(session, place, version)
        session.run(statement("delete_version"), *place, version)
        return True

    def _forget_rows(self, session: Session, place: Place, version: str) -> None:
        session.run(statement("forget_rows", beside=place.beside), version)

    def _fence(
        self, session: Session, place: Place, key: str, *, locking: bool = False
    ) -> tuple[str, int, str | None]:
        """Return who published last of a partition, with which token, and which version."""
        text = statement("partition")
        if locking and self._locking:
            text = text.rstrip().rstrip(";") + self._locking
        rows = session.rows(text, *place, key)
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else ("", 0, None)

    def _recorded(self, session: Session, place: Place, version: str) -> _Version | None:
        rows = self._all(session, "version", *place, version)
        if not rows:
            return None
        key, number, kept, columns, description = rows[0]
        return _Version(
            key, number, kept, tuple(SqlColumn(*one) for one in json.loads(columns)), json.loads(description)
        )

    def _all(self, session: Session, name: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a question to the book-keeping; none before there is one."""
        if not self._books_are_there:
            self._books_are_there = bool(session.rows(statement("is_there"), BOOKS, "partitions")[0][0])
        return session.rows(statement(name), *parameters) if self._books_are_there else []

    def _open_books(self, session: Session) -> None:
        if not self._books_are_there and not session.rows(statement("is_there"), BOOKS, "partitions")[0][0]:
            self._lock_table(session, Place(BOOKS, "tables"))
            for name in ("make_books", "make_book_of_tables", "make_book_of_versions", "make_book_of_partitions"):
                session.script(statement(name))

    def _table(self, session: Session, place: Place) -> _Known | None:
        rows = session.rows(statement("table"), *place)
        if not rows:
            return None
        is_there = bool(session.rows(statement("is_there"), *place)[0][0])
        return _Known(rows[0][0], json.loads(rows[0][1]), rows[0][2], is_there)

    def _place(self, asset: str) -> Place:
        table = self._tables.get(asset, asset)
        if len(table.encode("utf-8", "replace")) > MAX_NAME_BYTES or not is_storable(table):
            raise ConfigurationError(
                f"The asset {asset[:100]!r} cannot be a table of its name: that has at most {MAX_NAME_BYTES} "
                f"bytes of plain text. Name one with {type(self).__name__}(tables={{...}})."
            )
        return Place(self._schema, table)

    def _located(self, stored: StoredOutput, action: str) -> tuple[Place, str]:
        try:
            return Place.of(stored.location)
        except ValueError as error:
            raise not_ours(stored, action) from error

    def _version(self, name: str) -> str:
        return name if self._project.is_default else f"{self._project.name}/{name}"

    def _own_version(self, version: str) -> str | None:
        """Return the name of a version of this project; None for one of another."""
        project, slash, name = version.rpartition("/")
        if self._project.is_default:
            return None if slash else version
        return name if project == self._project.name else None

    def _owner(self, asset: str) -> str:
        return f"{self._project.name}/{asset}"

    def _column(self, name: str, kind: str) -> str:
        return f"{quoted(name)} {self._types_of(kind)}"

    def _types_of(self, kind: str | None) -> str:
        assert kind is not None
        return self._types.get(kind, kind)


class _Known(NamedTuple):
    """What the book-keeping says of a table."""

    owner: str
    columns: dict[str, str]
    partition_kind: str | None
    visible_is_there: bool


class _Version(NamedTuple):
    """What the book-keeping says of a version."""

    key: str
    rows: int
    kept: bool
    columns: tuple[SqlColumn, ...]
    description: dict[str, Any]


def _nothing() -> pyarrow.Table:
    """Return rows of a value that has none, nor columns of a known type."""
    import pyarrow

    return pyarrow.table({})


def _changed(table: str, what: str, path: str, kind: str | None) -> SerializationError:
    return SerializationError(
        f"The table {table} has other columns: {what}",
        path=path,
        type_name=kind or "none",
        remedy="Cast the column back, or write to another table: drop this one with its rows in "
        f"{BOOKS}, or name a new one with tables={{...}}, and materialize the partitions again.",
    )


def _gone(action: str, stored: StoredOutput, why: str) -> StorageError:
    return StorageError(
        action,
        stored.location,
        "",
        f"its rows are not there: {why}",
        kind="missing",
        remedy="Materialize it again.",
    )
