"""What attempts log, in memory; all of it together stays within a bound."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

from flowstone.core.forks import renew_after_fork
from flowstone.core.logs import LogBatch, LogCount, LogPosition, Trim, WrittenBatch
from flowstone.core.partitions import PartitionKey
from flowstone.protocols import LogStore
from flowstone.stores.memory.tables import Tables

_MAX_CHARACTERS = 16 * 1024 * 1024

type _Attempt = tuple[int, int]


class MemoryLogs(LogStore):
    """Implements `flowstone.protocols.LogStore` over dictionaries.

    Args:
        tables: the steps.
        max_characters: how much is kept in all; what was written first goes first.
        now: clock; for tests.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        max_characters: int = _MAX_CHARACTERS,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._tables = tables
        self._now = now or (lambda: datetime.now(UTC))
        self._max_characters = max_characters
        self._renew()
        renew_after_fork(self, lambda logs: setattr(logs, "_lock", threading.Lock()))

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._characters = 0
        # in the order of writing
        self._positions: dict[tuple[int, int, int, int], datetime] = {}
        self._attempts: dict[int, dict[int, list[LogBatch]]] = defaultdict(dict)
        self._runs: dict[str, list[LogPosition]] = defaultdict(list)

    def append(self, batches: Sequence[LogBatch], trims: Sequence[Trim]) -> None:
        with self._lock:
            for batch in batches:
                if batch[:4] not in self._positions:
                    at = self._positions[batch[:4]] = self._now()
                    insort(self._attempts[batch.step_id].setdefault(batch.attempt, []), batch)
                    insort(self._runs[batch.run_id], LogPosition(at, *batch[:4]))
                    self._characters += len(batch.body)
            for trim in trims:
                found = self._attempts.get(trim.step_id, {}).get(trim.attempt, ())
                self._delete(
                    [one for one in found if one.token == trim.token and trim.head < one.line < trim.tail]
                )
            while self._characters > self._max_characters and len(self._positions) > 1:
                oldest = next(iter(self._positions))
                self._delete([one for one in self._attempts[oldest[0]][oldest[1]] if one[:4] == oldest])

    def read(
        self,
        step_id: int,
        attempt: int,
        *,
        after: tuple[int, int] = (0, 0),
        newest: bool = False,
        limit: int = 1000,
    ) -> list[LogBatch]:
        with self._lock:
            found = [
                one
                for one in self._attempts.get(step_id, {}).get(attempt, ())
                if (one.token, one.line + one.lines - 1) > after
            ]
        return found[-limit:] if newest else found[:limit]

    def of_run(
        self, run_id: str, *, after: LogPosition | None = None, newest: bool = False, limit: int = 1000
    ) -> list[WrittenBatch]:
        with self._lock:
            places = self._runs.get(run_id, [])
            start = 0 if after is None else bisect_left(places, after)
            start += after is not None and start < len(places) and places[start] == after
            if newest:
                start = max(start, len(places) - limit)
            return [self._written(place) for place in places[start : start + limit]]

    def pulse(self) -> str:
        """Return a text that is another one when something was written."""
        with self._lock:
            return f"{len(self._positions)} {next(reversed(self._positions), None)}"

    def counts(self, step_ids: Sequence[int]) -> list[LogCount]:
        with self._lock:
            return [
                LogCount(step_id, attempt, _last_lines(batches), sum(one.lines for one in batches))
                for step_id in sorted(set(step_ids))
                for attempt, batches in sorted(self._attempts.get(step_id, {}).items())
                if batches
            ]

    def forget(self, step_ids: Collection[int]) -> int:
        with self._lock:
            gone = [
                one
                for step_id in step_ids
                for all_of in self._attempts.get(step_id, {}).values()
                for one in all_of
            ]
            self._delete(gone)
            return len(gone)

    def prune(self, *, older_than_seconds: float, limit: int = 10_000) -> int:
        with self._lock:
            before = self._now() - timedelta(seconds=older_than_seconds)
            old: list[LogBatch] = []
            for key, at in self._positions.items():
                if at >= before or len(old) >= limit:
                    break
                old += [one for one in self._attempts[key[0]][key[1]] if one[:4] == key]
            self._delete(old)
            return len(old)

    def _written(self, place: LogPosition) -> WrittenBatch:
        batches = self._attempts[place.step_id][place.attempt]
        batch = next(one for one in batches if one[:4] == place[1:])
        step = self._tables.steps.get(place.step_id)
        if step is None:
            return WrittenBatch(place, batch, "", PartitionKey(""))
        return WrittenBatch(place, batch, step.asset, step.partition_key)

    def _delete(self, batches: Sequence[LogBatch]) -> None:
        for batch in batches:
            at = self._positions.pop(batch[:4])
            attempts = self._attempts[batch.step_id]
            attempts[batch.attempt].remove(batch)
            if not attempts[batch.attempt]:
                del attempts[batch.attempt]
            if not attempts:
                del self._attempts[batch.step_id]
            places = self._runs[batch.run_id]
            del places[bisect_left(places, LogPosition(at, *batch[:4]))]
            if not places:
                del self._runs[batch.run_id]
            self._characters -= len(batch.body)


def _last_lines(batches: Sequence[LogBatch]) -> int:
    last: dict[int, int] = {}
    for one in batches:
        last[one.token] = max(last.get(one.token, 0), one.line + one.lines - 1)
    return sum(last.values())
