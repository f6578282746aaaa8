"""What a transaction writes so that people are notified of what it did: the outbox of notifications.

Each function is called inside the transaction in which something happened, last, and costs nothing when no rule is
about that kind of thing: what was committed is reported, and nothing else, whatever dies afterwards. The `Watch`
of the database whose transaction it is knows the rules. Steps are locked before runs, and runs before
notifications, by everybody.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.clean import error_line
from flowstone.core.notification import MAX_NOTICES, Notice, NotifyEvent, NotifyRule, quoted
from flowstone.core.outcome import PROCESS_LOST
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import CheckRecord, Severity
from flowstone.sql import load_sql
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_RULES_SECONDS = 10.0
"""For so long what other processes declared is taken to be as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRow:
    """A rule that some process declared."""

    name: str
    events: tuple[str, ...]
    assets: tuple[str, ...] | None
    automations: tuple[str, ...] | None
    wait_seconds: float
    deadline_seconds: float | None

    def rule(self) -> NotifyRule:
        """Return the rule; events of a newer version are left out."""
        known = {one.value for one in NotifyEvent}
        return NotifyRule(
            name=self.name,
            events=frozenset(NotifyEvent(one) for one in self.events if one in known),
            assets=None if self.assets is None else frozenset(self.assets),
            automations=None if self.automations is None else frozenset(self.automations),
            wait_seconds=self.wait_seconds,
            deadline_seconds=self.deadline_seconds,
        )


class Watch:
    """The rules by which the transactions of a database decide.

    Args:
        own: those of this process.
    """

    def __init__(self, own: Sequence[NotifyRule] = ()) -> None:
        self.own = tuple(own)
        self.recovers = any(one.has(NotifyEvent.RECOVERED) for one in own)
        """Whether what goes well may end something that had failed."""
        self.completes = any(one.has(NotifyEvent.COMPLETED) for one in own)
        self.decided = False
        """Whether a transaction of this process wrote something since that was last read."""
        self._others: tuple[NotifyRule, ...] = ()
        self._read_at: float | None = None

    def rules(self, connection: Connection[TupleRow]) -> tuple[NotifyRule, ...]:
        """Return the rules of this process, and those that others declared: their steps may end here as well."""
        now = time.monotonic()
        if self._read_at is None or now >= self._read_at + _RULES_SECONDS:
            own = {one.name for one in self.own}
            rows = fetch_all(connection, RuleRow, "notifications/rules")
            self._others = tuple(row.rule() for row in rows if row.name not in own)
            self._read_at = now
        return self.own + self._others


under_way: ContextVar[Watch | None] = ContextVar("flowstone_watch", default=None)
"""The watch of the database whose transaction is open in this thread."""


class Group(NamedTuple):
    """Notices that one notification takes up."""

    rule: NotifyRule
    key: str
    run_id: str | None
    notices: list[Notice]
    waits: bool = True


class _EndedRow(NamedTuple):
    """A step that ended without a result."""

    step_id: int
    run_id: str
    asset: str
    partition_key: PartitionKey
    state: State
    reason: str | None
    error: str | None
    error_type: str | None
    finished_at: datetime


class _TargetRow(NamedTuple):
    """A step that completed."""

    step_id: int
    run_id: str
    asset: str
    partition_key: PartitionKey


class RunRow(NamedTuple):
    """A run that a message is about."""

    run_id: str
    kind: str
    selection: str
    assets: tuple[str, ...] | None
    total_steps: int

    @property
    def shown(self) -> str:
        """What was requested, for people."""
        return f"{self.kind} {self.selection}"[:200]


class _MarkRow(NamedTuple):
    """A failure that is over."""

    kind: str
    subject: str
    partition_key: PartitionKey
    detail: str
    at: datetime


class _Mark(NamedTuple):
    """A failure that is remembered until it is over."""

    kind: str
    subject: str
    partition_key: str
    detail: str = ""


