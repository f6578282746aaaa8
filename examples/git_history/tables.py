"""The tables between the assets: their schemas, and the way from git to Arrow and back to records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import batched
from operator import attrgetter
from typing import Any

import pyarrow as pa

from git_history.records import Commit, FileChange
from git_history.repository import Repository

_BATCH = 10_000  # rows
_UTC = pa.timestamp("ms", tz="UTC")  # Parquet has no seconds; so a table comes back as it was


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


COMMITS = pa.schema(
    [
        _required("commit", pa.string()),
        _required("parents", pa.int32()),
        _required("committed_at", _UTC),
        _required("authored_at", _UTC),
        _required("author_offset_minutes", pa.int16()),
        _required("author_name", pa.string()),
        _required("author_email", pa.string()),
        _required("subject", pa.string()),
    ]
)
FILE_CHANGES = pa.schema(
    [
        _required("commit", pa.string()),
        _required("path", pa.string()),
        pa.field("previous_path", pa.string()),
        pa.field("added", pa.int64()),
        pa.field("deleted", pa.int64()),
    ]
)
AUTHORS = pa.schema(
    [
        _required("email", pa.string()),
        _required("name", pa.string()),
        _required("commits", pa.int64()),
        _required("active_months", pa.int64()),
        _required("first_commit", _UTC),
        _required("last_commit", _UTC),
    ]
)
HOTSPOTS = pa.schema(
    [
        _required("path", pa.string()),
        _required("changes", pa.int64()),
        _required("added", pa.int64()),
        _required("deleted", pa.int64()),
    ]
)
COUPLED_FILES = pa.schema(
    [
        _required("left", pa.string()),
        _required("right", pa.string()),
        _required("together", pa.int64()),
        _required("share", pa.float64()),
    ]
)
WEEKLY = pa.schema(
    [_required("week", pa.date32()), _required("commits", pa.int64()), _required("authors", pa.int64())]
)
HOURS = pa.schema(
    [_required("weekday", pa.int8()), _required("hour", pa.int8()), _required("commits", pa.int64())]
)

_COMMIT_FIELDS = attrgetter(*Commit.__slots__)
_CHANGE_FIELDS = attrgetter(*FileChange.__slots__)


def commits_table(repository: Repository, month: date) -> pa.Table:
    """Return the commits of a month, parents before children.

    Args:
        repository: where to read.
        month: its first day.

    Returns:
        A table with the schema `COMMITS`; empty if the month has none.
    """
    return build(COMMITS, map(_COMMIT_FIELDS, repository.commits(month)))


def file_changes_table(repository: Repository, month: date) -> pa.Table:
    """Return the files that the commits of a month changed (merges excepted), with their line counts.

    Args:
        repository: where to read.
        month: its first day.

    Returns:
        A table with the schema `FILE_CHANGES`, in the order of `commits_table`, then of paths; line counts of
        binary files are null.
    """
    return build(FILE_CHANGES, map(_CHANGE_FIELDS, repository.file_changes(month)))


def in_order(tables: Mapping[date, pa.Table]) -> pa.Table:
    """Put monthly tables together, oldest month first.

    Args:
        tables: one table of one schema for each month; at least one.

    Returns:
        One table; the columns are not copied.
    """
    return pa.concat_tables([tables[month] for month in sorted(tables)])


def build(schema: pa.Schema, rows: Iterable[tuple[object, ...]]) -> pa.Table:
    """Build a table from rows, a batch at a time, so that a large month is never held as Python objects.

    Args:
        schema: names and types of the columns.
        rows: values in the order of the columns.

    Returns:
        A table in one chunk: equal rows give equal bytes.

    Example:
        >>> build(HOURS, [(0, 9, 3)]).to_pylist()
        [{'weekday': 0, 'hour': 9, 'commits': 3}]
    """
    batches = [
        pa.record_batch(
            [pa.array(column, kind) for column, kind in zip(zip(*some, strict=True), schema.types, strict=True)],
            schema=schema,
        )
        for some in batched(rows, _BATCH)
    ]
    return pa.Table.from_batches(batches, schema=schema).combine_chunks()


def read_commits(table: pa.Table) -> Iterator[Commit]:
    """Yield the rows of a table with the schema `COMMITS`."""
    return (Commit(*row) for row in _rows(table))


def read_changes(table: pa.Table) -> Iterator[FileChange]:
    """Yield the rows of a table with the schema `FILE_CHANGES`."""
    return (FileChange(*row) for row in _rows(table))


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:  # the schema vouches for the types
    for batch in table.to_batches(max_chunksize=_BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
