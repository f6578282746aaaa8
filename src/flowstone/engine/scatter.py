"""The two phases of a scatter: discovering its items, and gathering their results.

`Discovery` stores what a function yields in chunks while it goes on; `Gathered` reads results page by page, so
that memory stays flat; `Scattering` says which phase, or which item, a claimed step is about to run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import isasyncgenfunction
from typing import Any, NamedTuple, NoReturn

from flowstone.core.clean import error_line
from flowstone.core.context import AssetContext
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import Scattered, Snoozed
from flowstone.core.output import JsonValue, OutputAddress, StoredOutput, type_name
from flowstone.core.partitions import Partition, decode_partition, encode_partition, partition_label
from flowstone.core.retry import RetryPolicy
from flowstone.core.scatter import (
    DEFAULT_QUEUE,
    WITH_VALUE,
    WITHOUT_VALUE,
    ItemAsset,
    ItemCounts,
    ItemRow,
    NewItem,
    NewScatter,
    OpenScatter,
    Scatter,
    ScatterPhase,
    ScatterRecord,
    allowed_failures,
    decode_item,
    encode_item,
    key_of,
)
from flowstone.core.state import State
from flowstone.core.step import Attempt
from flowstone.engine.values import ResolvedInputs
from flowstone.errors import ItemError, ScatterFailedError, SerializationError, StepCancelledError
from flowstone.protocols import ScatterStore

CHUNK = 2000
"""Items added in one transaction."""

_MAX_PAUSE_SECONDS = 0.5
_BLOCKED_SECONDS = 1.0
_DEFAULT_RETRY = RetryPolicy()

type Answer = Scattered | Snoozed


@dataclass(slots=True)
class Discovery:
    """One attempt to discover the items of a step.

    Args:
        scatter: the asset.
        attempt: the attempt.
        store: where the items go.
    """

    scatter: Scatter
    attempt: Attempt
    store: ScatterStore

    def function(self) -> Callable[..., Any]:
        """Return what the runner calls instead of the discovering function; it takes the context first."""
        return self._discover_async if self.is_async else self._discover

    @property
    def is_async(self) -> bool:
        """Whether the discovering function is a coroutine or an asynchronous generator."""
        return self.scatter.is_async or isasyncgenfunction(self.scatter.function)

    def _discover(self, context: AssetContext, **inputs: Any) -> Answer:
        opened = self._begin(context)
        if isinstance(opened, Snoozed):
            return opened
        sink = _Sink(self.scatter, opened, self.store, context)
        return sink.take(self._replayed(opened) or self._items(self._call(context, inputs)))

    async def _discover_async(self, context: AssetContext, **inputs: Any) -> Answer:
        opened = await asyncio.to_thread(self._begin, context)
        if isinstance(opened, Snoozed):
            return opened
        sink = _Sink(self.scatter, opened, self.store, context)
        replayed = self._replayed(opened)
        if replayed is not None:
            return await asyncio.to_thread(sink.take, replayed)
        found = self._call(context, inputs)
        if isinstance(found, AsyncIterable):
            async for item in found:
                # on another thread, because the loop is that of every asset
                if sink.put(item) and not await asyncio.to_thread(sink.flush):
                    break
            return await asyncio.to_thread(sink.close)
        return await asyncio.to_thread(sink.take, self._items(await found))

    def _call(self, context: AssetContext, inputs: dict[str, Any]) -> Any:
        leading = (context,) if self.scatter.takes_context else ()
        return self.scatter.function(*leading, **inputs)

    def _items(self, found: object) -> Iterable[object]:
        if isinstance(found, str | bytes) or not isinstance(found, Iterable):
            raise TypeError(
                f"Asset {self.scatter.name!r} ({self.scatter.where}) must return or yield its items, "
                f"but returned {type_name(found)}"
            )
        return found

    def _begin(self, context: AssetContext) -> OpenScatter | Snoozed:
        scatter, item = self.scatter, self.scatter.item
        new = NewScatter(
            asset=item.name,
            selection=f"items of {scatter.name}" + (f" [{context.key}]" if context.key else ""),
            max_concurrency=scatter.max_concurrency,
            max_failures=scatter.max_failures if isinstance(scatter.max_failures, int) else None,
            max_attempts=(item.retry or _DEFAULT_RETRY).max_attempts,
            repeats=self.attempt.max_attempts > 1,
            queue=item.queue,
            follows_queue=item.queue == scatter.queue == DEFAULT_QUEUE,
            priority=item.priority,
            limits=item.concurrency,
            own_limits=frozenset(scatter.concurrency),
            code_version=item.code_version,
        )
        opened = self.store.begin(self.attempt.step_id, self.attempt.token, new)
        if opened is None:
            raise StepCancelledError(scatter.name)
        if opened.is_blocked:
            return Snoozed(_BLOCKED_SECONDS, "items of an earlier run were cancelled and have not ended yet")
        return opened

    def _replayed(self, opened: OpenScatter) -> Iterable[object] | None:
        """Return the items of the run that is retried: what it discovered completely is not discovered again."""
        previous = opened.previous
        if previous is None or previous.is_open or previous.total is None:
            return None
        return _every_item(self.store, previous.run_id)


def _every_item(store: ScatterStore, run_id: str) -> Iterator[object]:
    after = -1
    while page := store.page(run_id, after=after, limit=CHUNK, states=tuple(State)):
        yield from [decode_item(row.item) for row in page]
        after = page[-1].position


@dataclass(slots=True)
class _Sink:
    """Takes items one by one and adds them in chunks."""

    scatter: Scatter
    opened: OpenScatter
    store: ScatterStore
    context: AssetContext
    chunk: list[NewItem] = field(default_factory=list)
    position: int = 0
    flushed_at: float = field(default_factory=time.monotonic)
    is_complete: bool = True

    def take(self, items: Iterable[object]) -> Scattered:
        """Take everything."""
        for item in items:
            if self.put(item) and not self.flush():
                break
        return self.close()

    def put(self, item: object) -> bool:
        """Take an item; return whether it is time to flush."""
        name = self.scatter.name
        self.context.cancellation.raise_if_cancelled(name)
        text = encode_item(item, asset=name, position=self.position)
        key = key_of(item, self.position, self.scatter.key, asset=name)
        self.chunk.append(NewItem(self.position, encode_partition((self.context.partition, key)), text))
        self.position += 1
        return len(self.chunk) >= CHUNK or time.monotonic() - self.flushed_at > _MAX_PAUSE_SECONDS

    def flush(self) -> bool:
        """Add what was taken; return whether to go on."""
        goes_on: bool | None = True
        if self.chunk:
            try:
                goes_on = self.store.add(self.opened, self.chunk)
            except LookupError as error:
                if type(error) is not LookupError:
                    raise
                raise self._doubled(int(error.args[0])) from None
        if goes_on is None:
            raise StepCancelledError(self.scatter.name)
        self.chunk.clear()
        self.flushed_at = time.monotonic()
        self.is_complete = goes_on
        return goes_on

    def close(self) -> Scattered:
        """Add the rest, and say what there is."""
        if self.is_complete:
            self.flush()
        allowed = allowed_failures(self.scatter.max_failures, self.position)
        return Scattered(self.position, allowed, self.is_complete)

    def _doubled(self, position: int) -> ItemError:
        item = decode_item(next(one.item for one in self.chunk if one.position == position))
        key = key_of(item, position, self.scatter.key, asset=self.scatter.name)
        return ItemError(
            self.scatter.name,
            position,
            f"its key {key!r} is that of an earlier item. Items are known by their keys: leave the second out, "
            "or give @scatter(key=...) a function that gives each a name of its own.",
        )


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
            yield ItemResult(key_in(row.partition_key), decode_item(row.item), value)

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
                key_in(row.partition_key), decode_item(row.item), row.state, row.error, row.error_type, row.attempt
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


_SHOWN = 3
_MAX_ERROR = 200


class Scattering:
    """Completes the inputs of steps that belong to scatters.

    Args:
        graph: the assets.
        store: where items are.
        load: loads the stored value of an item.
    """

    def __init__(self, graph: AssetGraph, store: ScatterStore, load: Callable[[StoredOutput], object]) -> None:
        self._store = store
        self._load = load
        self._scatters = {one.name: one for one in graph if isinstance(one, Scatter)}
        self._items = {one.name: one for one in graph if isinstance(one, ItemAsset)}

    @property
    def in_use(self) -> bool:
        """Whether any asset scatters."""
        return bool(self._scatters)

    def complete(self, attempts: Sequence[Attempt], resolved: list[ResolvedInputs]) -> None:
        """Say of each step of a scatter what runs and with what; in place, with two questions for all of them."""
        items = [position for position, attempt in enumerate(attempts) if attempt.asset in self._items]
        scatters = [position for position, attempt in enumerate(attempts) if attempt.asset in self._scatters]
        if items:
            texts = self._store.items([attempts[position].step_id for position in items])
            for position in items:
                resolved[position] = self._of_item(attempts[position], texts)
        if scatters:
            records = self._store.of_steps([attempts[position].step_id for position in scatters])
            for position in scatters:
                attempt = attempts[position]
                resolved[position] = self._of_scatter(attempt, records.get(attempt.step_id), resolved[position])

    def _of_item(self, attempt: Attempt, texts: dict[int, str]) -> ResolvedInputs:
        text = texts.get(attempt.step_id)
        if text is None:
            gone = LookupError("This item was discovered by an attempt that was repeated, and not found again.")
            return ResolvedInputs((), [], [], error=gone)
        return ResolvedInputs((), [], [], given={self._items[attempt.asset].parameter: decode_item(text)})

    def _of_scatter(
        self, attempt: Attempt, record: ScatterRecord | None, inputs: ResolvedInputs
    ) -> ResolvedInputs:
        scatter = self._scatters[attempt.asset]
        if record is None or record.is_open:
            discovery = Discovery(scatter, attempt, self._store)
            phase = scatter.phase(discovery.function(), takes_context=True, is_async=discovery.is_async)
            phase.routes = ()
            return replace(inputs, phase=phase)
        if not record.is_over:
            return ResolvedInputs((), [], [], phase=_resting(scatter, record), recorded=record.inputs)
        error = self._too_many_failures(scatter, record)
        return ResolvedInputs((), [], [], error, phase=self._gathering(scatter, record), recorded=record.inputs)

    def _too_many_failures(self, scatter: Scatter, record: ScatterRecord) -> ScatterFailedError | None:
        counts = self._store.counts(record.run_id)
        allowed = record.allowed or 0
        if counts.failed + counts.cancelled <= allowed:
            return None
        return ScatterFailedError(
            scatter.name,
            record.run_id,
            total=counts.total,
            failed=counts.failed,
            cancelled=counts.cancelled,
            allowed=allowed,
            first=self._first_failures(record.run_id),
        )

    def _gathering(self, scatter: Scatter, record: ScatterRecord) -> ScatterPhase:
        reader = Gathered(record.run_id, self._store, self._load)
        if scatter.gathering is None:
            phase = scatter.phase(lambda: reader, takes_context=False, is_async=False)
            phase.io, phase.has_own_io = IO_NAME, False
            return phase
        gathering = scatter.gathering
        function = partial(gathering.function, **{scatter.results: reader})
        return scatter.phase(function, takes_context=gathering.takes_context, is_async=gathering.is_async)

    def _first_failures(self, run_id: str) -> list[tuple[str, str]]:
        page = self._store.page(run_id, after=-1, limit=_SHOWN, states=(State.FAILED,))
        return [(partition_label(key_in(row.partition_key)), _cause(row.error)) for row in page]


def _resting(scatter: Scatter, record: ScatterRecord) -> ScatterPhase:
    """A step that was started although its items are not over, by repair, goes back to rest."""
    again = Scattered(record.total or 0, record.allowed or 0)
    return scatter.phase(lambda: again, takes_context=False, is_async=False)


def _cause(text: str | None) -> str:
    cause = error_line(text) or "no error was recorded"
    return cause.rstrip(".") if len(cause) <= _MAX_ERROR else f"{cause[: _MAX_ERROR - 1]}…"
