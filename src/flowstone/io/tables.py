"""Tables of pandas, polars and pyarrow as Parquet, equal in type and value when they come back.

Parquet stores values; of an Arrow type it cannot express it keeps a hint at best. Dictionaries lose entries that
no row uses and their order, dictionaries of numbers become plain columns, seconds become milliseconds. So the
exact schema is kept beside the data.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from flowstone.core.output import type_name
from flowstone.errors import MissingExtraError, SerializationError
from flowstone.io.table_types import (
    arrow_to_frame,
    check_arrow,
    frame_in_pieces,
    frame_to_arrow,
    is_small,
    path_of,
    read_plain_polars,
)

if TYPE_CHECKING:
    import pyarrow


def schema_to_text(table: pyarrow.Table) -> str:
    """Return the schema of `table` with the dictionaries of its columns, as text.

    Example:
        >>> import pyarrow
        >>> table = pyarrow.table({"n": pyarrow.array([1], pyarrow.int8())})
        >>> restore_schema(pyarrow.table({"n": [1]}), schema_to_text(table)).schema.field("n").type
        DataType(int8)
    """
    import pyarrow

    # An empty record batch still carries the dictionaries of its columns.
    columns = [_empty(column) for column in table.unify_dictionaries().columns]
    batch = pyarrow.RecordBatch.from_arrays(columns, schema=table.schema)
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue()).decode("ascii")


def _empty(column: pyarrow.ChunkedArray) -> pyarrow.Array:
    import pyarrow

    if column.num_chunks:
        # not slice(0, 0): of large texts the stream would hold all bytes of the whole chunk
        return column.chunk(0).take(pyarrow.array([], pyarrow.int64()))
    return pyarrow.array([], type=column.type)


def text_to_schema(text: str) -> pyarrow.Schema:
    """Return the schema that `schema_to_text` noted.

    Example:
        >>> import pyarrow
        >>> text_to_schema(schema_to_text(pyarrow.table({"n": [1]}))).names
        ['n']
    """
    return _noted(text).schema


def restore_schema(table: pyarrow.Table, text: str) -> pyarrow.Table:
    """Return `table` with the schema, and the dictionaries, that `schema_to_text` noted.

    Args:
        table: what Parquet returned.
        text: what `schema_to_text` returned for the original.
    """
    return _restore(table, _noted(text))


def _noted(text: str) -> pyarrow.RecordBatch:
    import pyarrow

    with pyarrow.ipc.open_stream(base64.b64decode(text)) as reader:
        return reader.read_next_batch()


def _restore(table: pyarrow.Table, original: pyarrow.RecordBatch) -> pyarrow.Table:
    import pyarrow

    columns = [
        _restore_column(column, needed) for column, needed in zip(table.columns, original.columns, strict=True)
    ]
    return pyarrow.Table.from_arrays(columns, schema=original.schema)


def _restore_column(column: pyarrow.ChunkedArray, needed: pyarrow.Array) -> pyarrow.ChunkedArray:
    import pyarrow

    if not pyarrow.types.is_dictionary(needed.type):
        return column if column.type == needed.type else column.cast(needed.type)
    import pyarrow.compute

    kind = needed.type
    values = column.cast(kind.value_type)
    indices = pyarrow.compute.index_in(values, value_set=needed.dictionary).cast(kind.index_type)
    chunks = [
        pyarrow.DictionaryArray.from_arrays(chunk, needed.dictionary, ordered=kind.ordered)
        for chunk in indices.chunks or [pyarrow.array([], kind.index_type)]
    ]
    return pyarrow.chunked_array(chunks, type=kind)


_KINDS = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}
_KIND_KEY = "flowstone.kind"
_SCHEMA_KEY = "flowstone.schema"
_ROW_GROUP_ROWS = 1024 * 1024
"""As by default in pyarrow; with a quarter of it, writing takes half as long again."""
_ROW_GROUP_BYTES = 64 * 1024 * 1024
"""A group of rows lies in memory twice while it is read: wide tables have fewer rows in a group."""
_LEAST_GROUP_ROWS = 64 * 1024
_READ_BYTES = 1024 * 1024
"""Of each column at once, while it is decoded; else all that a group of rows takes in the file."""
_COMPRESSION = "snappy"
"""What pandas and pyarrow take by default: zstd makes files a quarter smaller, and writing twice as slow."""


class ParquetSerializer:
    """Writes pandas and polars DataFrames and pyarrow Tables as Parquet; each comes back as what it was.

    The library and the exact Arrow schema are kept in the key-value metadata of the file, because Parquet
    itself forgets unused categories, categories that are not text, and times in whole seconds. Other tools
    read the file as ordinary Parquet. A table that would come back with other types is refused.
    Equal tables give equal bytes with equal versions of the libraries.

    Example:
        >>> import io, pyarrow
        >>> file = io.BytesIO()
        >>> ParquetSerializer().write(pyarrow.table({"n": [1, 2]}), file)
        >>> ParquetSerializer().read(io.BytesIO(file.getvalue())).to_pylist()
        [{'n': 1}, {'n': 2}]
    """

    @property
    def name(self) -> str:
        """`"parquet"`."""
        return "parquet"

    @property
    def extension(self) -> str:
        """`".parquet"`."""
        return ".parquet"

    def accepts(self, value: object) -> bool:
        """Return whether the value is a DataFrame of pandas or polars, or a pyarrow Table (no subclass)."""
        return _kind(value) is not None

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the table, row group by row group.

        Raises:
            SerializationError: not a table, or a column would not come back as it is.
            MissingExtraError: pyarrow is not installed.
        """
        kind = _kind(value)
        if kind is None:
            raise _refusal(
                "The parquet serializer takes DataFrames of pandas and polars and pyarrow Tables only",
                value,
                "Return one of these; collect a polars LazyFrame first.",
            )
        _require_pyarrow("Storing a table")
        import pyarrow
        import pyarrow.parquet

        table: pyarrow.Table | None = None
        try:
            pieces = frame_in_pieces(kind, value, _rows_of_group)
            table, beside = frame_to_arrow(kind, value if pieces is None else next(pieces))
            check_arrow(table)
            metadata = {_KIND_KEY: kind, _SCHEMA_KEY: schema_to_text(table)} | beside
            with pyarrow.parquet.ParquetWriter(file, table.schema, compression=_COMPRESSION) as writer:
                writer.write_table(table, row_group_size=_rows_of_group(table.nbytes, table.num_rows))
                for piece in pieces or ():
                    table = None
                    table, _ = frame_to_arrow(kind, piece)
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
                writer.add_key_value_metadata(metadata)
        except (pyarrow.ArrowException, ValueError, TypeError) as error:
            if isinstance(error, SerializationError):
                raise
            raise SerializationError(
                f"Parquet cannot hold this table ({error})",
                path=_column_at_fault(table),
                type_name=type_name(value),
                remedy="Give every column one plain type, or choose PickleSerializer(key=...).",
            ) from error

    def read(self, file: BinaryIO) -> object:
        """Return the table, as a value of the library that it was stored from.

        A large one is read by groups of rows, so that it is never there twice, as Arrow and as what it becomes.

        Raises:
            MissingExtraError: that library, or pyarrow, is not installed.
        """
        _require_pyarrow("Loading a table")
        import pyarrow.parquet

        source = pyarrow.parquet.ParquetFile(_native(file), buffer_size=_READ_BYTES)
        metadata = {
            key.decode(): text.decode()
            for key, text in (source.metadata.metadata or {}).items()
            if key.startswith(b"flowstone.")
        }
        kind = metadata.get(_KIND_KEY, "pyarrow")
        if kind == "polars" and _SCHEMA_KEY in metadata:
            frame = read_plain_polars(
                file, restore_schema(source.schema_arrow.empty_table(), metadata[_SCHEMA_KEY])
            )
            if frame is not None:
                return frame
        original = _noted(metadata[_SCHEMA_KEY]) if _SCHEMA_KEY in metadata else None
        groups = source.num_row_groups
        read = _groups(source) if groups > 1 else (source.read(),)
        # not a generator expression: it would hold a piece while the next one is read
        pieces = read if original is None else map(partial(_restore, original=original), read)
        return arrow_to_frame(kind, pieces, source.metadata.num_rows, metadata)