def note_lost(connection: Connection[TupleRow], steps: Sequence[int]) -> None:
    """Decide on notifications for steps that ended without a result, such as those below one that failed."""
    watch = under_way.get()
    if watch is None or not (rules := watch.rules(connection)):
        return
    found = fetch_all(connection, _EndedRow, "notifications/ended", {"steps": list(steps), "lost": PROCESS_LOST})
    groups: dict[tuple[str, str], Group] = {}
    marks: dict[_Mark, None] = {}
    for row in found:
        event = NotifyEvent.UPSTREAM_FAILED if row.state is State.UPSTREAM_FAILED else NotifyEvent.FAILED
        notice = Notice(
            event,
            row.asset,
            row.finished_at,
            row.partition_key,
            quoted(error_line(row.error) or row.reason),
            row.step_id,
            row.run_id,
        )
        for rule in rules:
            if rule.wants(event, row.asset):
                _collect(groups, rule, notice)
        if any(rule.wants(NotifyEvent.RECOVERED, row.asset) for rule in rules):
            marks[_Mark("failed", row.asset, row.partition_key)] = None
    write(connection, watch, groups.values())
    _mark(connection, list(marks))


def note_completed(connection: Connection[TupleRow], steps: Sequence[int]) -> None:
    """Decide on notifications for steps that completed: those whose target had failed before."""
    watch = under_way.get()
    if watch is None or not watch.recovers or not steps:
        return
    rules = [one for one in watch.own if one.has(NotifyEvent.RECOVERED)]
    rows = fetch_all(connection, _TargetRow, "notifications/targets", {"steps": list(steps)})
    by_target = {
        (row.asset, row.partition_key): row
        for row in rows
        if any(rule.wants(NotifyEvent.RECOVERED, row.asset) for rule in rules)
    }
    cleared = _clear(connection, [_Mark("failed", *target) for target in by_target])
    groups: dict[tuple[str, str], Group] = {}
    for mark in cleared:
        row = by_target[mark.subject, mark.partition_key]
        text = f"had failed since {mark.at:%Y-%m-%d %H:%M} UTC"
        now = datetime.now(UTC)
        notice = Notice(NotifyEvent.RECOVERED, row.asset, now, row.partition_key, text, row.step_id, row.run_id)
        for rule in rules:
            if rule.wants(NotifyEvent.RECOVERED, row.asset):
                _collect(groups, rule, notice)
    write(connection, watch, groups.values())


def note_ended_runs(connection: Connection[TupleRow], runs: Sequence[str]) -> None:
    """Decide on notifications for runs that ended well."""
    watch = under_way.get()
    if watch is None or not watch.completes or not runs:
        return
    now = datetime.now(UTC)
    groups: dict[tuple[str, str], Group] = {}
    for row in fetch_all(connection, RunRow, "notifications/ended_runs", {"runs": list(runs)}):
        text = f"{row.shown}: {row.total_steps} steps"
        notice = Notice(NotifyEvent.COMPLETED, row.run_id, now, text=text, run_id=row.run_id)
        for rule in watch.own:
            if rule.has(NotifyEvent.COMPLETED) and is_about(rule, row.assets):
                _collect(groups, rule, notice)
    write(connection, watch, groups.values())


def is_about(rule: NotifyRule, assets: Iterable[str] | None) -> bool:
    """Whether a rule is about a run of these assets."""
    return rule.assets is None or not rule.assets.isdisjoint(assets or ())


def note_checks(connection: Connection[TupleRow], found: Sequence[CheckRecord], runs: Mapping[int, str]) -> None:
    """Decide on notifications for what checks found.

    Args:
        connection: with the transaction that recorded it.
        found: the results.
        runs: the runs of their steps, where they are known.
    """
    watch = under_way.get()
    if watch is None or not (watch.recovers or any(not one.passed for one in found)):
        return
    rules = watch.rules(connection)
    passed = {_check_mark(one): one for one in found if one.passed} if watch.recovers else {}
    over = {(mark.subject, mark.partition_key, mark.detail) for mark in _clear(connection, list(passed))}
    groups: dict[tuple[str, str], Group] = {}
    marks: dict[_Mark, None] = {}
    for one in found:
        mark = _check_mark(one)
        if one.passed and mark[1:] not in over:
            continue
        event = NotifyEvent.CHECK_FAILED if one.severity is Severity.ERROR else NotifyEvent.CHECK_WARNED
        event = NotifyEvent.RECOVERED if one.passed else event
        text = quoted(one.description or error_line(one.error))
        run_id = runs.get(one.step_id)
        at = one.started_at
        notice = Notice(event, one.asset, at, one.partition_key, text, one.step_id, run_id, one.check)
        for rule in rules:
            if rule.wants(event, one.asset):
                _collect(groups, rule, notice)
        if not one.passed and any(rule.wants(NotifyEvent.RECOVERED, one.asset) for rule in rules):
            marks[mark] = None
    write(connection, watch, groups.values())
    _mark(connection, list(marks))


