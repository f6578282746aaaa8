"""Runs as lists have them, in PostgreSQL: found by a filter, with counts that nobody has to count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.partitions import PartitionKey
from flowstone.core.run_details import RunDetails
from flowstone.core.run_filter import ANY, PAUSED, RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord, run_state
from flowstone.stores.postgres.sql import fetch_all, fetch_column

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

type Counts = dict[str, dict[State, int]]


class RunRow(NamedTuple):
    """A run as it is recorded; see `RunRecord`.

    Args:
        counts: number of steps in each state; None of a run that is not over.
        total_steps: how many steps it has.
        open_steps: how many are not over.
        failures: how many failed, or could not start because of that.
        cancellations: how many were cancelled.
    """

    id: str
    kind: str
    selection: str
    executor: str
    state: State
    priority: int
    max_concurrency: int | None
    created_at: datetime
    finished_at: datetime | None
    paused: bool
    retry_of: str | None
    parent: str | None
    details: RunDetails
    assets: tuple[str, ...]
    requested_by: str | None
    requested_via: str | None
    first_partition: PartitionKey | None
    last_partition: PartitionKey | None
    partitions: int | None
    counts: Mapping[str, Any] | None
    total_steps: int
    open_steps: int
    failures: int
    cancellations: int
    process_lost: bool

    @property
    def is_counted(self) -> bool:
        """Whether its row says how its steps ended."""
        return self.counts is not None and self.state is not State.RUNNING

    def from_counters(self, at_work: Mapping[State, int]) -> dict[State, int]:
        """Return the counts of a run that is not over, as far as its counters know them.

        What failed upstream counts as failed, what was reused or skipped as completed, and what is neither over
        nor at work as pending.

        Args:
            at_work: its steps that are running or being cancelled.
        """
        left = max(0, self.open_steps)
        busy = {state: min(number, left) for state, number in at_work.items()}
        ended = max(0, self.total_steps - left)
        failed = min(self.failures, ended)
        cancelled = min(self.cancellations, ended - failed)
        found = {
            State.COMPLETED: ended - failed - cancelled,
            State.FAILED: failed,
            State.CANCELLED: cancelled,
            State.PENDING: max(0, left - sum(busy.values())),
            **busy,
        }
        return {state: number for state, number in found.items() if number}

    def record(self, counts: Mapping[State, int]) -> RunRecord:
        """Return the run with the number of its steps in each state."""
        return RunRecord(
            id=self.id,
            kind=self.kind,
            selection=self.selection,
            executor=self.executor,
            state=run_state(self.state, counts),
            priority=self.priority,
            max_concurrency=self.max_concurrency,
            created_at=self.created_at,
            finished_at=self.finished_at,
            paused=self.paused,
            retry_of=self.retry_of,
            parent=self.parent,
            process_lost=self.process_lost,
            counts=dict(counts),
            details=self.details.masked(),
            assets=self.assets,
            requested_by=self.requested_by,
            requested_via=self.requested_via,
            first_partition=self.first_partition,
            last_partition=self.last_partition,
            partitions=self.partitions,
        )


class _Count(NamedTuple):
    """Steps of a run in one state."""

    run_id: str
    state: State
    steps: int


def page(
    connection: Connection[TupleRow],
    requested: RunFilter,
    now: datetime,
    *,
    before: tuple[datetime, str] | None = None,
    limit: int,
    with_items: bool = False,
) -> list[RunRecord]:
    """Return the newest runs that match, behind a place in the list; see `from_counters` for their counts."""
    place = before or (None, None)
    parameters = parameters_of(requested, now) | {"before_at": place[0], "before_id": place[1], "limit": limit}
    parameters["with_items"] = with_items
    # planned anew each time: which index is the right one depends on the filter
    rows = fetch_all(connection, RunRow, "runs/page", parameters, prepare=False)
    return records(connection, rows, exactly=False)


def count(connection: Connection[TupleRow], requested: RunFilter, now: datetime, *, limit: int) -> int:
    """Return how many runs match, counted up to a limit."""
    parameters = parameters_of(requested, now) | {"limit": limit}
    return fetch_column(connection, int, "runs/count", parameters, prepare=False)[0]


def matching(connection: Connection[TupleRow], requested: RunFilter, now: datetime, *, limit: int) -> list[str]:
    """Return the ids of runs that match, the oldest first."""
    parameters = parameters_of(requested, now) | {"before_at": None, "before_id": None, "limit": limit}
    rows = fetch_all(connection, RunRow, "runs/page", parameters, prepare=False)
    return [row.id for row in reversed(rows)]


def records(connection: Connection[TupleRow], rows: Sequence[RunRow], *, exactly: bool) -> list[RunRecord]:
    """Return runs with their counts: those that are written into them, else as they are now.

    Args:
        connection: where.
        rows: the runs.
        exactly: whether to count the steps of runs that are not over; else their counters are asked.
    """
    still_open = [row.id for row in rows if row.state is State.RUNNING]
    uncounted = [row.id for row in rows if not row.is_counted and row.state is not State.RUNNING]
    to_count = {"runs": [*uncounted, *(still_open if exactly else ())]}
    working = {"runs": [] if exactly else still_open}
    counted = _by_run(fetch_all(connection, _Count, "runs/counts", to_count) if to_count["runs"] else ())
    at_work = _by_run(fetch_all(connection, _Count, "runs/at_work", working) if working["runs"] else ())
    found = []
    for row in rows:
        if row.is_counted:
            counts = {State(state): number for state, number in (row.counts or {}).items()}
        elif row.state is State.RUNNING and not exactly:
            counts = row.from_counters(at_work.get(row.id, {}))
        else:
            counts = counted.get(row.id, {})
        found.append(row.record(counts))
    return found


def _by_run(rows: Sequence[_Count]) -> Counts:
    found: Counts = defaultdict(dict)
    for row in rows:
        found[row.run_id][row.state] = row.steps
    return found


def parameters_of(requested: RunFilter, now: datetime) -> dict[str, object]:
    """Return a filter as parameters of `runs/page` and its like.

    Args:
        requested: the filter.
        now: the present, for ages.
    """
    since, until = requested.times(now)
    return {
        "states": _names(["running" if one == PAUSED else one for one in requested.state]),
        "only_paused": PAUSED in requested.state and "running" not in requested.state,
        "not_states": _names([one for one in requested.not_state if one != PAUSED]),
        "not_paused": PAUSED in requested.not_state,
        "kinds": _names(requested.kind),
        "not_kinds": _names(requested.not_kind),
        "assets": _names(requested.asset),
        "not_assets": _names(requested.not_asset),
        "tags": _names(requested.tag),
        "not_tags": _names(requested.not_tag),
        "automations": None if ANY in requested.automation else _names(requested.automation),
        "any_automation": ANY in requested.automation,
        "not_automations": _names(requested.not_automation),
        "no_automation": ANY in requested.not_automation,
        "people": None if ANY in requested.by else _names(requested.by),
        "any_person": ANY in requested.by,
        "not_people": _names(requested.not_by),
        "no_person": ANY in requested.not_by,
        "since": since,
        "until": until,
        "items_of": requested.items_of,
        "with_items": False,
    }


def _names(values: Sequence[str]) -> list[str] | None:
    return list(values) or None
