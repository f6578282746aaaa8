"""What waits for a person, what checks found, and who did what: approvals, checks, the audit log for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.audit import AuditFilter, AuditRecord
from flowstone.core.check import Check
from flowstone.core.definition import write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.output import JsonValue
from flowstone.core.paging import Page, clamp_limit, decode_cursor, page_of
from flowstone.core.partitions import PartitionKey, decode_partition, partition_label
from flowstone.core.step import CheckRecord
from flowstone.protocols import Store

_SILENCE = {
    "reject": "If nobody decides in time, it is rejected and the step fails.",
    "approve": "If nobody decides in time, it is approved and the step goes on.",
    "skip": "If nobody decides in time, the step is skipped.",
}
_MAX_DATA = 20_000
_MAX_FACTS = 30
MAX_WAITING = 1_000
"""Requests that wait are counted to here."""
RECENT = 20
"""So many of the last results of an asset are read for its checks."""
_FAILURES = 25
_NEWEST = 15
"""So many of the last failures of an asset are looked through for those that still stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalCard:
    """A request for approval.

    Args:
        id: names it.
        asset: whose step waits.
        partition_key: its partition, encoded.
        partition: as people write it.
        run_id: its run.
        step_id: the step.
        gate: which question of the asset it is.
        message: what the person is asked.
        facts: the data, as names and values, where it is an object of plain values.
        data: the data as indented JSON, where it is anything else; cut when it is long.
        data_is_cut: whether there is more of it.
        state: where it stands.
        silence: what it means that nobody decides in time.
        created_at: when it was asked.
        expires_at: until when a decision counts.
        seconds_left: until then, never negative; None when it is decided.
        decided_at: when.
        decided_by: by whom.
        comment: what they said about it.
        verdict: all of that in a sentence.
    """

    id: int
    asset: str
    partition_key: PartitionKey
    partition: str
    run_id: str
    step_id: int
    gate: str
    message: str
    facts: tuple[tuple[str, str], ...] = ()
    data: str = ""
    data_is_cut: bool = False
    state: str
    silence: str
    created_at: datetime
    expires_at: datetime
    seconds_left: float | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    comment: str | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinding:
    """One result of a check.

    Args:
        asset: whose value.
        check: its name.
        partition_key: the partition, encoded.
        partition: as people write it.
        step_id: the step that made the value.
        passed: whether the value is as it should be.
        severity: `error` or `warning`.
        blocking: whether a failure keeps the value from being published.
        description: what the check said.
        error: what the check itself raised.
        metadata: facts, as names and values.
        at: when it ran.
        took_seconds: how long.
    """

    asset: str
    check: str
    partition_key: PartitionKey
    partition: str
    step_id: int
    passed: bool
    severity: str
    blocking: bool
    description: str = ""
    error: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    at: datetime
    took_seconds: float = 0.0

    @property
    def state(self) -> str:
        """`completed`, `failed`, or `stale` for a warning: a word with a glyph on every page."""
        return "completed" if self.passed else "failed" if self.severity == "error" else "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSummary:
    """A declared check with its last results.

    Args:
        asset: whose value it checks.
        check: its name.
        description: what it is for.
        severity: `error` or `warning`.
        blocking: whether a failure keeps the value from being published.
        last: its newest result; None before the first.
        recent: whether it passed, of its last results, the newest first.
        failing: in how many partitions it fails now, of those that were looked through.
        failing_is_at_least: whether there may be more.
    """

    asset: str
    check: str
    description: str
    severity: str
    blocking: bool
    last: CheckFinding | None = None
    recent: tuple[bool, ...] = ()
    failing: int = 0
    failing_is_at_least: bool = False

    @property
    def strip(self) -> tuple[tuple[str, int], ...]:
        """The last results, the oldest first, as a chart takes them."""
        failed = "failed" if self.severity == "error" else "stale"
        return tuple(("completed" if passed else failed, 1) for passed in reversed(self.recent))

    @property
    def state(self) -> str:
        """`failed` (or `stale` for a warning) when it fails in any partition, `completed`, or `unstarted`."""
        if self.failing:
            return "failed" if self.severity == "error" else "stale"
        return "unstarted" if self.last is None else "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One line of the audit log.

    Args:
        id: its place.
        at: when.
        actor: who.
        action: what, such as `run.cancelled`.
        subject: to what, such as `run:r1`.
        kind: of the subject: `run`, `step`, `asset`, `queue`, `approval`...
        name: the subject without its kind.
        details: more about it, as names and values.
        via: how it came: `cli`, `web`, `json`, or nothing.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    kind: str
    name: str
    details: tuple[tuple[str, str], ...] = ()
    via: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLine:
    """A key of dynamic partitions: encoded, and as people write it."""

    key: PartitionKey
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChangeLine:
    """A key that was added or removed: when, by whom, why."""

    label: str
    removed: bool
    at: datetime
    by: str | None
    reason: str | None


