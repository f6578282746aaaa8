"""Tables by reference: written front to back from what is not read yet, and read back as a scan of what is stored.

`ScanSerializer` writes a polars LazyFrame, a pyarrow Dataset or a DuckDB relation as Parquet without collecting
it; `scan` opens a stored Parquet as one of these; `as_scan` makes one of a value that is not stored as Parquet.
Memory is bounded by row groups, not by the table.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from flowstone.core.by_reference import ScanKind, kind_of_type
from flowstone.core.output import StoredOutput, type_name
from flowstone.errors import MissingExtraError, SerializationError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.dataset

type Session = dict[str, Any]
"""What the scans of one step share: relations of DuckDB can be joined when they have one connection."""

_NAMES = {ScanKind.POLARS: "polars-scan", ScanKind.PYARROW: "pyarrow-scan", ScanKind.DUCKDB: "duckdb-scan"}
_KINDS = {name: kind for kind, name in _NAMES.items()}
_GROUP_BYTES = 64 * 1024 * 1024
_GROUP_ROWS = 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_BATCH_ROWS = 64 * 1024
_PLAIN_CODECS = frozenset({"plain", "arrow", "object"})
_EXTRAS = {"pyarrow": "parquet", "duckdb": "duckdb"}
_GLOB = re.compile(r"[*?\[]")


class StoredTable(NamedTuple):
    """Where a Parquet lies, as libraries of tables find it.

    Args:
        path: of a file, or below the root of `files`.
        files: what opens it, with the methods of a file system of fsspec; None for a file of this machine.
    """

    path: str
    files: Any = None


def scanned_kind(stored: StoredOutput) -> ScanKind | None:
    """Return what was stored without collecting it; None for every other value.

    Example:
        >>> scanned_kind(StoredOutput("filesystem", "a/1-1.parquet", "polars-scan"))
        <ScanKind.POLARS: 'polars.LazyFrame'>
    """
    return _KINDS.get(stored.serializer or "")


def is_scannable(stored: StoredOutput) -> bool:
    """Return whether a value is stored as Parquet, so that it can be scanned where it lies."""
    return stored.serializer == "parquet" or stored.serializer in _KINDS


class ScanSerializer:
    """Writes what is not read yet as Parquet, piece by piece; memory does not grow with the table.

    IO managers that scan give a scan back. For those that cannot, the table is read.

    Args:
        kind: what it writes.

    Example:
        >>> ScanSerializer(ScanKind.POLARS).name
        'polars-scan'
    """

    def __init__(self, kind: ScanKind) -> None:
        self._kind = kind

    @property
    def name(self) -> str:
        """`"polars-scan"`, `"pyarrow-scan"` or `"duckdb-scan"`."""
        return _NAMES[self._kind]

    @property
    def extension(self) -> str:
        """`".parquet"`."""
        return ".parquet"

    def accepts(self, value: object) -> bool:
        """Return whether the value is of this kind."""
        return kind_of_type(type(value)) is self._kind

    def write(self, value: Any, file: BinaryIO) -> None:
        """Compute the table and write it, row group by row group.

        Raises:
            SerializationError: it is of another kind, or what it reads is not there.
            Exception: what the library raises when a column is missing, an expression fails and the like.
        """
        if not self.accepts(value):
            raise SerializationError(
                f"The {self.name} serializer takes a {self._kind} only",
                path="$",
                type_name=type_name(value),
                remedy="Return one, or leave the choice of the serializer to FlowStone.",
            )
        noting = _Noting(file)
        try:
            if self._kind is ScanKind.POLARS:
                # rows come back in the order of the plan; the order in which pieces are ready changes by chance
                value.sink_parquet(noting, compression="snappy", maintain_order=True)
            elif self._kind is ScanKind.PYARROW:
                _write(_batches(value), value.schema, noting)
            else:
                _require("pyarrow", "Storing a DuckDB relation")
                read = getattr(value, "to_arrow_reader", None) or value.fetch_record_batch
                reader = read(_BATCH_ROWS)
                _write(reader, reader.schema, noting)
        except Exception as error:
            if noting.failure is not None:
                raise noting.failure from error  # a library may say it in other words: the disk is full
            if isinstance(error, OSError):
                raise SerializationError(
                    f"What the {self._kind} reads cannot be read ({error})",
                    path="$",
                    type_name=type_name(value),
                    remedy="Check the files that it scans.",
                ) from error
            raise

    def read(self, file: BinaryIO) -> object:
        """Return the table, read into memory, as what was stored.

        Raises:
            MissingExtraError: its library is not installed.
        """
        _require("pyarrow", "Loading a table")
        import pyarrow.parquet

        return as_scan(pyarrow.parquet.read_table(file), self._kind, {})


class _Noting(io.BufferedIOBase, BinaryIO):
    """A file that keeps what went wrong in writing to it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._position = 0
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        try:
            count = self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self._position += count
        return count

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back here."""


def _batches(dataset: pyarrow.dataset.Dataset, columns: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """Read a dataset as it is asked for.

    By default pyarrow fetches whole row groups, several at once, and its threads read on while whoever writes is
    slower: 584 MiB as measured, and up to a GiB, against 83.
    """
    import pyarrow.dataset

    is_parquet = isinstance(getattr(dataset, "format", None), pyarrow.dataset.ParquetFileFormat)
    yield from dataset.scanner(
        columns=columns,
        batch_size=_BATCH_ROWS,
        batch_readahead=1,
        fragment_readahead=1,
        use_threads=False,
        fragment_scan_options=_frugal() if is_parquet else None,
    ).to_batches()


def _frugal() -> Any:
    """Return how Parquet is read piece by piece: 84 MiB in place of 294 for row groups of 32 MB, as measured."""
    import pyarrow.dataset

    return pyarrow.dataset.ParquetFragmentScanOptions(
        pre_buffer=False, use_buffered_stream=True, buffer_size=_BUFFER_BYTES
    )


def _write(batches: Iterable[pyarrow.RecordBatch], schema: pyarrow.Schema, file: BinaryIO) -> None:
    import pyarrow
    import pyarrow.parquet

    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SerializationError(
            f"Two columns are called {twice[0]!r}, and readers find columns by their names",
            path=f"$[{twice[0]!r}]",
            type_name="pyarrow.Schema",
            remedy="Give one of them another name, or leave it out.",
        )
    with pyarrow.parquet.ParquetWriter(file, schema, compression="snappy") as writer:
        held: list[pyarrow.RecordBatch] = []
        size = rows = 0
        for batch in batches:
            held.append(batch)
            size, rows = size + batch.nbytes, rows + batch.num_rows
            if size >= _GROUP_BYTES or rows >= _GROUP_ROWS:
                writer.write_table(pyarrow.Table.from_batches(held, schema))
                held, size, rows = [], 0, 0
        if held:
            writer.write_table(pyarrow.Table.from_batches(held, schema))


def scan(table: StoredTable, kind: ScanKind, session: Session) -> object | None:
    """Open a stored Parquet as a scan; None when its columns mean something only its reader knows.

    Args:
        table: where it lies.
        kind: as what.
        session: what the scans of the step share.

    Raises:
        MissingExtraError: the library is not installed.
    """
    _require("pyarrow", f"An input as {kind}")
    import pyarrow.dataset
    import pyarrow.fs

    files = None if table.files is None else pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(table.files))
    form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=_frugal())
    dataset = pyarrow.dataset.dataset(table.path, format=form, filesystem=files)
    found: object = dataset
    if _has_encoded_cells(dataset):
        return None
    if kind is ScanKind.POLARS:
        found = _polars_scan(table, dataset)
    elif kind is ScanKind.DUCKDB and (table.files is not None or _GLOB.search(table.path)):
        found = _connection(session).from_arrow(dataset)
    elif kind is ScanKind.DUCKDB:
        # not by the names of directories above: `year=2024` there is no column of ours
        found = _connection(session).read_parquet(table.path, hive_partitioning=False)
    return found


def _has_encoded_cells(dataset: pyarrow.dataset.Dataset) -> bool:
    """Whether a column of Python objects was written as JSON, cell by cell."""
    footer = next(iter(dataset.get_fragments())).metadata.metadata or {}
    about = json.loads(footer.get(b"flowstone.pandas", b"null"))
    return about is not None and any(codec not in _PLAIN_CODECS for codec in about["data"]["codecs"])


def _polars_scan(table: StoredTable, dataset: pyarrow.dataset.Dataset) -> object:
    _require("polars", "An input as pl.LazyFrame")
    import polars

    if table.files is None:
        return polars.scan_parquet(table.path, glob=False, hive_partitioning=False)
    from polars.io.plugins import register_io_source

    empty: Any = polars.from_arrow(dataset.schema.empty_table())
    return register_io_source(_Source(dataset), schema=empty.schema)


class _Source:
    """Reads a dataset for polars, with the columns and rows that its plan needs."""

    def __init__(self, dataset: pyarrow.dataset.Dataset) -> None:
        self._dataset = dataset

    def __call__(
        self, columns: list[str] | None, predicate: Any, rows: int | None, _batch_rows: int | None
    ) -> Iterator[Any]:
        import polars

        for batch in _batches(self._dataset, columns):
            frame: Any = polars.from_arrow(batch)
            if predicate is not None:
                frame = frame.filter(predicate)
            if rows is not None:
                frame = frame.head(rows)
                rows -= len(frame)
            yield frame
            if rows == 0:
                return


def as_scan(value: object, kind: ScanKind, session: Session) -> object:
    """Return a table that is in memory already as a scan.

    Args:
        value: a DataFrame of pandas or polars, a pyarrow Table, or a scan of any kind.
        kind: as what.
        session: what the scans of the step share.

    Raises:
        SerializationError: the value is no table.
        MissingExtraError: the library is not installed.
    """
    if kind_of_type(type(value)) is kind:
        return value
    _require("pyarrow", f"An input as {kind}")
    table = _arrow(value)
    if table is None:
        raise SerializationError(
            f"This input was to be a {kind}, and its value is no table",
            path="$",
            type_name=type_name(value),
            remedy="Return a DataFrame, a Table or a scan upstream, or annotate the parameter with the type of "
            "the value.",
        )
    if kind is ScanKind.PYARROW:
        import pyarrow.dataset

        return pyarrow.dataset.dataset(table)
    if kind is ScanKind.DUCKDB:
        return _connection(session).from_arrow(table)
    _require("polars", "An input as pl.LazyFrame")
    import polars

    frame: Any = polars.from_arrow(table)
    return frame.lazy()


def _arrow(value: Any) -> pyarrow.Table | None:
    import pyarrow

    kind, library = kind_of_type(type(value)), type(value).__module__.partition(".")[0]
    if isinstance(value, pyarrow.Table):
        return value
    if kind is ScanKind.POLARS:
        return value.collect().to_arrow()
    if kind is ScanKind.PYARROW:
        return value.to_table()
    if kind is ScanKind.DUCKDB:
        return (getattr(value, "to_arrow_table", None) or value.fetch_arrow_table)()
    if library == "polars" and hasattr(value, "to_arrow") and hasattr(value, "lazy"):
        return value.to_arrow()
    if library == "pandas" and hasattr(value, "columns"):
        return pyarrow.Table.from_pandas(value)
    return None


def _connection(session: Session) -> Any:
    """Return the connection to DuckDB that the relations of one step share, to its usual database in memory."""
    _require("duckdb", "An input as duckdb.DuckDBPyRelation")
    import duckdb

    if "duckdb" not in session:
        session["duckdb"] = duckdb.default_connection().cursor()
    return session["duckdb"]


def _require(package: str, purpose: str) -> None:
    try:
        __import__(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, _EXTRAS.get(package), purpose) from error
