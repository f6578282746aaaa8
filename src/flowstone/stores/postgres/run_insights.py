"""What the PostgreSQL store answers about runs for people who watch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.insights.runs import FailedStep, StepGroup, StepSpan, Strip, strip_code
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord, StepRecord
from flowstone.protocols.insights import RunInsights
from flowstone.stores.postgres import runs
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_KEPT_STRIPS = 16
_KEPT_PLACES = 2


class PostgresRunInsights(RunInsights):
    """Implements `flowstone.protocols.RunInsights` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # strips of large runs that are over, which do not change any more
        self._places: dict[str, dict[str, int]] = {}
        self._ended: dict[tuple[str, datetime | None], list[Strip]] = {}

    def page(
        self, requested: RunFilter, *, before: tuple[datetime, str] | None = None, limit: int
    ) -> list[RunRecord]:
        with self._database.connection() as connection:
            return runs.page(connection, requested, datetime.now(UTC), before=before, limit=limit)

    def run(self, run_id: str) -> RunRecord | None:
        with self._database.connection() as connection:
            rows = fetch_all(connection, runs.RunRow, "runs/named", {"runs": [run_id]})
            found = runs.records(connection, rows, exactly=False)
        return found[0] if found else None

    def count(self, requested: RunFilter, *, limit: int) -> int:
        with self._database.connection() as connection:
            return runs.count(connection, requested, datetime.now(UTC), limit=limit)

    def usual_seconds(self, run_ids: Sequence[str]) -> dict[str, float]:
        if not run_ids:
            return {}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Usual, "run_insights/usual", {"runs": list(run_ids)})
        return {row.run_id: row.seconds for row in rows if row.seconds is not None}

    def groups(self, run_id: str, *, from_counters: bool = False) -> list[StepGroup] | None:
        parameters = {"run_id": run_id}
        with self._database.connection() as connection:
            if from_counters:
                counted = fetch_value(connection, dict[str, Any], "run_insights/counted", parameters)
                return None if counted is None else [_group(asset, counts) for asset, counts in counted.items()]
            rows = fetch_all(connection, _StateOfAsset, "run_insights/groups", parameters)
        by_asset: dict[str, list[_StateOfAsset]] = defaultdict(list)
        for row in rows:
            by_asset[row.asset].append(row)
        return [
            StepGroup(
                asset=asset,
                counts=_added(states),
                started_at=min((one.started_at for one in states if one.started_at), default=None),
                finished_at=max((one.finished_at for one in states if one.finished_at), default=None),
                busy_seconds=sum(one.busy_seconds for one in states),
            )
            for asset, states in by_asset.items()
        ]

    def failed(self, run_id: str, *, limit: int) -> list[FailedStep]:
        parameters = {"run_id": run_id, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, FailedStep, "run_insights/failed", parameters)

    def spans(self, run_id: str, *, limit: int) -> list[StepSpan]:
        parameters = {"run_id": run_id, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, StepSpan, "run_insights/spans", parameters)

    def strips(self, run_id: str, *, limit: int) -> list[Strip]:
        parameters = {"run_id": run_id}
        with self._database.connection() as connection:
            rows = fetch_all(connection, runs.RunRow, "runs/named", {"runs": [run_id]})
            chunks = fetch_all(connection, _Chunk, "run_insights/chunks", parameters) if rows else []
            if not chunks:
                return fetch_all(connection, Strip, "run_insights/strip", parameters | {"limit": limit})
            run = rows[0]
            if run.is_counted and (kept := self._ended.get((run.id, run.finished_at))) is not None:
                return kept
            usual = max(run.counts or {"completed": 1}, key=(run.counts or {"completed": 1}).__getitem__)
            if run.is_counted:
                others = fetch_all(connection, _Other, "run_insights/unusual", parameters | {"usual": usual})
            else:
                others = fetch_all(connection, _Other, "run_insights/under_way", parameters)
            places = self._places_of(connection, run_id) if others else {}
        strip = [_strip(chunks, State(usual), others, places)]
        if run.is_counted:
            self._ended[run.id, run.finished_at] = strip
            while len(self._ended) > _KEPT_STRIPS:
                self._ended.pop(next(iter(self._ended)), None)
        return strip

    def _places_of(self, connection: Connection[TupleRow], run_id: str) -> Mapping[str, int]:
        """Return the place of each partition of a large backfill; kept for the last ones that were asked for."""
        places = self._places.get(run_id)
        if places is None:
            keys = fetch_column(connection, str, "run_insights/partitions", {"run_id": run_id})
            places = self._places[run_id] = {key: place for place, key in enumerate(keys)}
            while len(self._places) > _KEPT_PLACES:
                self._places.pop(next(iter(self._places)), None)
        return places

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
        parameters = {
            "run_id": run_id,
            "states": [str(one) for one in states] or None,
            "assets": list(assets) or None,
            "error_type": error_type,
            "after": after,
            "limit": limit,
        }
        with self._database.connection() as connection:
            return fetch_all(connection, StepRecord, "run_insights/steps", parameters, prepare=False)


class _StateOfAsset(NamedTuple):
    """The steps of one asset in one state."""

    asset: str
    state: State
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    busy_seconds: float


class _Chunk(NamedTuple):
    """Partitions of a large backfill in a row."""

    asset: str
    total: int
    begun: int


class _Other(NamedTuple):
    """A partition whose step is not in the state in which most are."""

    partition_key: PartitionKey
    state: State


class _Usual(NamedTuple):
    """How long runs like one took."""

    run_id: str
    seconds: float | None


def _strip(chunks: Sequence[_Chunk], usual: State, others: Sequence[_Other], places: Mapping[str, int]) -> Strip:
    """Return the states of the partitions of a large backfill: most are in one, and the others are few."""
    codes: list[str] = []
    for chunk in chunks:
        codes += strip_code(usual) * chunk.begun + "n" * (chunk.total - chunk.begun)
    for other in others:
        if (at := places.get(other.partition_key)) is not None:
            codes[at] = strip_code(other.state)
    return Strip(chunks[0].asset, "".join(codes))


def _added(states: Sequence[_StateOfAsset]) -> dict[State, int]:
    counts: Counter[State] = Counter()
    for one in states:
        counts[one.state] += one.steps
    return {state: number for state, number in counts.items() if number}


def _group(asset: str, counts: Mapping[str, int]) -> StepGroup:
    return StepGroup(asset, {State(state): number for state, number in counts.items()})
