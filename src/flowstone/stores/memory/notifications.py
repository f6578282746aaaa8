"""Notifications in the in-memory store; what ends here calls the methods of the first half, with the lock held."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from flowstone.core.clean import clean_text, error_line
from flowstone.core.notification import (
    MAX_TEXT,
    UNDECLARED,
    Notice,
    Notices,
    Notification,
    NotificationState,
    NotifyEvent,
    NotifyRule,
    added,
    quoted,
)
from flowstone.core.outcome import PROCESS_LOST
from flowstone.core.state import State
from flowstone.core.step import CheckRecord, Severity
from flowstone.protocols import NotificationStore
from flowstone.stores.audit import of_given_up
from flowstone.stores.memory.tables import RunRow, StepRow, Tables

_MAX_ROWS = 10_000
"""So many notifications are kept; the oldest that are over make room for new ones."""

type _Mark = tuple[str, str, str, str]
"""Kind, subject, partition key and detail of a failure that is remembered until it is over."""


@dataclass(slots=True)
class _Row:
    """A notification, and when it is due."""

    record: Notification
    due_at: datetime
    claim_after: datetime
    collects: bool = True


class MemoryNotifications(NotificationStore):
    """Implements `flowstone.protocols.NotificationStore` over dictionaries.

    Args:
        tables: the rows of the store, and its lock.
        now: the clock that decides what is due; for tests.
    """

    def __init__(self, tables: Tables, *, now: Callable[[], datetime] | None = None) -> None:
        self._tables = tables
        self._now = now or (lambda: datetime.now(UTC))
        self._rules: tuple[NotifyRule, ...] = ()
        self._rows: dict[int, _Row] = {}
        self._collecting: dict[tuple[str, str], int] = {}
        self._marks: dict[_Mark, datetime] = {}
        self._reported: set[tuple[str, str]] = set()
        self._ids = count(1)
        self._decided = False
        self._knows_completed = False

    # --- what happens in the store ------------------------------------------------------------------------

    def ended(self, row: StepRow, now: datetime) -> None:
        """Decide on notifications for a step that is over."""
        run = self._tables.runs[row.run_id]
        if run.scatter is None:
            if row.state is State.COMPLETED:
                self._recovered(("failed", row.asset, row.partition_key, ""), row, now)
            elif row.state in (State.FAILED, State.UPSTREAM_FAILED) or row.error_type == PROCESS_LOST:
                self._failed(row, now)
        if self._knows_completed:
            for run_id in (row.run_id, *self._tables.joiners.get(row.id, ())):
                self._completed(self._tables.runs[run_id], now)

    def checked(self, one: CheckRecord, row: StepRow) -> None:
        """Decide on notifications for what a check found in a step that is not tried again."""
        if not row.state.is_terminal:
            return
        mark = ("check", one.asset, one.partition_key, one.check)
        if one.passed:
            self._recovered(mark, row, one.started_at, check=one.check)
            return
        event = NotifyEvent.CHECK_FAILED if one.severity is Severity.ERROR else NotifyEvent.CHECK_WARNED
        text = quoted(one.description or error_line(one.error))
        self._decide(
            Notice(event, one.asset, one.started_at, one.partition_key, text, row.id, row.run_id, one.check)
        )
        self._mark(mark, one.asset, one.started_at)

    def concluded(self, automation: str, error: str | None) -> None:
        """Decide on notifications for an automation that began to fail, or that is well again."""
        if not any(rule.wants_of(NotifyEvent.AUTOMATION_FAILED, automation) for rule in self._rules):
            return
        mark = ("automation", automation, "", "")
        event = NotifyEvent.RECOVERED if error is None else NotifyEvent.AUTOMATION_FAILED
        if (mark in self._marks) is (error is None):
            if error is None:
                del self._marks[mark]
            else:
                self._marks[mark] = self._now()
            notice = Notice(event, automation, self._now(), text=quoted(error_line(error)))
            for rule in self._rules:
                if rule.wants_of(event, automation):
                    self._add(rule, f"automation:{automation}", notice)

    def requested(self, approval_id: int, row: StepRow, message: str) -> None:
        """Decide on notifications for a step that waits for a person's decision."""
        notice = Notice(
            NotifyEvent.APPROVAL, row.asset, self._now(), row.partition_key, quoted(message), row.id, row.run_id
        )
        for rule in self._rules:
            if rule.wants(NotifyEvent.APPROVAL, row.asset):
                self._add(rule, f"approval:{approval_id}", notice, waits=False)

    def _failed(self, row: StepRow, now: datetime) -> None:
        below = row.state is State.UPSTREAM_FAILED
        event = NotifyEvent.UPSTREAM_FAILED if below else NotifyEvent.FAILED
        text = quoted(error_line(row.error) or row.reason)
        self._decide(Notice(event, row.asset, now, row.partition_key, text, row.id, row.run_id))
        self._mark(("failed", row.asset, row.partition_key, ""), row.asset, now)

    def _recovered(self, mark: _Mark, row: StepRow, now: datetime, *, check: str | None = None) -> None:
        since = self._marks.pop(mark, None)
        if since is not None:
            text = f"had failed since {since:%Y-%m-%d %H:%M} UTC" if check is None else ""
            event = NotifyEvent.RECOVERED
            self._decide(Notice(event, row.asset, now, row.partition_key, text, row.id, row.run_id, check))

    def _completed(self, run: RunRow, now: datetime) -> None:
        if run.open or run.scatter is not None or (record := run.record()).state is not State.COMPLETED:
            return
        text = f"{record.kind} {record.selection}"[:200] + f": {record.total} steps"
        notice = Notice(NotifyEvent.COMPLETED, record.id, now, text=text, run_id=record.id)
        for rule in self._rules:
            is_about = rule.assets is None or not rule.assets.isdisjoint(record.assets)
            if rule.has(NotifyEvent.COMPLETED) and is_about and (rule.name, record.id) not in self._reported:
                self._reported.add((rule.name, record.id))
                self._add(rule, f"run:{record.id}", notice)

    def _decide(self, notice: Notice) -> None:
        for rule in self._rules:
            if rule.wants(notice.event, notice.subject):
                self._add(rule, f"run:{notice.run_id}", notice)

    def _mark(self, mark: _Mark, asset: str, now: datetime) -> None:
        if any(rule.wants(NotifyEvent.RECOVERED, asset) for rule in self._rules):
            self._marks.setdefault(mark, now)

    def _add(self, rule: NotifyRule, key: str, notice: Notice, *, waits: bool = True) -> None:
        self._decided = True
        known = self._collecting.get((rule.name, key))
        if known is not None:
            row = self._rows[known]
            row.record = added(row.record, [notice])
            return
        now = self._now()
        record = Notification(id=next(self._ids), rule=rule.name, key=key, run_id=notice.run_id, created_at=now)
        again = any(one.record.rule == rule.name and one.record.key == key for one in self._rows.values())
        wait = timedelta(days=1) if again else timedelta(seconds=rule.wait_seconds)
        due_at = now + wait if notice.run_id is not None and waits else now
        self._rows[record.id] = _Row(added(record, [notice]), due_at, now)
        self._collecting[rule.name, key] = record.id
        if len(self._rows) > _MAX_ROWS:
            pending = NotificationState.PENDING
            oldest = next((one for one, row in self._rows.items() if row.record.state is not pending), None)
            if oldest is not None:
                del self._rows[oldest]

    # --- the protocol -------------------------------------------------------------------------------------

    def watch(self, rules: Sequence[NotifyRule]) -> None:
        with self._tables.lock:
            self._rules = tuple(rules)
            self._knows_completed = any(one.has(NotifyEvent.COMPLETED) for one in rules)
            self._tables.watch = self if rules else None

    def declare(self, assets: Sequence[str]) -> None:
        """Nothing: no other process sees these tables."""

    def rules(self) -> list[NotifyRule]:
        return [*self._rules]

    @property
    def has_pending(self) -> bool:
        return self._decided

    def pending(self, rules: Sequence[str]) -> int:
        with self._tables.lock:
            states = [row.record.state for row in self._rows.values() if row.record.rule in rules]
            found = states.count(NotificationState.PENDING)
            self._decided = bool(found)
            return found

    def due(self, rules: Sequence[str]) -> list[str]:
        with self._tables.lock:
            now = self._now()
            pending = [row for row in self._rows.values() if row.record.state is NotificationState.PENDING]
            return sorted(
                {row.record.rule for row in pending if row.record.rule in rules and self._is_due(row, now)}
            )

    def claim(self, rules: Sequence[str], *, lease_seconds: float, limit: int = 10) -> list[Notification]:
        with self._tables.lock:
            now = self._now()
            pending = [row for row in self._rows.values() if row.record.state is NotificationState.PENDING]
            due = [row for row in pending if row.record.rule in rules and self._is_due(row, now)][:limit]
            for row in due:
                self._collecting.pop((row.record.rule, row.record.key), None)
                row.collects = False
                row.claim_after = now + timedelta(seconds=lease_seconds)
                token = next(self._tables.tokens)
                row.record = replace(row.record, attempts=row.record.attempts + 1, token=token)
            return [row.record for row in due]

    def _is_due(self, row: _Row, now: datetime) -> bool:
        if row.claim_after > now:
            return False
        run = self._tables.runs.get(row.record.run_id or "")
        return row.due_at <= now or (run is not None and not run.open and run.record().state.is_terminal)

    def renew(self, notifications: Sequence[Notification], *, lease_seconds: float) -> None:
        for one in notifications:
            row = self._settle(one)
            if row is not None:
                row.claim_after = self._now() + timedelta(seconds=lease_seconds)

    def acknowledge(self, notification: Notification) -> None:
        self._settle(notification, state=NotificationState.SENT, sent_at=self._now(), error=None)

    def release(self, notification: Notification, *, error: str, retry_in_seconds: float) -> None:
        row = self._settle(notification, error=clean_text(error, limit=MAX_TEXT))
        if row is not None:
            row.claim_after = self._now() + timedelta(seconds=retry_in_seconds)

    def give_up(self, notification: Notification, *, error: str) -> None:
        text = clean_text(error, limit=MAX_TEXT)
        if self._settle(notification, state=NotificationState.GIVEN_UP, error=text) is not None:
            with self._tables.lock:
                self._tables.note(*of_given_up(notification, text))

    def _settle(self, held: Notification, **changed: object) -> _Row | None:
        with self._tables.lock:
            row = self._rows.get(held.id)
            if row is None or row.record.token != held.token or row.record.state is not NotificationState.PENDING:
                return None
            row.record = replace(row.record, **changed)  # type: ignore[arg-type]
            return row

    def newest(self, *, state: NotificationState | None = None, limit: int = 100) -> list[Notification]:
        with self._tables.lock:
            found = [row.record for row in self._rows.values() if state is None or row.record.state is state]
        return found[::-1][:limit]

    def get(self, notification_id: int) -> Notification | None:
        row = self._rows.get(notification_id)
        return None if row is None else row.record

    def retry(self, notification_ids: Sequence[int]) -> list[int]:
        with self._tables.lock:
            found = sorted(
                one
                for one in set(notification_ids)
                if one in self._rows and self._rows[one].record.state is not NotificationState.SENT
            )
            for one in found:
                row = self._rows[one]
                self._collecting.pop((row.record.rule, row.record.key), None)
                row.record = replace(row.record, state=NotificationState.PENDING, attempts=0, token=0)
                row.claim_after = row.due_at = self._now()
                row.collects = False
                self._tables.note("notification.retried", f"notification:{one}")
            self._decided = True
            return found

    def counts(self) -> dict[NotificationState, int]:
        found: dict[NotificationState, int] = {}
        with self._tables.lock:
            for row in self._rows.values():
                found[row.record.state] = found.get(row.record.state, 0) + 1
        return found

    def newest_commits(self, assets: Sequence[str]) -> dict[str, datetime]:
        found: dict[str, datetime] = {}
        with self._tables.lock:
            for target in self._tables.current:
                if target[0] in assets and (version := self._tables.in_use(target)) is not None:
                    found[target[0]] = max(found.get(target[0], version.at), version.at)
        return found

    def seen_since(self, assets: Sequence[str], *, note: bool = True) -> dict[str, datetime]:
        with self._tables.lock:
            now = self._now()
            if not note:
                marks = {one: ("seen", one, "", "") for one in assets}
                return {one: self._marks[mark] for one, mark in marks.items() if mark in self._marks}
            return {one: self._marks.setdefault(("seen", one, "", ""), now) for one in assets}

    def set_late(self, late: Mapping[str, str], fresh: Mapping[str, str]) -> list[str]:
        with self._tables.lock:
            known = {mark[1] for mark in self._marks if mark[0] == "late"}
            became = sorted(late.keys() - known)
            self._write_lateness(NotifyEvent.LATE, became, late)
            for one in became:
                self._marks["late", one, "", ""] = self._now()
            over = sorted(fresh.keys() & known)
            self._write_lateness(NotifyEvent.RECOVERED, over, fresh)
            for one in over:
                del self._marks["late", one, "", ""]
            return became

    def _write_lateness(self, event: NotifyEvent, assets: Iterable[str], texts: Mapping[str, str]) -> None:
        for one in assets:
            notice = Notice(event, one, self._now(), text=texts[one])
            for rule in self._rules:
                if rule.wants(event, one):
                    self._add(rule, event.value, notice)

    def overdue(self) -> int:
        found = 0
        with self._tables.lock:
            for rule in self._rules:
                if rule.deadline_seconds is None:
                    continue
                latest = self._now() - timedelta(seconds=rule.deadline_seconds)
                for run in self._tables.runs.values():
                    is_about = rule.assets is None or not rule.assets.isdisjoint(run.new.assets)
                    known = (rule.name, f"deadline:{run.new.id}")
                    if not run.open or run.scatter is not None or run.new.created_at > latest or not is_about:
                        continue
                    if known not in self._reported:
                        self._reported.add(known)
                        text = f"{run.new.kind} {run.new.selection}"[:200]
                        text += f" takes longer than {rule.deadline_seconds:g} s"
                        notice = Notice(
                            NotifyEvent.DEADLINE, run.new.id, self._now(), text=text, run_id=run.new.id
                        )
                        self._add(rule, known[1], notice, waits=False)
                        found += 1
        return found

    def keep_rules(self, *, for_seconds: float) -> list[Notification]:
        abandoned = []
        with self._tables.lock:
            own = {one.name for one in self._rules}
            oldest = self._now() - timedelta(seconds=for_seconds)
            for row in self._rows.values():
                is_pending = row.record.state is NotificationState.PENDING
                if is_pending and row.record.rule not in own and max(row.claim_after, row.due_at) <= oldest:
                    self._collecting.pop((row.record.rule, row.record.key), None)
                    row.collects = False
                    row.record = replace(row.record, state=NotificationState.GIVEN_UP, error=UNDECLARED)
                    self._tables.note(*of_given_up(row.record, UNDECLARED))
                    abandoned.append(row.record)
        return abandoned

    def erase(self, steps: Collection[int]) -> None:
        """Take what notices quote of steps out of them; called with the lock held."""
        for row in self._rows.values():
            if any(one.step_id in steps for one in row.record.notices):
                row.record = replace(
                    row.record,
                    notices=Notices(
                        one._replace(text="erased") if one.step_id in steps and one.text else one
                        for one in row.record.notices
                    ),
                )

    def prune(self, *, older_than_seconds: float) -> int:
        with self._tables.lock:
            oldest = self._now() - timedelta(seconds=older_than_seconds)
            gone = [
                one
                for one, row in self._rows.items()
                if row.record.created_at < oldest and row.record.state is not NotificationState.PENDING
            ]
            for one in gone:
                del self._rows[one]
            return len(gone)
