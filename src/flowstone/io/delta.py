"""`DeltaIO`: values as versions of Delta tables.

A version of Delta is a commit of its own, so a value is visible to readers of Delta when it is written, before
FlowStone commits it; what FlowStone records is `uri@version`, and that is what it loads. A stale attempt is
refused by its token, and so is a publication that a newer one has overtaken: delta-rs records tokens
(`app_transactions`) and compares none, so the table is read first, and its conflict check does the rest.

What is needed to make the same value of the rows is recorded with the version, in its metadata: the log of a table
can only be searched from its end.
"""

from __future__ import annotations

import copy
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

from flowstone.core.declaring import shown
from flowstone.core.output import OutputAddress, Publication, StoredOutput, type_name
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import InProject
from flowstone.core.published import catalog_scheme
from flowstone.errors import (
    ConfigurationError,
    FlowStoneError,
    MissingExtraError,
    SerializationError,
    StorageError,
)
from flowstone.io.object_clients import failure_of
from flowstone.io.sql_columns import SqlTable, check_typed, from_sql, require_pyarrow, to_arrow_type, to_sql
from flowstone.io.sql_names import SchemaChanges, checked_tables, partition_cell

if TYPE_CHECKING:
    import pyarrow
    from deltalake import DeltaTable

_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TRIES = 12
_FIRST_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 1.0
_FACTS = "flowstone"
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_NOT_TEXT = re.compile(r"\x1b\[[0-9;]*m|↳")
"""Colours and arrows in what delta-rs says."""


class _Fence(NamedTuple):
    """A name under which a table notes tokens, and the one of whoever writes."""

    name: str
    token: int

    def is_passed_by(self, table: DeltaTable) -> bool:
        """Whether a newer one has written."""
        last = table.transaction_version(self.name)
        return last is not None and last > self.token


