"""What the in-memory store answers about runs for people who watch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from statistics import median

from flowstone.core.insights.runs import FailedStep, StepGroup, StepSpan, Strip, strip_code
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord, StepRecord
from flowstone.protocols.insights import RunInsights
from flowstone.stores.memory.tables import RunRow, StepRow, Tables

_LIKE = 200


class MemoryRunInsights(RunInsights):
    """Implements `flowstone.protocols.RunInsights` over dictionaries.

    Args:
        tables: the data of the store.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def page(
        self, requested: RunFilter, *, before: tuple[datetime, str] | None = None, limit: int
    ) -> list[RunRecord]:
        with self._tables.changed:
            found = (
                one for one in self._matching(requested) if before is None or (one.created_at, one.id) < before
            )
            return list(islice(found, limit))

    def run(self, run_id: str) -> RunRecord | None:
        with self._tables.changed:
            row = self._tables.runs.get(run_id)
            return row.record() if row else None

    def count(self, requested: RunFilter, *, limit: int) -> int:
        with self._tables.changed:
            return sum(1 for _ in islice(self._matching(requested), limit))

    def usual_seconds(self, run_ids: Sequence[str]) -> dict[str, float]:
        found = {}
        with self._tables.changed:
            for run_id in run_ids:
                took = list(self._took(self._tables.runs[run_id].record())) if run_id in self._tables.runs else []
                if took:
                    found[run_id] = median(took)
        return found

    def groups(self, run_id: str, *, from_counters: bool = False) -> list[StepGroup] | None:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            if run is None or (from_counters and run.record().state is State.RUNNING):
                return None if from_counters else []
            by_asset: dict[str, list[StepRow]] = defaultdict(list)
            for row in _rows(run):
                by_asset[row.asset].append(row)
            return [_group(asset, rows) for asset, rows in by_asset.items()]

    def failed(self, run_id: str, *, limit: int) -> list[FailedStep]:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            rows = [row for row in run.steps.values() if row.state is State.FAILED] if run else []
            return [
                FailedStep(
                    step_id=row.id,
                    asset=row.asset,
                    partition_key=row.partition_key,
                    error_type=row.error_type,
                    error=row.error[-4000:] if row.error else row.error,
                    finished_at=row.finished_at,
                )
                for row in sorted(rows, key=lambda row: -row.id)[:limit]
            ]

    def spans(self, run_id: str, *, limit: int) -> list[StepSpan]:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            rows = sorted(_rows(run), key=lambda row: row.id)[:limit] if run else []
            parents: dict[int, list[int]] = defaultdict(list)
            for row in rows:
                for child in row.children or ():
                    parents[child].append(row.id)
            return [
                StepSpan(
                    step_id=row.id,
                    asset=row.asset,
                    partition_key=row.partition_key,
                    state=row.state,
                    placed_at=row.created_at,
                    started_at=row.started_at,
                    finished_at=row.finished_at,
                    attempt=row.attempt,
                    waits_for=tuple(parents[row.id]) or _read(row),
                )
                for row in rows
            ]

    def strips(self, run_id: str, *, limit: int) -> list[Strip]:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            codes: dict[str, list[str]] = defaultdict(list)
            for row in run.steps.values() if run else ():
                codes[row.asset].append(strip_code(row.state))
            return [Strip(asset, "".join(found)) for asset, found in islice(codes.items(), limit)]

    def steps(
        self,
        run_id: str,
        *,
        states: Sequence[State] = (),
        assets: Sequence[str] = (),
        error_type: str | None = None,
        after: int = 0,
        limit: int,
    ) -> list[StepRecord]:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            rows = sorted(run.steps.values(), key=lambda row: row.id) if run else []
            chosen = (
                row.record()
                for row in rows
                if row.id > after
                and (not states or row.state in states)
                and (not assets or row.asset in assets)
                and error_type in (None, row.error_type)
            )
            return list(islice(chosen, limit))

    def _matching(self, requested: RunFilter) -> Iterator[RunRecord]:
        now = datetime.now(UTC)
        records = sorted(
            (run.record() for run in self._tables.runs.values()),
            key=lambda one: (one.created_at, one.id),
            reverse=True,
        )
        return (one for one in records if requested.matches(one, now))

    def _took(self, run: RunRecord) -> Iterator[float]:
        """Yield how long runs like this one took lately."""
        for row in islice(reversed(self._tables.runs.values()), _LIKE):
            if row.new.kind != run.kind or row.new.selection != run.selection:
                continue
            one = row.record()
            if one.state is State.COMPLETED and one.finished_at is not None and one.created_at < run.created_at:
                yield (one.finished_at - one.created_at).total_seconds()


def _rows(run: RunRow) -> list[StepRow]:
    return [*run.steps.values(), *run.joined.values()]


def _read(row: StepRow) -> tuple[int, ...]:
    return tuple(dict.fromkeys(one.step_id for one in row.inputs))


def _group(asset: str, rows: Sequence[StepRow]) -> StepGroup:
    counts: dict[State, int] = defaultdict(int)
    for row in rows:
        counts[row.state] += 1
    ended = [(row.started_at, row.finished_at) for row in rows if row.started_at and row.finished_at]
    return StepGroup(
        asset=asset,
        counts=dict(counts),
        started_at=min((row.started_at for row in rows if row.started_at), default=None),
        finished_at=max((row.finished_at for row in rows if row.finished_at), default=None),
        busy_seconds=sum((end - start).total_seconds() for start, end in ended),
    )
