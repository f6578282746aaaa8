"""Schedules, sensors and conditions in PostgreSQL: who evaluates next, and what each tick came to."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.actor import AUTOMATION
from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    AutomationRecord,
    Concluded,
    Conclusion,
    NewTick,
    PreparedRun,
    RunKey,
    TakenAutomation,
    TickRecord,
    TickState,
    health_after,
    is_repeatable,
    settled,
    shown_id,
)
from flowstone.protocols import AutomationStore
from flowstone.sql import load_sql
from flowstone.stores.audit import of_keys, shown_cursor
from flowstone.stores.postgres import outbox
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.database import Database, in_transaction
from flowstone.stores.postgres.partition_keys import apply_changes
from flowstone.stores.postgres.placing import Placing
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresAutomations(AutomationStore):
    """Implements `flowstone.protocols.AutomationStore` on PostgreSQL.

    Args:
        database: where.
        worker_id: returns the lease of this process, for runs that it would drive itself.
        now: clock for tests in place of the database's.
    """

    def __init__(
        self, database: Database, worker_id: Callable[[], str], *, now: Callable[[], datetime] | None = None
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._clock = now

    def use_clock(self, now: Callable[[], datetime]) -> None:
        self._clock = now

    def declare(self, automations: Sequence[AutomationId], *, paused: Collection[AutomationId] = ()) -> None:
        if automations:
            # in one order everywhere, so that nodes that start together cannot lock each other out
            ordered = sorted(set(automations))
            self._execute("declare", _several(ordered) | {"paused": [one in paused for one in ordered]})

    def take(
        self,
        automations: Sequence[AutomationId],
        *,
        lease_seconds: float,
        limit: int = 1,
        by_hand_only: bool = False,
    ) -> list[TakenAutomation]:
        parameters = _several(automations) | {"lease_seconds": lease_seconds, "limit": limit}
        parameters["by_hand_only"] = by_hand_only
        with self._database.transaction() as connection:
            rows = fetch_all(connection, _TakenRow, "automations/take", parameters | {"now": self._instant()})
        taken = [row.taken() for row in rows]
        return sorted(taken, key=lambda one: (one.record.due_at or one.now, one.record.id))

    def renew(self, taken: Sequence[TakenAutomation]) -> None:
        ordered = sorted(taken, key=lambda one: one.record.id)
        tokens = {"tokens": [one.token for one in ordered]}
        self._execute("renew", _several([one.record.id for one in ordered]) | tokens)

    def conclude(self, taken: TakenAutomation, conclusion: Conclusion) -> Concluded:
        tries = count()

        def conclude(connection: Connection[TupleRow]) -> Concluded:
            again = next(tries) > 0
            return _Concluding(connection, taken, self._instant(), self._worker_id, again=again).conclude(
                conclusion
            )

        return in_transaction(self._database, conclude)

    def release(self, taken: TakenAutomation) -> None:
        self._execute("release", _named(taken.record.id) | {"token": taken.token})

    def request(self, automation: AutomationId) -> None:
        with self._database.transaction() as connection:
            connection.execute(load_sql("automations/request"), _named(automation) | {"now": self._instant()})
            _note(connection, automation, "requested")

    def set_paused(self, automation: AutomationId, *, paused: bool) -> bool:
        parameters = _named(automation) | {"paused": paused}
        with self._database.transaction() as connection:
            changed = fetch_value(connection, str, "automations/set_paused", parameters) is not None
            if changed:
                _note(connection, automation, "paused" if paused else "resumed")
            return changed

    def set_cursor(self, automation: AutomationId, cursor: str | None) -> None:
        with self._database.transaction() as connection:
            parameters = _named(automation) | {"cursor": cursor, "now": self._instant()}
            connection.execute(load_sql("automations/set_cursor"), parameters)
            _note(connection, automation, "cursor_set", {"cursor": shown_cursor(cursor)})

    def record(self, automation: AutomationId) -> AutomationRecord | None:
        with self._database.connection() as connection:
            row = fetch_one(connection, _AutomationRow, "automations/records", _named(automation))
        return row.record() if row else None

    def records(self) -> list[AutomationRecord]:
        parameters = {"kind": None, "name": None}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _AutomationRow, "automations/records", parameters)
        return [row.record() for row in rows]

    def ticks(self, automation: AutomationId | None = None, *, limit: int = 50) -> list[TickRecord]:
        with self._database.connection() as connection:
            if automation is None:
                rows = fetch_all(connection, TickRow, "automations/all_ticks", {"limit": limit})
            else:
                named = _named(automation) | {"limit": limit}
                rows = fetch_all(connection, TickRow, "automations/ticks", named)
        return [row.record() for row in rows]

    def run_keys(self, automation: AutomationId, *, key: str | None = None, limit: int = 100) -> list[RunKey]:
        parameters = {**_named(automation), "run_key": key, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, RunKey, "automations/run_keys", parameters)

    def forget_run_keys(self, automation: AutomationId, keys: Sequence[str]) -> list[str]:
        parameters = {**_named(automation), "run_keys": list(keys)}
        with self._database.transaction() as connection:
            gone = set(fetch_column(connection, str, "automations/forget_keys", parameters))
            if gone:
                _note(connection, automation, "run_keys_forgotten", of_keys(sorted(gone), None))
        return [key for key in dict.fromkeys(keys) if key in gone]

    def prune_ticks(self, *, older_than_seconds: float, dry_run: bool = False) -> int:
        parameters = {"older_than_seconds": older_than_seconds, "now": self._instant()}
        with self._database.transaction() as connection:
            if dry_run:
                return fetch_value(connection, int, "automations/old_ticks", parameters) or 0
            return len(fetch_column(connection, int, "automations/prune_ticks", parameters))

    def _instant(self) -> datetime | None:
        return None if self._clock is None else self._clock()

    def _execute(self, name: str, parameters: dict[str, Any]) -> None:
        with self._database.transaction() as connection:
            connection.execute(load_sql(f"automations/{name}"), {"now": self._instant()} | parameters)


class _Concluding:
    """One attempt to commit a conclusion, on a connection with a transaction open."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        taken: TakenAutomation,
        now: datetime | None,
        worker_id: Callable[[], str],
        *,
        again: bool,
    ) -> None:
        self._connection = connection
        self._taken = taken
        self._id: dict[str, Any] = _named(taken.record.id) | {"now": now}
        self._worker_id = worker_id
        self._again = again
        self._known: list[str] = []

    def conclude(self, conclusion: Conclusion) -> Concluded:
        """Check the right and write everything."""
        held = self._id | {"token": self._taken.token}
        if fetch_value(self._connection, bool, "automations/hold", held) is None:
            return Concluded(accepted=False)
        runs = [run_id for tick in conclusion.ticks for run_id in self._record(tick)]
        moved = None if self._taken.by_hand else max((tick.at for tick in conclusion.ticks), default=None)
        self._execute(
            "conclude",
            {
                "cursor": conclusion.cursor,
                "due_at": conclusion.due_at,
                "failures": conclusion.failures,
                "goes_on": conclusion.goes_on,
                "last_tick_at": moved,
            },
        )
        if conclusion.wakes:
            self._execute("wake", _several(conclusion.wakes))
        if (health := health_after(self._taken, conclusion)) is not None:
            outbox.note_automation(self._connection, shown_id(self._taken.record.id), health.error)
        return Concluded(True, tuple(runs), tuple(self._known))

    def _record(self, tick: NewTick) -> list[str]:
        """Insert a tick and do what it asks for, unless its instant is recorded already."""
        parameters: dict[str, Any] = {
            "tick_at": tick.at,
            "state": tick.state,
            "reason": tick.reason,
            "error": tick.error,
            "took_seconds": tick.took_seconds,
            "by_hand": self._taken.by_hand,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }
        parameters |= self._id
        if (
            is_repeatable(self._taken, tick)
            and fetch_value(self._connection, int, "automations/repeat_tick", parameters) is not None
        ):
            return []
        tick_id = fetch_value(self._connection, int, "automations/insert_tick", parameters)
        if tick_id is None:
            return []
        automation = self._taken.record.id
        apply_changes(self._connection, tick.partitions, by=f"{automation.kind} {automation.name}")
        opened = [run_id for run in tick.runs if (run_id := self._place(run)) is not None]
        placed = [*tick.run_ids, *opened]
        if tick.runs or tick.run_ids:
            state, reason = settled(tick, placed)
            self._execute("finish_tick", {"id": tick_id, "run_ids": placed, "state": state, "reason": reason})
        return placed

    def _place(self, prepared: PreparedRun) -> str | None:
        """Open a run unless its key was used before; return its id if it was opened."""
        run = prepared.run
        if prepared.run_key is not None:
            parameters = self._id | {"run_key": prepared.run_key, "run_id": run.id}
            run_id = fetch_value(self._connection, str, "automations/use_key", parameters)
            if run_id is None:
                self._known.append(prepared.run_key)
                return None
            run = replace(run, id=run_id)
        run = replace(run, requested_by=self._taken.record.id.name, requested_via=AUTOMATION)
        driver = None if run.durable else self._worker_id()
        Placing(self._connection, run, prepared.steps, driver, again=self._again).place()
        return run.id

    def _execute(self, name: str, parameters: dict[str, Any]) -> None:
        self._connection.execute(load_sql(f"automations/{name}"), self._id | parameters)


