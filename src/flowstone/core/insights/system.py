"""What a store says of itself: its tables and its connections."""

from __future__ import annotations

from typing import NamedTuple


class TableSize(NamedTuple):
    """A table.

    Args:
        name: its name.
        rows: about how many rows it has; -1 when nobody has counted yet.
        size_bytes: its size, values that lie outside its rows included.
        index_bytes: the size of its indexes.
    """

    name: str
    rows: int
    size_bytes: int
    index_bytes: int


class PoolUse(NamedTuple):
    """The connections of this process to its database.

    Args:
        name: what they are for.
        maximum: how many there may be.
        opened: how many there are.
        idle: how many of them are free.
        waiting: how many threads wait for one.
    """

    name: str
    maximum: int
    opened: int
    idle: int
    waiting: int
