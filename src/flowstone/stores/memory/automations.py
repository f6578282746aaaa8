"""Schedules, sensors and conditions in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from flowstone.core.actor import AUTOMATION
from flowstone.core.automation.record import (
    AutomationId,
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
from flowstone.stores.audit import of_keys, shown_cursor
from flowstone.stores.memory.catalog import MemoryPartitionKeys
from flowstone.stores.memory.ledger import MemoryLedger
from flowstone.stores.memory.tables import Tables


class _Row:
    """One automation; mutable, only touched under the store's lock."""

    __slots__ = ("by_hand", "lease_seconds", "record", "requested", "taken_until", "token")

    def __init__(self, record: AutomationRecord) -> None:
        self.record = record
        self.requested = False
        self.by_hand = False
        self.token = 0
        self.taken_until: datetime | None = None
        self.lease_seconds = 0.0

    def is_due(self, now: datetime) -> bool:
        """Whether it may be taken now."""
        if self.taken_until is not None and self.taken_until > now:
            return False
        due = self.record.due_at is not None and self.record.due_at <= now
        return self.requested or (due and not self.record.paused)

    def release(self) -> None:
        """End the right to evaluate it."""
        self.token = 0
        self.taken_until = None


@dataclass(slots=True)
class _UsedKey:
    """A run key, how often it has triggered, and whether it may do so again."""

    used: RunKey
    times: int
    forgotten: bool = False