def _native(file: BinaryIO) -> Any:
    """Return a file that Arrow reads without Python.

    Its threads let go of what they read from a little later, and abort the process when that takes an interpreter
    that has just been shut down ("terminate called without an active exception").
    """
    import pyarrow

    path = path_of(file)
    if path is not None:
        return pyarrow.OSFile(path)
    file.seek(0)
    return pyarrow.BufferReader(file.read()) if is_small(file) else file


def _groups(source: pyarrow.parquet.ParquetFile) -> Iterator[pyarrow.Table]:
    """Yield the groups of rows of a file; what was let go of one makes room for the next."""
    import pyarrow

    pool = pyarrow.default_memory_pool()
    for number in range(source.num_row_groups):
        yield source.read_row_group(number)
        pool.release_unused()


def _rows_of_group(size: int, rows: int) -> int:
    """Return how many rows of a table are written together.

    Args:
        size: of the table, in bytes.
        rows: how many it has.
    """
    fitting = _ROW_GROUP_BYTES // max(1, size // max(1, rows))
    return min(_ROW_GROUP_ROWS, max(_LEAST_GROUP_ROWS, fitting))


def _kind(value: object) -> str | None:
    """Return the library of a table, without importing any."""
    for library, type_of_table in _KINDS.items():
        module = sys.modules.get(library)
        if module is not None and type(value) is getattr(module, type_of_table, None):
            return library
    return None


def _column_at_fault(table: pyarrow.Table | None) -> str:
    """Return the first column that cannot be written alone."""
    import pyarrow
    import pyarrow.parquet

    for position, name in enumerate(table.column_names if table is not None else ()):
        assert table is not None
        try:
            pyarrow.parquet.write_table(table.select([position]), io.BytesIO())
        except (pyarrow.ArrowException, ValueError, TypeError):
            return f"$[{name!r}]"
    return "$"


def _require_pyarrow(purpose: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "parquet", purpose) from error


def _refusal(problem: str, value: object, remedy: str) -> SerializationError:
    return SerializationError(problem, path="$", type_name=type_name(value), remedy=remedy)
