"""Keeps the exact Arrow schema, with its dictionaries, beside a Parquet file.

Parquet stores values; of an Arrow type it cannot express it keeps a hint at best. Dictionaries lose entries
that no row uses and their order, dictionaries of numbers become plain columns, seconds become milliseconds.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

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
        return column.chunk(0).slice(0, 0)
    return pyarrow.array([], type=column.type)


def restore_schema(table: pyarrow.Table, text: str) -> pyarrow.Table:
    """Return `table` with the schema, and the dictionaries, that `schema_to_text` noted.

    Args:
        table: what Parquet returned.
        text: what `schema_to_text` returned for the original.
    """
    import pyarrow

    with pyarrow.ipc.open_stream(base64.b64decode(text)) as reader:
        original = reader.read_next_batch()
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
