"""What the PostgreSQL store answers about runs for people who watch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flowstone.core.insights.runs import FailedStep, StepGroup, StepSpan, Strip
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord, StepRecord
from flowstone.protocols.insights import RunInsights
from flowstone.stores.postgres import runs
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_value


class PostgresRunInsights(RunInsights):
    """Implements `flowstone.protocols.RunInsights` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

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
            of_ranges = fetch_all(connection, Strip, "run_insights/strip_of_ranges", parameters)
            return of_ranges or fetch_all(connection, Strip, "run_insights/strip", parameters | {"limit": limit})

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


class _Usual(NamedTuple):
    """How long runs like one took."""

    run_id: str
    seconds: float | None


def _added(states: Sequence[_StateOfAsset]) -> dict[State, int]:
    counts: Counter[State] = Counter()
    for one in states:
        counts[one.state] += one.steps
    return {state: number for state, number in counts.items() if number}


def _group(asset: str, counts: Mapping[str, int]) -> StepGroup:
    return StepGroup(asset, {State(state): number for state, number in counts.items()})
