"""The partitions of an asset with their states: in order, as run lengths, and in buckets that fit on a page.

`PartitionStates` has a code for each partition; `partition_map` puts them on a calendar, a matrix or in rows, and
joins them when they are more than a page can show. Everything is computed over positions, not over objects:
100,000 partitions take a few hundredths of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.definition import ListedPartitions, PartitionsDefinition, write_partition
from flowstone.core.insights.assets import AssetTargets
from flowstone.core.partitions import NO_PARTITION, PartitionKey, encode_partition
from flowstone.core.partitions_by_key import DynamicPartitions, MultiPartitions
from flowstone.core.partitions_by_time import TimePartitions

MISSING, COMMITTED, STALE, ACTIVE, UNSTARTED, FAILED = range(6)
"""States of a partition: nothing in use, in use, stale, with a step that is not over, unstarted, failed."""
STATES = ("missing", "committed", "stale", "active", "unstarted", "failed")
"""The states by their number, as pages and JSON call them."""
CODES = "ncsauf"
"""One letter for each of `STATES`: nothing, committed, stale, active, unstarted, failed."""
_WORST = (FAILED, ACTIVE, UNSTARTED, STALE, MISSING, COMMITTED)
MAX_CELLS = 2_000
MAX_KEYS = 1_000_000
"""More partitions of an asset than this are not looked at; the last ones are."""


@dataclass(frozen=True, slots=True)
class PartitionStates:
    """The state of each partition of an asset, in their order.

    Args:
        asset: its name.
        total: how many partitions it has.
        codes: a letter for each partition (`CODES`) with a number before it when several in a row have it:
            `120cf3n` is 120 committed ones, one that failed, three with nothing.
        counts: how many are in each state, by the names of `STATES`; they sum up to `total`.
        first: the first partition, as people write it.
        last: the last one.
        undeclared: how many committed ones are no partition of it any more, or none yet.
        stale_known: whether it is known which committed ones are stale.
    """

    asset: str
    total: int
    codes: str
    counts: Mapping[str, int]
    first: str
    last: str
    undeclared: int
    stale_known: bool


@dataclass(frozen=True, slots=True)
class MapCell:
    """Some partitions that stand together in a map.

    Args:
        row: position of its row.
        column: position of its column.
        first: its first partition, as people write it.
        last: its last one; the same when it has one.
        size: how many it has.
        worst: the state that matters most among them.
        counts: how many are in each state; states that none is in are left out.
    """

    row: int
    column: int
    first: str
    last: str
    size: int
    worst: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PartitionMap:
    """The partitions of an asset on a page: at most 2,000 cells.

    Args:
        kind: `calendar`, `matrix` or `rows`.
        unit: what a cell stands for in a calendar: `minute`, `hour`, `day`, `month`, `year`; else empty.
        rows: labels of the rows.
        columns: labels of the columns.
        cells: the cells, in the order of the partitions.
        is_bucketed: whether cells stand for several partitions.
    """

    kind: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[MapCell, ...]
    is_bucketed: bool


class OrderedPartitions:
    """The encoded partitions of a definition in their order, as of one moment.

    Args:
        definition: the definition; None for an asset without partitions.
        keys: the partitions, encoded.
    """

    def __init__(self, definition: PartitionsDefinition | None, keys: Sequence[PartitionKey]) -> None:
        self.definition = definition
        self.keys = keys

    @cached_property
    def places(self) -> Mapping[PartitionKey, int]:
        """Where each of them stands."""
        return {key: place for place, key in enumerate(self.keys)}

    @cached_property
    def known(self) -> frozenset[PartitionKey]:
        """The same without order."""
        return frozenset(self.keys)

    @cached_property
    def walls(self) -> Sequence[str]:
        """Wall clocks of partitions by time, in the zone of the definition."""
        # "d:2024-01-01" and "t:2024-01-01T05:00..." have them behind the tag
        return [key[2:18] for key in self.keys]

    @cached_property
    def _starts(self) -> dict[int, Sequence[int]]:
        return {}

    def starts(self, end: int) -> Sequence[int]:
        """Return the places at which the first characters of wall clocks change."""
        if end not in self._starts:
            self._starts[end] = _changes(self.walls, end)
        return self._starts[end]

    def label(self, position: int) -> str:
        """Return a partition as people write it."""
        return write_partition(self.definition, self.keys[position])

    def position(self, key: PartitionKey) -> int | None:
        """Return where a partition stands; None when it is not among them."""
        return self.places.get(key)


class PartitionOrders:
    """Keeps the ordered partitions of assets: computing 100,000 takes longer than all questions about them.

    A list of keys is kept for good, those by time grow at their end, and dynamic ones are kept until they change.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[PartitionsDefinition, object, OrderedPartitions]] = {}

    def of(self, asset: Asset, now: datetime, recorded: Iterable[PartitionKey] = ()) -> OrderedPartitions:
        """Return the complete partitions of an asset.

        Args:
            asset: the asset.
            now: decides which partitions are complete.
            recorded: the partitions that something is recorded of, for definitions that cannot list theirs.
        """
        definition = asset.partitions
        if definition is None:
            return OrderedPartitions(None, [NO_PARTITION])
        if not definition.listable:
            return OrderedPartitions(definition, sorted(set(recorded))[-MAX_KEYS:])
        kept = self._kept.get(asset.name)
        mark = _mark(definition, now)
        if kept is not None and kept[0] is definition and mark is not None and kept[1] == mark:
            return kept[2]
        if kept is not None and kept[0] is definition and isinstance(definition, TimePartitions):
            found = OrderedPartitions(definition, _grown(definition, kept[2].keys, kept[1], mark, now))
        else:
            found = OrderedPartitions(
                definition, [encode_partition(key) for key in definition.keys(now)][-MAX_KEYS:]
            )
        if mark is not None:
            self._kept[asset.name] = (definition, mark, found)
        return found


