"""Discovering items: what a function yields streams into the store, chunk by chunk, while it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from inspect import isasyncgenfunction
from typing import Any

from flowstone.core.context import AssetContext
from flowstone.core.items import decode_item, encode_item, key_of
from flowstone.core.outcome import Scattered, Snoozed
from flowstone.core.output import type_name
from flowstone.core.partition import encode_partition
from flowstone.core.retry import RetryPolicy
from flowstone.core.scatter import Scatter
from flowstone.core.scattering import DEFAULT_QUEUE, NewItem, NewScatter, OpenScatter, allowed_failures
from flowstone.core.state import State
from flowstone.core.step import Claim
from flowstone.errors import ItemError, StepCancelledError
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
        claim: the attempt.
        store: where the items go.
    """

    scatter: Scatter
    claim: Claim
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
            repeats=self.claim.max_attempts > 1,
            queue=item.queue,
            follows_queue=item.queue == scatter.queue == DEFAULT_QUEUE,
            priority=item.priority,
            limits=item.concurrency,
            own_limits=frozenset(scatter.concurrency),
            code_version=item.code_version,
        )
        opened = self.store.begin(self.claim.step_id, self.claim.token, new)
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