class DeltaIO(InProject):
    """Values as versions of Delta tables: an asset is a table, a partition of it a partition of the table.

    Takes DataFrames of pandas and polars and pyarrow Tables; each comes back as what it was. Each step overwrites
    exactly its partition and records `uri@version`. Readers of Delta see the newest version, as soon as it is
    written; restoring an earlier one writes its rows once more. Old versions go when you vacuum the table.

    Args:
        root: directory or URL below which the tables lie, one for each asset.
        storage_options: what delta-rs needs to reach it, such as keys; never recorded.
        tables: names of tables by asset, where they differ.
        partition_column: name of the column with the partition, as text.
        schema_changes: `"widen"` adds columns when a version needs them; `"refuse"` refuses.
        name: name under which the app knows it.

    Raises:
        ConfigurationError: an option cannot work.

    Example:
        >>> DeltaIO("s3://lake/bronze").uri("orders")
        's3://lake/bronze/orders'
    """

    in_transaction = False
    shared = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, str] | None = None,
        tables: Mapping[str, str] | None = None,
        partition_column: str = "flowstone_partition",
        schema_changes: SchemaChanges = "widen",
        name: str = "delta",
    ) -> None:
        given: Any = os.fspath(root) if isinstance(root, os.PathLike) else root
        if type(given) is not str or not given.strip() or "@" in given:
            raise ConfigurationError(
                f"DeltaIO(root={'...' if '@' in str(given) else shown(root)}): give a "
                "directory or a URL without '@'; keys belong into storage_options."
            )
        options: object = storage_options
        if options is not None and not (
            isinstance(options, Mapping) and all(type(key) is type(value) is str for key, value in options.items())
        ):
            raise ConfigurationError(
                "DeltaIO(storage_options=...): give a dict of text to text, as delta-rs takes it."
            )
        if type(name) is not str or not name:
            raise ConfigurationError(f"DeltaIO(name={shown(name)}): give a name.")
        column: object = partition_column
        if not isinstance(column, str) or not _COLUMN.fullmatch(column):
            raise ConfigurationError(f"DeltaIO(partition_column={shown(partition_column)}): give a plain name.")
        kind: object = schema_changes
        if not isinstance(kind, str) or kind not in ("widen", "refuse"):
            raise ConfigurationError(f"DeltaIO(schema_changes={shown(schema_changes)}): give 'widen' or 'refuse'.")
        # a directory is absolute from here on, so that a later os.chdir does not move the tables
        self._root = (given if "://" in given else str(Path(given).absolute())).rstrip("/")
        self._options = dict(storage_options) if storage_options else None
        self._tables = checked_tables("DeltaIO", tables, max_bytes=200)
        self._column = partition_column
        self._widens = schema_changes == "widen"
        self._name = name
        self._issuer: Callable[[], str] = lambda: ""

    def fenced_by(self, issuer: Callable[[], str]) -> Self:
        """Return this manager with the name of the store that draws the tokens of attempts."""
        manager = copy.copy(self)
        manager._issuer = issuer  # noqa: SLF001 - as above
        return manager

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    def uri(self, asset: str) -> str:
        """Return where the table of an asset lies."""
        return f"{self._root}/{quote(self._tables.get(asset, asset), safe='')}"

    def dataset(self, asset: str) -> tuple[str, str]:
        """Return the name of an asset's table in catalogs of data: bucket and path, or a directory.

        Example:
            >>> DeltaIO("s3://lake/bronze").dataset("orders")
            ('s3://lake', 'bronze/orders')
        """
        uri = self.uri(asset)
        scheme, found, rest = uri.partition("://")
        if not found:
            return "file", uri
        host, _, path = rest.partition("/")
        return f"{catalog_scheme(scheme)}://{host}", path

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Overwrite exactly this partition with a new version of the table.

        Raises:
            SerializationError: it is no table, or its columns do not fit.
            ConfigurationError: the table is not FlowStone's, or another asset's.
            StorageError: a newer attempt has written this partition, or the storage refused it.
        """
        require_pyarrow("delta", "DeltaIO")
        try:
            found = to_sql(value, nested=True)
            _check_kinds(found)
        except SerializationError as error:
            raise error.for_asset(address.asset, address.partition_key) from error.__cause__
        uri, cell = self.uri(address.asset), _cell(address.partition_key)
        facts = found.description | {"partition": cell, "step": address.step_id}
        with self._errors("store", address.asset, address.partition_key):
            fence = _Fence(f"flowstone {self._issuer()} {address.partition_key}", address.token)
            try:
                version = self._write(uri, found.data, cell, facts, address.asset, fence)
            except SerializationError as error:
                raise error.for_asset(address.asset, address.partition_key) from None
        if version is None:
            raise StorageError(
                "store",
                address.asset,
                address.partition_key,
                f"a newer attempt has written it, this one has token {address.token}",
                remedy="Nothing is to be done: what the newer one wrote stays.",
            )
        return StoredOutput(
            io=self._name,
            location=f"{uri}@{version}",
            serializer="table",
            size_bytes=found.size_bytes,
            content_hash=found.content_hash,
            value_type=type_name(value),
            metadata={"table": uri, "version": version, "rows": found.data.num_rows, _FACTS: _packed(facts)},
        )

    def load(self, stored: StoredOutput) -> object:
        """Return the value of a version, in the library that it was stored from.

        Raises:
            StorageError: the version is gone: vacuumed, or its log was cleaned up.
        """
        require_pyarrow("delta", "DeltaIO")
        uri, version = self._located(stored, "load")
        with self._errors("load", stored.location, ""):
            data, facts = self._read(stored, uri, version)
        return from_sql(data, facts)

    def publish(self, publication: Publication, connection: object | None) -> bool:
        """Write the rows of a version once more, when another one is the newest of its partition.

        After a usual commit nothing is to be done: the version was written before it.
        """
        uri, version = self._located(publication.stored, "publish")
        with self._errors("publish", publication.asset, publication.partition_key):
            facts = _unpacked(publication.stored)
            cell, table = facts["partition"], self._open(uri)
            # not the fence of attempts: what is committed counts, whatever one that is not over has written
            fence = _Fence(
                f"flowstone {publication.issuer} published {publication.partition_key}", publication.token
            )
            if fence.is_passed_by(table):
                return False
            is_newest = table.transaction_version(self._visible(publication.issuer, cell)) == facts["step"]
            if publication.in_use and not is_newest:
                data, _ = self._read(publication.stored, uri, version)
                return self._write(uri, data, cell, facts, publication.asset, fence) is not None
            if not publication.in_use and is_newest:
                self._delete(table, publication.issuer, cell, fence)
        return True

    def discard(self, stored: StoredOutput) -> None:
        """Do nothing: versions of a Delta table go when it is vacuumed."""

    def erase(self, asset: str, partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Delete the rows of a partition in a new version; earlier ones are there until the table is vacuumed."""
        uri = self.uri(asset)
        with self._errors("delete", asset, partition_key):
            table = self._there(uri)
            if table is None or table.metadata().description != self._owner(asset):
                return 0  # nothing of ours
            return int(self._delete(table, self._issuer(), _cell(partition_key)) > 0)

    def may_pass(self, error: Exception) -> bool:
        """Whether storing again right away may succeed: only when the storage did not answer properly."""
        return isinstance(error, StorageError) and error.kind == "unavailable"

    # --- pieces ------------------------------------------------------------------------------------------------

    def _write(
        self, uri: str, data: pyarrow.Table, cell: str | None, facts: Mapping[str, Any], asset: str, fence: _Fence
    ) -> int | None:
        """Overwrite a partition, again after others wrote meanwhile; None as soon as one of them is newer."""
        from deltalake.exceptions import CommitFailedError, DeltaError

        pause = _FIRST_PAUSE_SECONDS
        rows = self._with_partition(data, cell)
        for left in reversed(range(_TRIES)):
            table = self._there(uri)
            try:
                return self._overwrite(table, uri, rows, cell, facts, asset, fence)
            except DeltaError as error:
                is_there_now = table is None and self._there(uri) is not None
                if not left or not (isinstance(error, CommitFailedError) or is_there_now):
                    raise
            time.sleep(pause)
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)
        raise AssertionError("unreachable")

    def _overwrite(
        self,
        table: DeltaTable | None,
        uri: str,
        rows: pyarrow.Table,
        cell: str | None,
        facts: Mapping[str, Any],
        asset: str,
        fence: _Fence,
    ) -> int | None:
        """Overwrite a partition of a table as it was read, once, and return the version that this made."""
        from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

        owner = self._owner(asset)
        if table is None:
            check_typed(rows if cell is None else rows.drop_columns([self._column]))
            # an empty table first: what is written then is a version whose number is known
            table = DeltaTable.create(
                uri,
                rows.schema,
                mode="error",
                partition_by=None if cell is None else [self._column],
                description=owner,
                storage_options=self._options,
            )
        self._check(table, owner, uri, cell, asset)
        if fence.is_passed_by(table):
            return None
        write_deltalake(
            table,
            self._fitted(rows, table, uri),
            mode="overwrite",
            schema_mode="merge" if self._widens else None,
            predicate=self._predicate(cell),
            storage_options=self._options,
            commit_properties=CommitProperties(
                app_transactions=[
                    Transaction(*fence),
                    Transaction(self._visible(self._issuer(), cell), facts["step"]),
                ],
                custom_metadata={_FACTS: f"{owner}, step {facts['step']}"},
            ),
        )
        return int(table.version())

    def _delete(self, table: DeltaTable, issuer: str, cell: str | None, fence: _Fence | None = None) -> int:
        """Delete the rows of a partition, note that no version of it is visible; return how many there were."""
        from deltalake import CommitProperties, Transaction

        noted = [Transaction(self._visible(issuer, cell), 0), *([Transaction(*fence)] if fence else [])]
        done = table.delete(self._predicate(cell), commit_properties=CommitProperties(app_transactions=noted))
        return int(done.get("num_deleted_rows", 1) or 0)

    def _read(self, stored: StoredOutput, uri: str, version: int) -> tuple[pyarrow.Table, dict[str, Any]]:
        """Return the rows of a version, of its partition, and what was noted with it."""
        from deltalake.exceptions import DeltaError

        try:
            facts = _unpacked(stored)
            cell = facts["partition"]
            chosen = None if cell is None else [(self._column, "=", cell)]
            data = self._open(uri, version).to_pyarrow_table(filters=chosen)
        except (DeltaError, FileNotFoundError) as error:
            raise _gone("load", uri, version, str(error).partition("\n")[0]) from error
        if cell is not None:
            data = data.drop_columns([self._column])
        if not facts["rows"]:
            data = data.select([])
        if data.num_rows != facts["rows"]:
            raise _gone("load", uri, version, f"{data.num_rows:,} of {facts['rows']:,} rows are there")
        return data, facts

    def _owner(self, asset: str) -> str:
        """Return how a table is described that an asset writes."""
        return f"FlowStone {self._project.name}/{asset}"

    def _check(self, table: DeltaTable, owner: str, uri: str, cell: str | None, asset: str) -> None:
        metadata = table.metadata()
        if metadata.description != owner:
            raise ConfigurationError(
                f"The Delta table {uri} is not written by asset {asset!r}"
                + (f" but described as {metadata.description!r}." if metadata.description else ".")
                + f" Name another one with DeltaIO(tables={{{asset!r}: ...}})."
            )
        partitioned = [] if cell is None else [self._column]
        if metadata.partition_columns != partitioned:
            raise SerializationError(
                f"The Delta table {uri} is partitioned by {metadata.partition_columns or 'nothing'}, and the "
                f"asset by {partitioned or 'nothing'} now",
                path="$",
                type_name="partitions",
                remedy="Name another table with DeltaIO(tables={...}).",
            )

    def _fitted(self, rows: pyarrow.Table, table: DeltaTable, uri: str) -> pyarrow.Table:
        """Return rows in the types of the table's columns.

        Raises:
            SerializationError: a column is of another type, or new and that is refused.
        """
        import pyarrow

        schema = pyarrow.schema(table.schema().to_arrow())
        if not set(rows.column_names) - {self._column}:
            return schema.empty_table()  # a value without rows may have columns of no known type only
        there = {field.name: field.type for field in schema}
        for at, name in enumerate(rows.column_names):
            old, new = there.get(name), rows.schema.field(at).type
            if old is None and not self._widens:
                raise _changed(uri, f"column {name!r} ({new}) is new, and schema_changes='refuse'", name, new)
            if old is None or old == new:
                continue
            try:
                if not _is_narrower(new, old):
                    raise pyarrow.ArrowInvalid("another type")
                rows = rows.set_column(at, name, rows.column(at).cast(old))
            except pyarrow.ArrowException as error:
                raise _changed(uri, f"column {name!r} was {old} and is {new} now", name, new) from error
        return rows

    def _with_partition(self, data: pyarrow.Table, cell: str | None) -> pyarrow.Table:
        import pyarrow

        if cell is None:
            return data
        return data.append_column(self._column, pyarrow.array([cell] * data.num_rows, pyarrow.string()))

    def _predicate(self, cell: str | None) -> str | None:
        return None if cell is None else f"{self._column} = '" + cell.replace("'", "''") + "'"

    def _visible(self, issuer: str, cell: str | None) -> str:
        """Return the name under which a table notes whose rows of a partition are the newest."""
        return f"flowstone {issuer} visible {cell}"

    def _there(self, uri: str) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(uri, storage_options=self._options)
        except TableNotFoundError:
            return None

    def _open(self, uri: str, version: int | None = None) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(uri, version=version, storage_options=self._options)

    def _located(self, stored: StoredOutput, action: str) -> tuple[str, int]:
        uri, at, version = stored.location.rpartition("@")
        if not at or not version.isdecimal() or not uri.startswith(f"{self._root}/"):
            raise StorageError(
                action,
                f"location {stored.location!r}",
                "",
                f"the location was refused, it is not one below {self._root}",
                kind="unsafe",
                remedy="Declare the manager with the root that it was written with.",
            )
        return uri, int(version)

    @contextmanager
    def _errors(self, action: str, asset: str, partition: str) -> Iterator[None]:
        try:
            from deltalake.exceptions import DeltaError
        except ModuleNotFoundError as error:
            raise MissingExtraError("deltalake", "delta", "DeltaIO") from error
        try:
            yield
        except FlowStoneError:
            raise  # some are an OSError too
        except (DeltaError, OSError) as error:  # of a storage that does not answer it raises an OSError
            why = OSError(f"Delta: {' '.join(_NOT_TEXT.sub(' ', str(error)).split())}")
            raise failure_of(action, asset, partition, why) from error