def _mark(definition: PartitionsDefinition, now: datetime) -> object:
    """Return what the list of keys changes with; None when that is not known."""
    if isinstance(definition, DynamicPartitions):
        return None
    if isinstance(definition, TimePartitions):
        return definition.last(now)
    if isinstance(definition, MultiPartitions):
        marks = [_mark(one, now) for one in definition.dimensions.values()]
        return None if None in marks else tuple(marks)
    return len(getattr(definition, "_keys", ())) if isinstance(definition, ListedPartitions) else None


def _grown(
    definition: TimePartitions[Any], keys: Sequence[PartitionKey], before: Any, last: Any, now: datetime
) -> list[PartitionKey]:
    """Return the keys with those that have become complete since."""
    if not keys or before is None or last is None or last <= before:
        return [encode_partition(key) for key in definition.keys(now)][-MAX_KEYS:]
    more = [encode_partition(key) for key in definition.between(before, None, now)]
    return [*keys, *more[1:]][-MAX_KEYS:]


def state_numbers(
    order: OrderedPartitions, targets: AssetTargets, stale: frozenset[PartitionKey] = frozenset()
) -> bytearray:
    """Return the number of the state of each partition, in order.

    A step that is not over counts before a failure, a failure before the version in use.
    """
    places, committed = order.places, targets.committed
    lacking = order.known - committed
    if len(lacking) < len(places) / 2:
        numbers, layers = bytearray([COMMITTED]) * len(places), [(lacking, MISSING)]
    else:
        numbers, layers = bytearray(len(places)), [(committed, COMMITTED)]
    layers += [(stale & committed, STALE), (targets.failed, FAILED), (targets.unstarted, UNSTARTED)]
    for some, number in (*layers, (targets.active, ACTIVE)):
        for key in some:
            if (place := places.get(key)) is not None:
                numbers[place] = number
    return numbers


def partition_states(
    asset: str,
    order: OrderedPartitions,
    targets: AssetTargets,
    stale: frozenset[PartitionKey] | None = None,
) -> PartitionStates:
    """Return the states of all partitions of an asset.

    Args:
        asset: its name.
        order: its partitions.
        targets: what the store says of them.
        stale: those that are stale; None when that is not known.
    """
    numbers = state_numbers(order, targets, stale or frozenset())
    return PartitionStates(
        asset=asset,
        total=len(numbers),
        codes=run_lengths(numbers),
        counts={name: numbers.count(number) for number, name in enumerate(STATES)},
        first=order.label(0) if numbers else "",
        last=order.label(len(numbers) - 1) if numbers else "",
        undeclared=len(targets.committed - order.known),
        stale_known=stale is not None,
    )


def run_lengths(numbers: bytes | bytearray) -> str:
    """Return states as text: a letter for each, with a number before it when several in a row have it.

    Example:
        >>> run_lengths(bytes([COMMITTED] * 3 + [FAILED] + [MISSING] * 12))
        '3cf12n'
    """
    return _RUN.sub(lambda run: f"{len(run[0])}{run[1]}", numbers.translate(_TO_CODES).decode())


_RUN = re.compile(r"(.)\1+")
_TO_CODES = bytes.maketrans(bytes(range(len(CODES))), CODES.encode())


def read_run_lengths(codes: str) -> bytearray:
    """Return the states that `run_lengths` wrote.

    Example:
        >>> list(read_run_lengths("2cf"))
        [1, 1, 5]
    """
    numbers, digits = bytearray(), ""
    for one in codes:
        if one.isdecimal():
            digits += one
        else:
            numbers += bytes([CODES.index(one)]) * int(digits or 1)
            digits = ""
    return numbers


# --- maps ----------------------------------------------------------------------------------------------------


_UNITS = (
    # name, characters of a label that name the row, and the cell
    ("minute", 13, 16),
    ("hour", 10, 13),
    ("day", 7, 10),
    ("month", 4, 7),
    ("year", 3, 4),
)


