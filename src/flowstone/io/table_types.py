"""Converts DataFrames to Arrow tables and back, refusing those that would come back as something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowstone.errors import MissingExtraError, SerializationError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


def frame_to_arrow(kind: str, value: Any) -> pyarrow.Table:
    """Return the Arrow table of a DataFrame.

    Args:
        kind: `"pandas"`, `"polars"` or `"pyarrow"`.
        value: a DataFrame or Table of that library.

    Raises:
        SerializationError: a column would come back with another type.
    """
    if kind == "pandas":
        return _pandas_to_arrow(value)
    if kind == "polars":
        return _polars_to_arrow(value)
    table: pyarrow.Table = value
    return table


def arrow_to_frame(kind: str, table: pyarrow.Table) -> object:
    """Return the DataFrame of an Arrow table, the reverse of `frame_to_arrow`.

    Raises:
        MissingExtraError: the library is not installed here.

    Example:
        >>> import pyarrow
        >>> arrow_to_frame("polars", pyarrow.table({"n": [1, 2]})).shape
        (2, 1)
    """
    try:
        if kind == "pandas":
            return table.to_pandas()
        if kind == "polars":
            import polars

            return polars.from_arrow(table)
    except ModuleNotFoundError as error:
        raise MissingExtraError(kind, "parquet", f"Loading a table of {kind}") from error
    return table


def _pandas_to_arrow(frame: pandas.DataFrame) -> pyarrow.Table:
    import pyarrow

    # Refused before pyarrow warns of them: silencing a warning is not safe among threads.
    if frame.columns.nlevels == 1 and frame.columns.inferred_type.startswith("mixed"):
        raise _refusal("Column names of mixed types", frame.columns.dtype, "$.columns", "Use text for all.")
    table = pyarrow.Table.from_pandas(frame)
    restored: pandas.DataFrame = table.slice(0, 0).to_pandas()
    if not restored.columns.equals(frame.columns) or restored.columns.dtype != frame.columns.dtype:
        raise _refusal("Column names", frame.columns.dtype, "$.columns", "Use text for all column names.")
    for position, (name, kind) in enumerate(frame.dtypes.items()):
        path = f"$[{name!r}]"
        if restored.dtypes.iloc[position] != kind:
            raise _refusal(f"A column of dtype {kind}", kind, path, "Change it with .astype(...).")
        if kind.kind == "O" and _holds_lists(table.schema.field(position).type):
            raise _refusal(
                "A pandas column of lists", "list", path, "Store a polars or pyarrow table: they have list types."
            )
    index, original = restored.index, frame.index
    if index.names != original.names or _index_types(index) != _index_types(original):
        raise _refusal("This index", original.dtype, "$.index", "Call .reset_index() first.")
    return table


def _index_types(index: pandas.Index[Any]) -> list[object]:
    return [index.get_level_values(level).dtype for level in range(index.nlevels)]


def _holds_lists(kind: pyarrow.DataType) -> bool:
    import pyarrow

    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_map(kind):
        return True
    return types.is_struct(kind) and any(_holds_lists(field.type) for field in kind)


def _polars_to_arrow(frame: polars.DataFrame) -> pyarrow.Table:
    import polars

    # The oldest level is what every supported pyarrow can write as Parquet.
    table = frame.to_arrow(compat_level=polars.CompatLevel.oldest())
    restored = polars.from_arrow(table.slice(0, 0))
    for name, kind in frame.schema.items():
        found = restored.schema.get(name) if isinstance(restored, polars.DataFrame) else None
        if found != kind:
            raise _refusal(f"A column of type {kind}", kind, f"$[{name!r}]", "Change it with .cast(...).")
    return table


def _refusal(what: str, kind: object, path: str, remedy: str) -> SerializationError:
    return SerializationError(
        f"{what} would not come back from Parquet as it is", path=path, type_name=str(kind), remedy=remedy
    )