def note_automation(connection: Connection[TupleRow], automation: str, error: str | None) -> None:
    """Decide on notifications for an automation that began to fail, or that is well again.

    Args:
        connection: with the transaction that concludes the evaluation.
        automation: which, such as `sensor:inbox`.
        error: what it raised; None when it is well.
    """
    watch = under_way.get()
    if watch is None or not (rules := watch.rules(connection)):
        return
    event = NotifyEvent.RECOVERED if error is None else NotifyEvent.AUTOMATION_FAILED
    if not any(rule.wants_of(NotifyEvent.AUTOMATION_FAILED, automation) for rule in rules):
        return
    mark = _Mark("automation", automation, "")
    if _clear(connection, [mark]) if error is None else _mark(connection, [mark]):
        notice = Notice(event, automation, datetime.now(UTC), text=quoted(error_line(error)))
        write(connection, watch, single(rules, notice, f"automation:{automation}"))


def note_approvals(connection: Connection[TupleRow], requested: Sequence[Notice]) -> None:
    """Decide on notifications for steps that wait for a person's decision; `check` holds the id of the request."""
    watch = under_way.get()
    if watch is None or not requested:
        return
    rules = watch.rules(connection)
    write(
        connection,
        watch,
        [
            Group(rule, f"approval:{one.check}", one.run_id, [one._replace(check=None)], waits=False)
            for one in requested
            for rule in rules
            if rule.wants(NotifyEvent.APPROVAL, one.subject)
        ],
    )


def single(rules: Iterable[NotifyRule], notice: Notice, key: str) -> list[Group]:
    """Return the groups of a notice about an automation, a notification of its own for each rule."""
    return [Group(rule, key, None, [notice]) for rule in rules if rule.wants_of(notice.event, notice.subject)]


def write(connection: Connection[TupleRow], watch: Watch, groups: Iterable[Group]) -> None:
    """Add notices to notifications."""
    rows = []
    for group in groups:
        counts: dict[str, int] = {}
        for one in group.notices:
            counts[one.event.value] = counts.get(one.event.value, 0) + 1
        rows.append(
            {
                "rule": group.rule.name,
                "key": group.key,
                "run_id": group.run_id,
                "waits": group.waits,
                "wait_seconds": group.rule.wait_seconds,
                "counts": counts,
                "notices": [one.to_json() for one in group.notices[:MAX_NOTICES]],
            }
        )
    if rows:
        watch.decided = True
        connection.execute(load_sql("notifications/add"), {"groups": to_json(rows), "maximum": MAX_NOTICES})


def _collect(groups: dict[tuple[str, str], Group], rule: NotifyRule, notice: Notice) -> None:
    """Add a notice to that of its run, or of its subject when it is of none."""
    key = f"run:{notice.run_id}" if notice.run_id else f"asset:{notice.subject}"
    if (rule.name, key) not in groups:
        groups[rule.name, key] = Group(rule, key, notice.run_id, [])
    groups[rule.name, key].notices.append(notice)


def _check_mark(one: CheckRecord) -> _Mark:
    return _Mark("check", one.asset, one.partition_key, one.check)


def _columns(marks: Sequence[_Mark]) -> dict[str, list[str]]:
    return {
        "kinds": [one.kind for one in marks],
        "subjects": [one.subject for one in marks],
        "partitions": [one.partition_key for one in marks],
        "details": [one.detail for one in marks],
    }


def _mark(connection: Connection[TupleRow], marks: Sequence[_Mark]) -> list[str]:
    """Remember failures; return the subjects of those that were not remembered yet."""
    return fetch_column(connection, str, "notifications/mark", _columns(marks)) if marks else []


def _clear(connection: Connection[TupleRow], marks: Sequence[_Mark]) -> list[_MarkRow]:
    return fetch_all(connection, _MarkRow, "notifications/clear", _columns(marks)) if marks else []