class MemoryAutomations(AutomationStore):
    """Implements `flowstone.protocols.AutomationStore` over dictionaries.

    Args:
        tables: the rows of the store, and its lock.
        ledger: opens runs.
        partition_keys: keys of dynamic partitions.
        now: the clock of the store.
    """

    def __init__(
        self,
        tables: Tables,
        ledger: MemoryLedger,
        partition_keys: MemoryPartitionKeys,
        *,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._tables = tables
        self._lock = tables.changed
        self._ledger = ledger
        self._partition_keys = partition_keys
        self._now = now or (lambda: datetime.now(UTC))
        self._tokens = tables.tokens
        self._rows: dict[AutomationId, _Row] = {}
        self._ticks: list[TickRecord] = []
        self._instants: set[tuple[AutomationId, datetime]] = set()
        self._keys: dict[AutomationId, dict[str, _UsedKey]] = defaultdict(dict)
        self._tick_ids = count(1)

    def use_clock(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def declare(self, automations: Sequence[AutomationId], *, paused: Collection[AutomationId] = ()) -> None:
        with self._lock:
            for one in automations:
                self._row(one, paused=one in paused)

    def take(
        self,
        automations: Sequence[AutomationId],
        *,
        lease_seconds: float,
        limit: int = 1,
        by_hand_only: bool = False,
    ) -> list[TakenAutomation]:
        with self._lock:
            now = self._now()
            rows = [row for one in set(automations) if (row := self._rows.get(one)) and row.is_due(now)]
            due = [row for row in rows if row.requested or not by_hand_only]
            due.sort(key=lambda row: (row.record.due_at or now, row.record.id))
            return [self._take(row, now, lease_seconds) for row in due[:limit]]

    def renew(self, taken: Sequence[TakenAutomation]) -> None:
        with self._lock:
            for one in taken:
                row = self._held(one)
                if row is not None:
                    row.taken_until = self._now() + timedelta(seconds=row.lease_seconds)

    def conclude(self, taken: TakenAutomation, conclusion: Conclusion) -> Concluded:
        with self._lock:
            row = self._held(taken)
            if row is None:
                return Concluded(accepted=False)
            known: list[str] = []
            runs = [run for tick in conclusion.ticks for run in self._record(taken, tick, known)]
            moved = [] if taken.by_hand else [tick.at for tick in conclusion.ticks]
            last = [row.record.last_tick_at] if row.record.last_tick_at is not None else []
            row.record = replace(
                row.record,
                cursor=conclusion.cursor,
                due_at=conclusion.due_at,
                failures=conclusion.failures,
                last_tick_at=max([*last, *moved], default=None),
            )
            self._wake(conclusion.wakes)
            if self._tables.watch is not None and (health := health_after(taken, conclusion)) is not None:
                self._tables.watch.concluded(shown_id(taken.record.id), health.error)
            if conclusion.goes_on:
                row.taken_until = self._now() + timedelta(seconds=row.lease_seconds)
            else:
                row.requested = row.requested and not row.by_hand
                row.release()
            return Concluded(True, tuple(runs), tuple(known))

    def release(self, taken: TakenAutomation) -> None:
        with self._lock:
            row = self._held(taken)
            if row is not None:
                row.release()

    def request(self, automation: AutomationId) -> None:
        with self._lock:
            self._row(automation).requested = True
            self._note(automation, "requested")

    def set_paused(self, automation: AutomationId, *, paused: bool) -> bool:
        with self._lock:
            row = self._rows.get(automation)
            if row is None or row.record.paused == paused:
                return False
            row.record = replace(row.record, paused=paused)
            self._note(automation, "paused" if paused else "resumed")
            return True

    def set_cursor(self, automation: AutomationId, cursor: str | None) -> None:
        with self._lock:
            row = self._rows.get(automation)
            if row is not None:
                row.record = replace(row.record, cursor=cursor)
                row.release()
            self._note(automation, "cursor_set", {"cursor": shown_cursor(cursor)})

    def record(self, automation: AutomationId) -> AutomationRecord | None:
        with self._lock:
            row = self._rows.get(automation)
            return row.record if row is not None else None

    def records(self) -> list[AutomationRecord]:
        with self._lock:
            return [self._rows[one].record for one in sorted(self._rows)]

    def ticks(self, automation: AutomationId | None = None, *, limit: int = 50) -> list[TickRecord]:
        with self._lock:
            chosen = (one for one in reversed(self._ticks) if automation in (None, one.automation))
            return [one for one, _ in zip(chosen, range(limit), strict=False)]

    def run_keys(self, automation: AutomationId, *, key: str | None = None, limit: int = 100) -> list[RunKey]:
        with self._lock:
            used = [one.used for one in self._keys.get(automation, {}).values() if not one.forgotten]
        return [one for one in reversed(used) if key is None or one.run_key == key][:limit]

    def forget_run_keys(self, automation: AutomationId, keys: Sequence[str]) -> list[str]:
        forgotten = []
        with self._lock:
            for key in dict.fromkeys(keys):
                used = self._keys.get(automation, {}).get(key)
                if used is not None and not used.forgotten:
                    used.forgotten = True
                    forgotten.append(key)
            if forgotten:
                self._note(automation, "run_keys_forgotten", of_keys(sorted(forgotten), None))
        return forgotten

    def keep_ticks(self, maximum: int) -> None:
        """Forget all ticks but the newest; called with the lock held."""
        if len(self._ticks) > maximum:
            self._ticks = self._ticks[-maximum:]
            self._instants = {(one.automation, one.at) for one in self._ticks if not one.by_hand}

    def prune_ticks(self, *, older_than_seconds: float, dry_run: bool = False) -> int:
        with self._lock:
            kept_from = self._now() - timedelta(seconds=older_than_seconds)
            kept = [one for one in self._ticks if one.evaluated_at >= kept_from]
            forgotten = len(self._ticks) - len(kept)
            if not dry_run:
                self._ticks = kept
                self._instants = {(one.automation, one.at) for one in kept if not one.by_hand}
            return forgotten

    def _row(self, automation: AutomationId, *, paused: bool = False) -> _Row:
        if automation not in self._rows:
            now = self._now()
            record = AutomationRecord(id=automation, paused=paused, cursor=None, since=now, due_at=now)
            self._rows[automation] = _Row(record)
        return self._rows[automation]

    def _note(self, automation: AutomationId, what: str, details: Mapping[str, object] | None = None) -> None:
        self._tables.note(f"{automation.kind}.{what}", f"{automation.kind}:{automation.name}", details)

    def _wake(self, automations: Sequence[AutomationId]) -> None:
        now = self._now()
        for row in (self._rows[one] for one in automations if one in self._rows):
            if row.record.due_at is not None:
                row.record = replace(row.record, due_at=min(row.record.due_at, now))

    def _held(self, taken: TakenAutomation) -> _Row | None:
        row = self._rows.get(taken.record.id)
        return row if row is not None and row.token == taken.token != 0 else None

    def _take(self, row: _Row, now: datetime, lease_seconds: float) -> TakenAutomation:
        row.token = next(self._tokens)
        row.taken_until = now + timedelta(seconds=lease_seconds)
        row.lease_seconds = lease_seconds
        row.by_hand = row.requested
        return TakenAutomation(record=row.record, token=row.token, now=now, by_hand=row.by_hand)

    def _record(self, taken: TakenAutomation, tick: NewTick, known: list[str]) -> list[str]:
        automation = taken.record.id
        if is_repeatable(taken, tick) and self._repeat(automation, tick):
            return []
        if not taken.by_hand:
            if (automation, tick.at) in self._instants:
                return []
            self._instants.add((automation, tick.at))
        self._partition_keys.apply_changes(tick.partitions, by=f"{automation.kind} {automation.name}")
        opened = [run_id for run in tick.runs if (run_id := self._place(automation, run, known)) is not None]
        placed = [*tick.run_ids, *opened]
        state, reason = settled(tick, placed) if tick.runs else (tick.state, tick.reason)
        self._ticks.append(
            TickRecord(
                id=next(self._tick_ids),
                automation=automation,
                at=tick.at,
                state=state,
                reason=reason,
                error=tick.error,
                run_ids=tuple(placed),
                evaluated_at=self._now(),
                took_seconds=tick.took_seconds,
                by_hand=taken.by_hand,
            )
        )
        return placed

    def _repeat(self, automation: AutomationId, tick: NewTick) -> bool:
        """Count the newest tick on if it was skipped for the same reason."""
        positions = (i for i in reversed(range(len(self._ticks))) if self._ticks[i].automation == automation)
        position = next(positions, None)
        if position is None:
            return False
        last = self._ticks[position]
        if last.state is not TickState.SKIPPED or last.by_hand or last.reason != tick.reason or last.run_ids:
            return False
        self._ticks[position] = replace(
            last, repeats=last.repeats + 1, evaluated_at=self._now(), took_seconds=tick.took_seconds
        )
        return True

    def _place(self, automation: AutomationId, prepared: PreparedRun, known: list[str]) -> str | None:
        run = prepared.run
        if prepared.run_key is not None:
            keys = self._keys[automation]
            used = keys.get(prepared.run_key)
            if used is not None and not used.forgotten:
                known.append(prepared.run_key)
                return None
            times = used.times + 1 if used is not None else 1
            if times > 1:
                run = replace(run, id=f"{run.id}-{times}")
            keys.pop(prepared.run_key, None)  # the order is that of their use
            keys[prepared.run_key] = _UsedKey(RunKey(prepared.run_key, run.id, self._now()), times)
        run = replace(run, requested_by=automation.name, requested_via=AUTOMATION)
        self._ledger.open_run(run, prepared.steps)
        return run.id
