"""Results of asset checks in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from flowstone.core.check_record import CheckRecord
from flowstone.protocols import CheckStore
from flowstone.stores.memory.tables import Tables


class MemoryChecks(CheckStore):
    """Implements `flowstone.protocols.CheckStore` over lists."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def record(self, records: Sequence[CheckRecord]) -> int:
        with self._tables.changed:
            return insert_checks(self._tables, records)

    def results(
        self,
        asset: str,
        *,
        partition: str | None = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        found = [
            one
            for one in self._newest_first(asset)
            if (partition is None or one.partition == partition)
            and (check is None or one.check == check)
            and not (failed and one.passed)
        ]
        return found[:limit]

    def latest(
        self,
        asset: str | None = None,
        *,
        partition: str | None = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        requested = [one for one in self._newest_first(asset) if partition is None or one.partition == partition]
        newest = _first_of_each(requested, lambda one: (one.asset, one.partition, one.check))
        found = sorted(newest, key=lambda one: (one.asset, one.partition, one.check))
        return [one for one in found if not (failed and one.passed)][:limit]

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, tuple[CheckRecord, ...]]:
        found: dict[int, tuple[CheckRecord, ...]] = {}
        with self._tables.changed:
            for step_id in step_ids:
                # a check that was run again keeps its place
                newest = {one.check: one for one in self._tables.checks_of_step.get(step_id, ())}
                found[step_id] = tuple(newest.values())
        return found

    def _newest_first(self, asset: str | None) -> Iterator[CheckRecord]:
        with self._tables.changed:
            tables = self._tables.checks
            chosen = [list(tables.get(asset, ()))] if asset is not None else [list(one) for one in tables.values()]
        return (one for records in chosen for one in reversed(records))


def insert_checks(tables: Tables, records: Iterable[CheckRecord]) -> int:
    """Record what checks found, if the attempt's token is still the newest; called with the lock held."""
    number = 0
    for record in records:
        row = tables.steps.get(record.step_id)
        if row is not None and record.token in (None, row.token):
            known = replace(record, token=row.token)
            tables.checks[row.asset].append(known)
            tables.checks_of_step[row.id].append(known)
            number += 1
    return number


def _first_of_each(records: Iterable[CheckRecord], key: Callable[[CheckRecord], object]) -> list[CheckRecord]:
    found: dict[object, CheckRecord] = {}
    for one in records:
        found.setdefault(key(one), one)
    return list(found.values())