def partition_map(
    order: OrderedPartitions, numbers: bytes | bytearray, *, max_cells: int = MAX_CELLS
) -> PartitionMap:
    """Return the partitions as cells: by calendar, as a matrix of two dimensions, or in rows.

    Args:
        order: the partitions.
        numbers: their states, see `state_numbers`.
        max_cells: how many cells there may be; beyond that one stands for several partitions.
    """
    definition = order.definition
    if isinstance(definition, TimePartitions):
        return _calendar(order, numbers, max_cells)
    if isinstance(definition, MultiPartitions) and len(definition.dimensions) > 1 and definition.listable:
        found = _matrix(order, numbers, max_cells)
        if found is not None:
            return found
    return _rows(order, numbers, max_cells)


def _calendar(order: OrderedPartitions, numbers: bytes | bytearray, max_cells: int) -> PartitionMap:
    walls = order.walls
    units = _UNITS[_step(walls) :]
    found = next((one for one in units if len(order.starts(one[2])) <= max_cells), units[-1])
    unit, row_end, cell_end = found
    starts = order.starts(cell_end)[-max_cells:]
    slots = [walls[at][row_end:cell_end].strip("-T:") for at in starts]
    columns = {name: position for position, name in enumerate(sorted(set(slots)))}
    rows: dict[str, int] = {}
    cells = []
    for (start, stop), slot in zip(pairwise([*starts, len(walls)]), slots, strict=True):
        row = rows.setdefault(walls[start][:row_end] + ("0s" if unit == "year" else ""), len(rows))
        cells.append(_cell(order, numbers, range(start, stop), row, columns[slot]))
    return PartitionMap("calendar", unit, tuple(rows), tuple(columns), tuple(cells), len(cells) < len(walls))


def _step(walls: Sequence[str]) -> int:
    """Return the finest unit that keeps partitions apart; dates have none below the day."""
    if not walls or len(walls[0]) <= 10:
        day = {wall[8:10] for wall in walls[:40]}
        if len(day) > 1:
            return 2
        months = {wall[5:7] for wall in walls[:40]}
        return 3 if len(months) > 1 else 4
    return 0 if any(wall[14:16] != "00" for wall in walls[:120]) else 1


def _changes(walls: Sequence[str], end: int) -> list[int]:
    """Return the positions at which the first characters change."""
    found, before = [], None
    for position, wall in enumerate(walls):
        if (here := wall[:end]) != before:
            found.append(position)
            before = here
    return found


def _matrix(order: OrderedPartitions, numbers: bytes | bytearray, max_cells: int) -> PartitionMap | None:
    """Return rows for the first dimension and columns for the others; None when it is no full product."""
    keys = order.keys
    firsts = _changes_of_first(keys)
    if not firsts:
        return None
    width = len(keys) // len(firsts)
    if len(firsts) * width != len(keys) or any(at != number * width for number, at in enumerate(firsts)):
        return None
    row_size = column_size = 1
    while -(-len(firsts) // row_size) * -(-width // column_size) > max_cells:
        if -(-width // column_size) >= -(-len(firsts) // row_size):
            column_size += 1
        else:
            row_size += 1
    cells = []
    rows, columns = range(0, len(firsts), row_size), range(0, width, column_size)
    for row, top in enumerate(rows):
        for column, left in enumerate(columns):
            inside = [
                line * width + place
                for line in range(top, min(top + row_size, len(firsts)))
                for place in range(left, min(left + column_size, width))
            ]
            cells.append(_cell(order, numbers, inside, row, column))
    row_labels = tuple(order.label(at * width).partition("|")[0] for at in rows)
    column_labels = tuple(order.label(at).partition("|")[2] for at in columns)
    return PartitionMap("matrix", "", row_labels, column_labels, tuple(cells), len(cells) < len(keys))


def _changes_of_first(keys: Sequence[PartitionKey]) -> list[int]:
    """Return the positions at which the first dimension of encoded tuples changes."""
    found, before = [], None
    for position, key in enumerate(keys):
        here = key.partition("|")[0]
        if here != before:
            found.append(position)
            before = here
    return found


_ROW = 50


def _rows(order: OrderedPartitions, numbers: bytes | bytearray, max_cells: int) -> PartitionMap:
    size = max(1, -(-len(numbers) // max_cells))
    starts = range(0, len(numbers), size)
    cells = tuple(
        _cell(order, numbers, range(start, min(start + size, len(numbers))), number // _ROW, number % _ROW)
        for number, start in enumerate(starts)
    )
    labels = tuple(cell.first for cell in cells[::_ROW])
    return PartitionMap("rows", "", labels, tuple(map(str, range(min(_ROW, len(cells))))), cells, size > 1)


def _cell(
    order: OrderedPartitions, numbers: bytes | bytearray, inside: Sequence[int], row: int, column: int
) -> MapCell:
    if isinstance(inside, range):
        some = numbers[inside.start : inside.stop]
    else:
        some = bytes(numbers[at] for at in inside)
    counts = {number: found for number in range(len(STATES)) if (found := some.count(number))}
    worst = next(number for number in _WORST if number in counts)
    first = order.label(inside[0])
    return MapCell(
        row=row,
        column=column,
        first=first,
        last=order.label(inside[-1]) if len(inside) > 1 else first,
        size=len(inside),
        worst=STATES[worst],
        counts={STATES[number]: found for number, found in counts.items()},
    )