def _note(
    connection: Connection[TupleRow],
    automation: AutomationId,
    what: str,
    details: Mapping[str, object] | None = None,
) -> None:
    note(connection, f"{automation.kind}.{what}", f"{automation.kind}:{automation.name}", details)


def _named(automation: AutomationId) -> dict[str, Any]:
    return {"kind": str(automation.kind), "name": automation.name}


def _several(automations: Sequence[AutomationId]) -> dict[str, Any]:
    return {"kinds": [str(one.kind) for one in automations], "names": [one.name for one in automations]}


@dataclass(frozen=True, slots=True, kw_only=True)
class _AutomationRow:
    """A row of the table of automations."""

    kind: AutomationKind
    name: str
    paused: bool
    cursor: str | None
    since: datetime
    due_at: datetime | None
    last_tick_at: datetime | None
    failures: int

    def record(self) -> AutomationRecord:
        return AutomationRecord(
            id=AutomationId(self.kind, self.name),
            paused=self.paused,
            cursor=self.cursor,
            since=self.since,
            due_at=self.due_at,
            last_tick_at=self.last_tick_at,
            failures=self.failures,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TakenRow(_AutomationRow):
    """An automation, and the right to evaluate it."""

    token: int
    now: datetime
    by_hand: bool

    def taken(self) -> TakenAutomation:
        return TakenAutomation(record=self.record(), token=self.token, now=self.now, by_hand=self.by_hand)


class TickRow(NamedTuple):
    """A row of the table of ticks."""

    id: int
    kind: AutomationKind
    name: str
    tick_at: datetime
    state: TickState
    reason: str | None
    error: str | None
    run_ids: tuple[str, ...]
    evaluated_at: datetime
    took_seconds: float
    by_hand: bool
    worker: str | None
    repeats: int

    def record(self) -> TickRecord:
        """Return the tick."""
        return TickRecord(
            id=self.id,
            automation=AutomationId(self.kind, self.name),
            at=self.tick_at,
            state=self.state,
            reason=self.reason,
            error=self.error,
            run_ids=self.run_ids,
            evaluated_at=self.evaluated_at,
            took_seconds=self.took_seconds,
            by_hand=self.by_hand,
            worker=self.worker,
            repeats=self.repeats,
        )
