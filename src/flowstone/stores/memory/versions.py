"""Versions in the in-memory store: listed, which one was when, restored, erased."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from flowstone.core.clean import clean_text
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.core.version import (
    ActiveTarget,
    ChangeKind,
    CommittedAt,
    ErasableValue,
    EraseCounts,
    OutputChange,
    PublishedVersion,
    Repointed,
    RestoreVersion,
    RunVersion,
    VersionAt,
    VersionRecord,
    which_at,
)
from flowstone.protocols.versions import VersionStore
from flowstone.stores.audit import new_line, of_targets
from flowstone.stores.memory.approvals import MemoryApprovals
from flowstone.stores.memory.logs import MemoryLogs
from flowstone.stores.memory.notifications import MemoryNotifications
from flowstone.stores.memory.scatters import MemoryScatters
from flowstone.stores.memory.tables import StepRow, Tables
from flowstone.stores.versions import (
    MAX_REASON,
    LockedVersion,
    before_commits,
    check_restore,
    erased_line,
    refuse_active,
    restored_line,
)

_MAX_ACTIVE = 20
_GONE = "erased"


class MemoryVersions(VersionStore):
    """Implements `flowstone.protocols.VersionStore` over dictionaries.

    Args:
        tables: the rows of the store, whose lock makes a method a transaction.
        approvals: forgets what requests say.
        scatters: knows the items of steps.
        logs: what attempts log.
    """

    def __init__(
        self,
        tables: Tables,
        approvals: MemoryApprovals,
        scatters: MemoryScatters,
        logs: MemoryLogs,
        notifications: MemoryNotifications,
    ) -> None:
        self._logs = logs
        self._notifications = notifications
        self._tables = tables
        self._approvals = approvals
        self._scatters = scatters

    def page(self, target: Target, *, before: int | None = None, limit: int = 100) -> list[VersionRecord]:
        with self._tables.changed:
            rows = (row for row in reversed(self._versions(target)) if before is None or row.id < before)
            return [self._record(row) for row in islice(rows, limit)]

    def newest(self, asset: str, *, limit: int = 50) -> list[VersionRecord]:
        with self._tables.changed:
            rows = (self._tables.steps[step_id] for step_id in reversed(self._tables.by_asset.get(asset, ())))
            return [self._record(row) for row in islice(filter(self._is_version, rows), limit)]

    def count(self, target: Target, *, limit: int) -> int:
        with self._tables.changed:
            return min(limit, len(self._versions(target)))

    def get(self, step_ids: Sequence[int]) -> list[VersionRecord]:
        with self._tables.changed:
            rows = (self._tables.steps.get(step_id) for step_id in sorted(set(step_ids)))
            return [self._record(row) for row in rows if row is not None and self._is_version(row)]

    def changes(self, targets: Sequence[Target]) -> list[OutputChange]:
        with self._tables.changed:
            found = [change for target in targets for change in self._tables.changes.get(target, ())]
        return sorted(found, key=lambda one: (one.at, one.id))

    def at(self, targets: Sequence[Target], at: datetime) -> dict[Target, VersionAt]:
        with self._tables.changed:
            return {
                target: which_at(
                    at, self._commits(target), self._tables.changes.get(target, ()), self._current(target)
                )
                for target in targets
            }

    def before(self, versions: Sequence[PublishedVersion]) -> dict[Target, VersionAt]:
        with self._tables.changed:
            targets = [(one.asset, one.partition_key) for one in versions]
            return before_commits(
                versions,
                {target: self._commits(target) for target in targets},
                {target: self._tables.changes.get(target, ()) for target in targets},
                {target: now for target in targets if (now := self._current(target)) is not None},
            )

    def of_run(self, target: Target, run_id: str) -> RunVersion | None:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            row = (run.steps.get(target) or run.joined.get(target)) if run is not None else None
            return None if row is None else RunVersion(row.id, row.state, row.output_step)

    def published(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[PublishedVersion]:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            rows = sorted(run.steps.values(), key=lambda row: row.id) if run is not None else []
            return [
                PublishedVersion(row.asset, row.partition_key, row.id)
                for row in rows
                if row.id > after and self._tables.current.get((row.asset, row.partition_key)) == row.id
            ][:limit]

    def partitions(
        self, asset: str, *, after: PartitionKey | None = None, limit: int = 1000
    ) -> list[PartitionKey]:
        with self._tables.changed:
            keys = {self._tables.steps[step_id].partition_key for step_id in self._tables.by_asset.get(asset, ())}
        return sorted(key for key in keys if key > (after or ""))[:limit]

    def active(self, targets: Sequence[Target]) -> list[ActiveTarget]:
        with self._tables.changed:
            return self._active(targets)

    def restore(
        self,
        versions: Sequence[RestoreVersion],
        *,
        by: str | None = None,
        reason: str | None = None,
        force: bool = False,
        run_id: str | None = None,
    ) -> list[Repointed]:
        with self._tables.changed:
            before = {target: now for target, *_ in versions if (now := self._current(target)) is not None}
            check_restore(versions, self._lock([one.step_id for one in versions]), before)
            found = [
                Repointed(one.target, before[one.target].step_id if one.target in before else None, one.step_id)
                for one in versions
            ]
            changed = [one for one in found if one.changed]
            if not changed:
                return found
            if not force:
                refuse_active("restored", self._active([one.target for one in changed]))
            action, subject, details = restored_line(changed, reason, run_id)
            actor = new_line(action, subject, details, by=by).actor
            for one in changed:
                self._point(one, before.get(one.target), actor, _reason(reason))
                self._publish(one)
            self._tables.note(action, subject, details, by=by)
            self._tables.announce()
        if self._tables.publisher is not None:
            self._tables.publisher.after([one.target for one in changed])
        return found

    def erase_counts(self, targets: Sequence[Target]) -> EraseCounts:
        with self._tables.changed:
            return self._counts(targets)

    def erase(self, targets: Sequence[Target], *, by: str | None = None, reason: str | None = None) -> list[int]:
        tables = self._tables
        with tables.changed:
            refuse_active("erased", self._active(targets))
            counts = self._counts(targets)
            own, items = self._steps(targets)
            rows = [row for row in (*own, *items) if row.erased_at is None]
            if not rows:
                return []
            subject, _ = of_targets(targets)
            actor = new_line("versions.erased", subject, by=by).actor
            changes = []
            for target in targets:
                before = self._current(target)
                changes.append(self._change(target, ChangeKind.ERASED, None, before, actor, _reason(reason)))
                tables.current.pop(target, None)
            for row in rows:
                self._erase(row, min(change.at for change in changes))
            ids = {row.id for row in rows}
            self._logs.forget(ids)
            self._approvals.erase(ids)
            self._scatters.erase(ids)
            self._notifications.erase(ids)
            for run_id in {row.run_id for row in rows}:
                run = tables.runs[run_id]
                if all(row.erased_at is not None for row in run.steps.values()):
                    run.new.details = replace(run.new.details, config={}, metadata={}, hooks_config={}, secrets=())
                    run.info = RunInfo(id=run_id, kind=run.new.kind, details=run.new.details)
            tables.note(*erased_line(targets, counts, reason), by=by)
            return sorted(ids)

    def erased_values(
        self, targets: Sequence[Target], *, after: int = 0, limit: int = 1000
    ) -> list[ErasableValue]:
        with self._tables.changed:
            own, items = self._steps(targets)
            rows = sorted(
                (row for row in (*own, *items) if row.erased_at is not None and row.id > after),
                key=lambda row: row.id,
            )
            return [
                ErasableValue(row.id, row.asset, row.partition_key, row.attempt, row.stored)
                for row in rows[:limit]
            ]

    def forget_values(self, step_ids: Sequence[int]) -> int:
        forgotten = 0
        with self._tables.changed:
            for step_id in step_ids:
                row = self._tables.steps.get(step_id)
                if row is not None and row.erased_at is not None and row.stored is not None:
                    row.stored = row.output_step = None
                    forgotten += 1
        return forgotten

    # --- pieces, called with the lock held ------------------------------------------------------------------

    def _is_version(self, row: StepRow) -> bool:
        return row.state is State.COMPLETED and self._tables.runs[row.run_id].scatter is None

    def _versions(self, target: Target) -> list[StepRow]:
        rows = (self._tables.steps[step_id] for step_id in self._tables.by_asset.get(target[0], ()))
        return [row for row in rows if row.partition_key == target[1] and self._is_version(row)]

    def _record(self, row: StepRow) -> VersionRecord:
        target = row.asset, row.partition_key
        now = self._current(target)
        return VersionRecord(
            step_id=row.id,
            asset=row.asset,
            partition_key=row.partition_key,
            run_id=row.run_id,
            attempt=row.attempt,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            code_version=row.new.code_version,
            stored=row.stored,
            invalidated_at=row.invalidated_at,
            erased_at=row.erased_at,
            since=now.at if now is not None and now.step_id == row.id else None,
            kind=self._tables.runs[row.run_id].new.kind,
            requested_by=self._tables.runs[row.run_id].new.requested_by,
        )

    def _commits(self, target: Target) -> list[CommittedAt]:
        return [
            CommittedAt(row.id, row.finished_at) for row in self._versions(target) if row.finished_at is not None
        ]

    def _current(self, target: Target) -> CommittedAt | None:
        return self._tables.in_use(target)

    def _lock(self, step_ids: Sequence[int | None]) -> dict[int, LockedVersion]:
        rows = [self._tables.steps.get(step_id) for step_id in step_ids if step_id is not None]
        return {
            row.id: LockedVersion(row.id, row.asset, row.partition_key, row.erased_at)
            for row in rows
            if row is not None and self._is_version(row)
        }

    def _active(self, targets: Sequence[Target]) -> list[ActiveTarget]:
        steps, active = self._tables.steps, self._tables.active
        rows = [steps[active[target]] for target in targets if target in active]
        return [
            ActiveTarget(row.asset, row.partition_key, row.run_id, row.id, row.state) for row in rows[:_MAX_ACTIVE]
        ]

    def _change(
        self,
        target: Target,
        kind: ChangeKind,
        step_id: int | None,
        before: CommittedAt | None,
        actor: str,
        reason: str | None,
    ) -> OutputChange:
        return self._tables.change_output(target, kind, step_id, before, actor, reason)

    def _point(self, one: Repointed, before: CommittedAt | None, actor: str, reason: str | None) -> None:
        tables = self._tables
        if one.step_id is None:
            change = self._change(one.target, ChangeKind.INVALIDATED, None, before, actor, reason)
            del tables.current[one.target]
            if one.before is not None:
                tables.steps[one.before].invalidated_at = change.at
            return
        self._change(one.target, ChangeKind.RESTORED, one.step_id, before, actor, reason)
        tables.current[one.target] = one.step_id
        tables.steps[one.step_id].invalidated_at = None

    def _publish(self, one: Repointed) -> None:
        tables = self._tables
        if tables.publisher is None:
            return
        now = tables.steps[one.step_id].stored if one.step_id is not None else None
        if now is not None and tables.publisher.concerns(now):
            tables.publish(one.target, now)
        elif one.before is not None and one.before in tables.steps:
            tables.publish(one.target, tables.steps[one.before].stored, in_use=False)

    def _steps(self, targets: Sequence[Target]) -> tuple[list[StepRow], list[StepRow]]:
        """Return the steps of targets, and those of their items."""
        tables = self._tables
        chosen = set(targets)
        own = [
            tables.steps[step_id]
            for asset in dict.fromkeys(asset for asset, _ in targets)
            for step_id in tables.by_asset.get(asset, ())
            if (asset, tables.steps[step_id].partition_key) in chosen
        ]
        ids = {row.id for row in own}
        runs = [run for run in tables.runs.values() if run.scatter is not None and run.scatter.step_id in ids]
        return own, [row for run in runs for row in run.steps.values() if row.id not in ids]

    def _counts(self, targets: Sequence[Target]) -> EraseCounts:
        own, items = self._steps(targets)
        rows = [*own, *items]
        fresh = [row for row in rows if row.erased_at is None]
        values = [row.stored for row in rows if row.stored is not None and row.output_step == row.id]
        return EraseCounts(
            steps=len(rows),
            values=len(values),
            size_bytes=sum(one.size_bytes or 0 for one in values),
            attempts=sum(len(row.attempts) if row.attempts is not None else bool(row.attempt) for row in fresh),
            checks=sum(len(self._tables.checks_of_step.get(row.id, ())) for row in fresh),
            approvals=sum(len(self._approvals.by_step.get(row.id, ())) for row in fresh),
            items=sum(row.erased_at is None for row in items),
            logs=sum(one.lines for one in self._logs.counts([row.id for row in fresh])),
            erased=len(rows) - len(fresh),
        )

    def _erase(self, row: StepRow, now: datetime) -> None:
        row.erased_at = now
        row.error = _GONE if row.error is not None else None
        row.reason = _GONE if row.reason is not None else None
        row.error_data = None
        if row.stored is not None:
            row.stored = StoredOutput(row.stored.io, row.stored.location, size_bytes=row.stored.size_bytes)
        if row.attempts is not None:
            row.attempts = [replace(one, error=_GONE) if one.error is not None else one for one in row.attempts]
        checks = self._tables.checks_of_step.get(row.id)
        if checks:
            bare = [
                replace(one, description="", metadata={}, error=_GONE if one.error is not None else None)
                for one in checks
            ]
            kept: Collection[int] = {id(one) for one in checks}
            self._tables.checks_of_step[row.id] = bare
            left = iter(bare)
            self._tables.checks[row.asset] = [
                next(left) if id(one) in kept else one for one in self._tables.checks[row.asset]
            ]


def _reason(reason: str | None) -> str | None:
    return clean_text(reason, limit=MAX_REASON) if reason else None
