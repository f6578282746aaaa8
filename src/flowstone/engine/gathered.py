"""The results of the items of a scatter, read page by page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from flowstone.core.items import decode_item
from flowstone.core.output import JsonValue, OutputAddress, StoredOutput, type_name
from flowstone.core.partition import Partition, decode_partition
from flowstone.core.scattering import WITH_VALUE, WITHOUT_VALUE, ItemCounts, ItemRow
from flowstone.core.state import State
from flowstone.errors import SerializationError
from flowstone.protocols import ScatterStore

PAGE = 500
"""Items read at once. While a page is used the next one is read, and no further one."""

IO_NAME = "scatter"


class ItemResult(NamedTuple):
    """What an item made.

    Args:
        key: the item's key.
        item: the item.
        value: what its function returned.
    """

    key: Partition
    item: Any
    value: Any


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item without a result.

    Args:
        key: the item's key.
        item: the item.
        state: `failed` or `cancelled`.
        error: text of its error, with the traceback.
        error_type: class of its error.
        attempts: how many attempts were made.
    """

    key: Partition
    item: Any
    state: State
    error: str | None
    error_type: str | None
    attempts: int


class Gathered:
    """Reads the results of items, lazily and in the order of discovery: a million of them need no list.

    Iterating yields an `ItemResult` for each item that succeeded; it can be repeated. `len` is
    their number.

    Args:
        run_id: the run of the items.
        store: where they are.
        load: loads a stored value.

    Example:
        >>> from flowstone import FlowStone, scatter
        >>> @scatter(each=lambda number: number * number)
        ... def squares():
        ...     return [1, 2, 3]
        >>> results = FlowStone([squares]).materialize("squares").value
        >>> results, [(result.key, result.value) for result in results]
        (<Gathered: 3 of 3 items succeeded>, [(1, 1), (2, 4), (3, 9)])
    """

    def __init__(self, run_id: str, store: ScatterStore, load: Callable[[StoredOutput], object]) -> None:
        self.run_id = run_id
        self._store = store
        self._load = load
        self._counts: ItemCounts | None = None

    def __iter__(self) -> Iterator[ItemResult]:
        for row in self._rows(WITH_VALUE):
            value = self._load(row.stored) if row.stored is not None else None
            yield ItemResult(key_in(row.partition), decode_item(row.item), value)

    def __len__(self) -> int:
        return self.succeeded

    def __bool__(self) -> bool:
        return True  # not a list that is empty, but a reader

    def __repr__(self) -> str:
        return f"<Gathered: {self.succeeded:,} of {self.total:,} items succeeded>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "the reader of gathered items belongs to this process: read what is needed in the gathering function, "
            "and return that"
        )

    @property
    def failures(self) -> Iterator[ItemFailure]:
        """The items without a result, lazily and in the order of discovery."""
        return (
            ItemFailure(
                key_in(row.partition), decode_item(row.item), row.state, row.error, row.error_type, row.attempt
            )
            for row in self._rows(WITHOUT_VALUE)
        )

    @property
    def counts(self) -> ItemCounts:
        """How many items ended in each state."""
        if self._counts is None:
            self._counts = self._store.counts(self.run_id)
        return self._counts

    @property
    def total(self) -> int:
        """Number of items that were discovered."""
        return self.counts.total

    @property
    def succeeded(self) -> int:
        """Number of items with a result."""
        return self.counts.succeeded

    @property
    def failed(self) -> int:
        """Number of items without a result: they failed, or were cancelled."""
        return self.counts.failed + self.counts.cancelled

    @property
    def skipped(self) -> int:
        """Number of items that had nothing to do."""
        return self.counts.skipped

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts as plain data."""
        return {
            "run_id": self.run_id,
            "total": self.total,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "skipped": self.skipped,
        }

    def _rows(self, states: Collection[State]) -> Iterator[ItemRow]:
        def read(after: int) -> list[ItemRow]:
            return self._store.page(self.run_id, after=after, limit=PAGE, states=states)

        page = read(-1)
        if len(page) < PAGE:
            yield from page
            return
        with ThreadPoolExecutor(1, thread_name_prefix="flowstone-gather") as ahead:
            while page:
                following = ahead.submit(read, page[-1].position) if len(page) == PAGE else None
                yield from page
                page = following.result() if following is not None else []


def key_in(partition: str) -> Partition:
    """Return the key of an item in the encoded pair of partition and key.

    Example:
        >>> key_in("(n:|s:eu)")
        'eu'
    """
    pair = decode_partition(partition)
    return pair[1] if isinstance(pair, tuple) else pair


class GatheredIO:
    """The IO manager of scatters without a gathering function: it stores where their results are.

    Args:
        store: where items are.
        load: loads a stored value.
        shared: whether other processes see the same store.
    """

    name = IO_NAME
    internal = True
    """Nobody may choose it by name."""

    def __init__(self, store: ScatterStore, load: Callable[[StoredOutput], object], *, shared: bool) -> None:
        self._store = store
        self._load = load
        self.shared = shared

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Describe a reader; the results lie with the items already."""
        if not isinstance(value, Gathered):
            raise SerializationError(
                f'Asset {address.asset!r} has io="{IO_NAME}", which only knows gathered items',
                path="$",
                type_name=type_name(value),
                remedy="Leave io out.",
            )
        return StoredOutput(self.name, value.run_id, value_type=type_name(value), metadata=value.to_json())

    def load(self, stored: StoredOutput) -> Gathered:
        """Return the reader."""
        return Gathered(stored.location, self._store, self._load)

    def discard(self, stored: StoredOutput) -> None:
        """Do nothing: items are pruned with their step."""