def _cell(key: PartitionKey) -> str | None:
    """Return the text of a partition in the column of a table."""
    kind, value = partition_cell(key)
    if kind is None:
        return None
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    # Delta takes the empty text for null, which no predicate finds again
    return text if text and text != _HIVE_NULL and not text.startswith("s:") else str(key)


def _packed(facts: Mapping[str, Any]) -> str:
    """Return what is needed to make the same value of the rows, as text that nothing takes for a secret."""
    return zlib.compress(json.dumps(dict(facts)).encode()).hex()


def _unpacked(stored: StoredOutput) -> dict[str, Any]:
    """Return what `_packed` was given.

    Raises:
        StorageError: it is not there.
    """
    try:
        facts: dict[str, Any] = json.loads(zlib.decompress(bytes.fromhex(str(stored.metadata[_FACTS]))))
    except (KeyError, ValueError, zlib.error) as error:
        raise StorageError(
            "load",
            stored.location,
            "",
            "its recorded metadata was changed: what its columns were is not known",
            kind="corrupt",
            remedy="Materialize it again, or read the version with deltalake.",
        ) from error
    return facts


def _check_kinds(found: SqlTable) -> None:
    for column in found.columns:
        if column.kind == "time":
            raise SerializationError(
                "Delta has no type for times of day",
                path=f"$[{column.name!r}]",
                type_name="time64",
                remedy="Store it as text or as a number of seconds.",
            )


def _is_narrower(new: pyarrow.DataType, old: pyarrow.DataType) -> bool:
    from pyarrow.types import is_nested

    kinds = ["smallint", "integer", "bigint"]
    whole = [to_arrow_type(kind) for kind in kinds]
    if is_nested(new) and is_nested(old):
        return True  # Arrow names the parts of a list in several ways; what does not fit cannot be cast
    if new in whole and old in whole:
        return whole.index(new) < whole.index(old)
    return bool(new == to_arrow_type("real") and old == to_arrow_type("double"))


def _changed(uri: str, what: str, name: str, kind: object) -> SerializationError:
    return SerializationError(
        f"The Delta table {uri} has other columns: {what}",
        path=f"$[{name!r}]",
        type_name=str(kind),
        remedy="Cast the column back, or name another table with DeltaIO(tables={...}).",
    )


def _gone(action: str, uri: str, version: int, why: str) -> StorageError:
    return StorageError(
        action, f"{uri}@{version}", "", why, kind="missing", remedy="It was vacuumed: materialize it again."
    )