class DecisionWatch:
    """Answers about approvals, checks and the audit log.

    Args:
        graph: the assets of the app.
        store: what is recorded.
        declared: the checks of an asset.
    """

    def __init__(self, graph: AssetGraph, store: Store, declared: Sequence[Check]) -> None:
        self._graph = graph
        self._store = store
        self._checks = sorted(declared, key=lambda one: (one.asset, one.name))

    def waiting(self) -> int:
        """Return how many requests wait for a decision; counted to 1,000."""
        return self._store.insights.automation.pending(limit=MAX_WAITING)

    def pending(self, now: datetime, *, limit: int | None = None) -> Page[ApprovalCard]:
        """Return the requests that wait, the most urgent first."""
        limit = clamp_limit(limit)
        found = self._store.approvals.list(state=ApprovalState.PENDING, limit=limit)
        cards = tuple(self._card(one, now) for one in found)
        total = len(cards) if len(cards) < limit else self.waiting()
        return Page(cards, None, total, total_is_at_least=total >= MAX_WAITING)

    def decided(self, now: datetime, *, cursor: str | None = None, limit: int | None = None) -> Page[ApprovalCard]:
        """Return the requests that are over, the newest first."""
        limit, after = clamp_limit(limit), decode_cursor(cursor, int)
        before = after[0] if after else None
        found = self._store.insights.automation.decided(before=before, limit=limit + 1)
        return page_of(found, limit, lambda one: (one.id,)).map(lambda one: self._card(one, now))

    def approval(self, approval_id: int, now: datetime) -> ApprovalCard | None:
        """Return one request; None when there is none of this id."""
        found = self._store.approvals.get(approval_id)
        return None if found is None else self._card(found, now)

    def checks(
        self,
        *,
        asset: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[CheckSummary]:
        """Return the declared checks with their last results, those that fail first.

        Args:
            asset: only of this asset.
            state: only those that are `failed`, `stale` (a warning), `completed` or `unstarted`.
            cursor: where the page begins.
            limit: how many.
        """
        limit, after = clamp_limit(limit), decode_cursor(cursor, int, str, str)
        chosen = [one for one in self._checks if asset in (None, one.asset)]
        assets = list(dict.fromkeys(one.asset for one in chosen))
        insights = self._store.insights.automation
        recent = _by_check(insights.recent_checks(assets, each=RECENT) if assets else ())
        failing = _by_check(insights.failing_checks(assets, each=_FAILURES) if assets else ())
        summaries = (self._summary(one, recent, failing) for one in chosen)
        found = [one for one in summaries if state in (None, one.state)]
        found.sort(key=_order)
        rest = [one for one in found if after is None or _order(one) > after]
        return page_of(rest[: limit + 1], limit, _order, total=len(found))

    def failing(self, *, limit: int | None = None) -> Page[CheckFinding]:
        """Return results of declared checks that are failures and the newest of their partition, newest first."""
        limit = clamp_limit(limit)
        assets = list(dict.fromkeys(one.asset for one in self._checks))
        found = self._store.insights.automation.failing_checks(assets, each=_NEWEST) if assets else []
        found = sorted(found, key=lambda one: one.started_at, reverse=True)
        return Page(tuple(self._finding(one) for one in found[:limit]), None, len(found))

    def findings(
        self, asset: str, check: str | None = None, *, partition: PartitionKey | None = None,
        failed: bool = False, limit: int | None = None,
    ) -> Page[CheckFinding]:  # fmt: skip
        """Return the last results of an asset's checks, newest first."""
        limit = clamp_limit(limit)
        found = self._store.checks.results(asset, partition=partition, check=check, failed=failed, limit=limit + 1)
        return Page(
            tuple(self._finding(one) for one in found[:limit]), None, None if len(found) > limit else len(found)
        )

    def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[AuditLine]:
        """Return lines of the audit log, newest first; see `flow.audit.latest` for the filters."""
        limit, after = clamp_limit(limit), decode_cursor(cursor, int)
        requested = AuditFilter(actor=actor, action=action, subject=subject, since=since, until=until)
        found = self._store.audit.lines(requested, before=after[0] if after else None, limit=limit + 1)
        return page_of(list(found), limit, lambda one: (one.id,)).map(_line)

    def keys(
        self, name: str, *, text: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> Page[KeyLine]:
        """Return keys of dynamic partitions in the order of their addition; those with a text in them."""
        limit, after = clamp_limit(limit), decode_cursor(cursor, int)
        begin = max(0, after[0]) if after else 0
        lines = [
            (place, KeyLine(key=PartitionKey(key), label=partition_label(decode_partition(key))))
            for place, key in enumerate(self._store.partition_keys.keys(name), 1)
        ]
        found = [one for one in lines if not text or text.casefold() in one[1].label.casefold()]
        rest = [one for one in found if one[0] > begin]
        return page_of(rest[: limit + 1], limit, lambda one: (one[0],), total=len(found)).map(lambda one: one[1])

    def key_changes(self, name: str, *, limit: int) -> list[KeyChangeLine]:
        """Return the newest changes of the keys of dynamic partitions."""
        return [
            KeyChangeLine(
                label=partition_label(one.partition),
                removed=one.removed,
                at=one.at,
                by=one.by,
                reason=one.reason,
            )
            for one in self._store.partition_keys.history(name, limit=limit)
        ]

    def _card(self, one: Approval, now: datetime) -> ApprovalCard:
        facts, data, is_cut = _readable(one.data)
        pending = one.state is ApprovalState.PENDING
        return ApprovalCard(
            id=one.id,
            asset=one.asset,
            partition_key=one.partition_key,
            partition=self._label(one.asset, one.partition_key),
            run_id=one.run_id,
            step_id=one.step_id,
            gate=one.gate,
            message=one.message,
            facts=facts,
            data=data,
            data_is_cut=is_cut,
            state=one.state.value,
            silence=_SILENCE[one.on_timeout],
            created_at=one.created_at,
            expires_at=one.expires_at,
            seconds_left=max(0.0, (one.expires_at - now) / timedelta(seconds=1)) if pending else None,
            decided_at=one.decided_at,
            decided_by=one.decided_by,
            comment=one.comment,
            verdict="" if pending else one.verdict(),
        )

    def _summary(self, check: Check, recent: _Results, failing: _Results) -> CheckSummary:
        mine = recent.get((check.asset, check.name), [])
        fails = failing.get((check.asset, check.name), [])
        last = mine[0] if mine else fails[0] if fails else None
        return CheckSummary(
            asset=check.asset,
            check=check.name,
            description=check.description or "",
            severity=check.severity.value,
            blocking=check.blocking,
            last=None if last is None else self._finding(last),
            recent=tuple(one.passed for one in mine[:30]),
            failing=len(fails),
            failing_is_at_least=len(fails) >= _FAILURES,
        )

    def _finding(self, one: CheckRecord) -> CheckFinding:
        return CheckFinding(
            asset=one.asset,
            check=one.check,
            partition_key=one.partition_key,
            partition=self._label(one.asset, one.partition_key),
            step_id=one.step_id,
            passed=one.passed,
            severity=one.severity.value,
            blocking=one.blocking,
            description=one.description,
            error=one.error,
            metadata=_pairs(one.metadata),
            at=one.started_at,
            took_seconds=one.took_seconds,
        )

    def _label(self, asset: str, key: PartitionKey) -> str:
        known = self._graph[asset].partitions if asset in self._graph else None
        return write_partition(known, key) if key else ""


type _Results = dict[tuple[str, str], list[CheckRecord]]


def _by_check(records: Sequence[CheckRecord]) -> _Results:
    found: _Results = {}
    for one in records:
        found.setdefault((one.asset, one.check), []).append(one)
    return found


def _order(one: CheckSummary) -> tuple[int, str, str]:
    return ("failed", "stale", "unstarted", "completed").index(one.state), one.asset, one.check


def _line(one: AuditRecord) -> AuditLine:
    kind, _, name = one.subject.partition(":")
    return AuditLine(
        id=one.id,
        at=one.at,
        actor=one.actor,
        action=one.action,
        subject=one.subject,
        kind=kind if name else "",
        name=name or one.subject,
        details=_pairs(dict(one.details)),
        via=one.via,
    )


def _pairs(document: dict[str, JsonValue]) -> tuple[tuple[str, str], ...]:
    """Return an object as names and values for people; long values are cut."""
    return tuple((str(name), _shown(value)) for name, value in list(document.items())[:_MAX_FACTS])


def _shown(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:299]}…"


def _readable(data: JsonValue) -> tuple[tuple[tuple[str, str], ...], str, bool]:
    """Return what a person is shown: facts where it is a small object of plain values, else indented JSON.

    Example:
        >>> _readable({"total": 1200, "to": "acme"})
        ((('total', '1200'), ('to', 'acme')), '', False)
        >>> _readable([1])[1]
        '[\\n  1\\n]'
    """
    if data is None:
        return (), "", False
    plain = isinstance(data, dict) and not any(isinstance(one, dict | list) for one in data.values())
    if isinstance(data, dict) and plain and len(data) <= _MAX_FACTS:
        return _pairs(data), "", False
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=2)
    return (), text[:_MAX_DATA], len(text) > _MAX_DATA
