"""The reading side of the in-memory store: outputs, steps and runs, checks, target statuses, dynamic keys."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from flowstone.core.automation.facts import (
    CommittedVersion,
    DataVersion,
    NewestStep,
    Reads,
    Restored,
    TargetStatus,
)
from flowstone.core.automation.record import PartitionChange
from flowstone.core.clean import clean_text
from flowstone.core.output import Publication
from flowstone.core.partitions import KeyChange, KeyState, PartitionKey
from flowstone.core.run_details import NO_DETAILS, RunDetails
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    CheckRecord,
    CommittedOutput,
    InputVersion,
    RunRecord,
    StepRecord,
    Target,
)
from flowstone.protocols import Catalog, CheckStore, PartitionKeys, PublicationStore, TargetStatuses
from flowstone.stores.audit import of_keys
from flowstone.stores.memory.tables import StepRow, Tables

_make_tuple = tuple.__new__
"""Makes a named tuple as its class does it, without a call of a function for each."""


class MemoryCatalog(Catalog):
    """Implements `flowstone.protocols.Catalog` over dictionaries."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def current(self, targets: Sequence[Target]) -> dict[Target, int]:
        current = self._tables.current
        return {target: current[target] for target in targets if target in current}

    def started(self, targets: Sequence[Target]) -> dict[Target, datetime]:
        steps, current = self._tables.steps, self._tables.current
        found = {target: steps[current[target]].started_at for target in targets if target in current}
        return {target: at for target, at in found.items() if at is not None}

    def resolve(self, requested: Sequence[tuple[str, str, PartitionKey]]) -> list[CommittedOutput | None]:
        found: list[CommittedOutput | None] = []
        tables = self._tables
        steps, current = tables.steps, tables.current
        own: dict[Target, StepRow] = {}
        last = None
        for run_id, asset, partition in requested:
            if run_id != last:
                run = tables.runs.get(run_id)
                own, last = (run.steps if run else {}), run_id
            target = (asset, partition)
            row = own.get(target)
            own_id = row.output_step if row is not None else None
            step_id = current.get(target) if own_id is None else own_id
            made = steps[step_id] if step_id is not None else None
            if made is None or not made.stored or made.erased_at is not None:
                found.append(None)
            else:
                one = (made.id, made.stored, made.started_at, own_id is not None)
                found.append(_make_tuple(CommittedOutput, one))
        return found

    def skipped(self, requested: Sequence[tuple[str, str, PartitionKey]]) -> set[int]:
        with self._tables.changed:
            return {position for position, one in enumerate(requested) if self._was_skipped(*one)}

    def _was_skipped(self, run_id: str, asset: str, partition: PartitionKey) -> bool:
        run = self._tables.runs.get(run_id)
        own = run.steps.get((asset, partition)) if run else None
        if own is not None and (own.state.is_success or own.state is State.SKIPPED):
            return own.state is State.SKIPPED
        for step_id in reversed(self._tables.by_asset.get(asset, ())):
            row = self._tables.steps[step_id]
            if row.partition_key == partition and row.state in (State.COMPLETED, State.SKIPPED):
                return row.state is State.SKIPPED
        return False

    def step(self, step_id: int) -> StepRecord | None:
        row = self._tables.steps.get(step_id)
        return row.record() if row else None

    def steps(self, run_id: str, *, state: State | None = None, limit: int = 1000) -> list[StepRecord]:
        run = self._tables.runs.get(run_id)
        if run is None:
            return []
        with self._tables.changed:
            rows = [*run.steps.values(), *run.joined.values()]
        chosen = [row for row in rows if state is None or row.state is state]
        return [row.record() for row in chosen[:limit]]

    def history(
        self, asset: str, partition: PartitionKey | None, *, state: State | None = None, limit: int = 100
    ) -> list[StepRecord]:
        found: list[StepRecord] = []
        with self._tables.changed:
            ids = list(self._tables.by_asset.get(asset, ()))
        for step_id in reversed(ids):
            row = self._tables.steps[step_id]
            if (partition is None or row.partition_key == partition) and (state is None or row.state is state):
                found.append(row.record())
                if len(found) == limit:
                    break
        return found

    def attempts(self, step_id: int) -> list[AttemptRecord]:
        row = self._tables.steps.get(step_id)
        if row is None:
            return []
        if row.attempts is None and row.attempt and row.started_at and row.finished_at:
            # a step that went well at once keeps no list of its own
            return [
                AttemptRecord(
                    attempt=row.attempt,
                    state=row.state,
                    started_at=row.started_at,
                    finished_at=row.finished_at,
                )
            ]
        return list(row.attempts or ())

    def inputs(self, step_ids: Sequence[int]) -> dict[int, tuple[InputVersion, ...]]:
        steps = self._tables.steps
        return {step_id: steps[step_id].inputs for step_id in step_ids if step_id in steps}

    def readers(self, step_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        with self._tables.changed:
            return {step_id: tuple(self._tables.readers.get(step_id, ())) for step_id in step_ids}

    def run(self, run_id: str) -> RunRecord | None:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            return run.record() if run else None

    def config_hashes(self, step_ids: Sequence[int]) -> dict[int, str | None]:
        steps = self._tables.steps
        return {one: steps[one].new.config_hash for one in step_ids if one in steps}

    def run_details(self, run_id: str) -> RunDetails:
        run = self._tables.runs.get(run_id)
        return run.new.details if run else NO_DETAILS

    def runs(self, *, limit: int = 50, parent: str | None = None, tag: str | None = None) -> list[RunRecord]:
        with self._tables.changed:
            requested = [
                run
                for run in self._tables.runs.values()
                if (parent is None or run.new.parent == parent)
                and (tag is None or (tag in run.new.details.tags and run.new.parent is None))
            ]
            return [run.record() for run in reversed(requested[-limit:])]

    def wait(self, step_ids: Sequence[int], *, run_id: str | None = None, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        with self._tables.changed:
            self._tables.waiters += 1
            try:
                while not self._over(step_ids, run_id):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._tables.changed.wait(left):
                        return self._over(step_ids, run_id)
                return True
            finally:
                self._tables.waiters -= 1

    def _over(self, step_ids: Sequence[int], run_id: str | None) -> bool:
        steps = self._tables.steps
        if any(step_id in steps and not steps[step_id].state.is_terminal for step_id in step_ids):
            return False
        run = self._tables.runs.get(run_id) if run_id else None
        return run is None or run.record().state is not State.RUNNING


class MemoryChecks(CheckStore):
    """Implements `flowstone.protocols.CheckStore` over lists."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def record(self, records: Sequence[CheckRecord]) -> int:
        with self._tables.changed:
            return insert_checks(self._tables, records)

    def results(
        self,
        asset: str,
        *,
        partition: PartitionKey | None = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        found = [
            one
            for one in self._newest_first(asset)
            if (partition is None or one.partition_key == partition)
            and (check is None or one.check == check)
            and not (failed and one.passed)
        ]
        return found[:limit]

    def latest(
        self,
        asset: str | None = None,
        *,
        partition: PartitionKey | None = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        requested = [
            one for one in self._newest_first(asset) if partition is None or one.partition_key == partition
        ]
        newest = _first_of_each(requested, lambda one: (one.asset, one.partition_key, one.check))
        found = sorted(newest, key=lambda one: (one.asset, one.partition_key, one.check))
        return [one for one in found if not (failed and one.passed)][:limit]

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, tuple[CheckRecord, ...]]:
        found: dict[int, tuple[CheckRecord, ...]] = {}
        with self._tables.changed:
            for step_id in step_ids:
                # a check that was run again keeps its place
                newest = {one.check: one for one in self._tables.checks_of_step.get(step_id, ())}
                found[step_id] = tuple(newest.values())
        return found

    def _newest_first(self, asset: str | None) -> Iterator[CheckRecord]:
        with self._tables.changed:
            tables = self._tables.checks
            chosen = [list(tables.get(asset, ()))] if asset is not None else [list(one) for one in tables.values()]
        return (one for records in chosen for one in reversed(records))


def insert_checks(tables: Tables, records: Iterable[CheckRecord]) -> int:
    """Record what checks found, if the attempt's token is still the newest; called with the lock held."""
    number = 0
    for record in records:
        row = tables.steps.get(record.step_id)
        if row is not None and record.token in (None, row.token):
            known = replace(record, token=row.token)
            tables.checks[row.asset].append(known)
            tables.checks_of_step[row.id].append(known)
            if tables.watch is not None:
                tables.watch.checked(known, row)
            number += 1
    return number


def _first_of_each(records: Iterable[CheckRecord], key: Callable[[CheckRecord], object]) -> list[CheckRecord]:
    found: dict[object, CheckRecord] = {}
    for one in records:
        found.setdefault(key(one), one)
    return list(found.values())


class MemoryTargetStatuses(TargetStatuses):
    """Implements `flowstone.protocols.TargetStatuses` over dictionaries."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def status(self, targets: Sequence[Target]) -> dict[Target, TargetStatus]:
        tables = self._tables
        with tables.changed:
            return {
                target: TargetStatus(self._committed(target), self._newest(target))
                for target in targets
                if target in tables.current or target in tables.newest
            }

    def reads(self, step_ids: Sequence[int]) -> dict[int, Reads]:
        steps = self._tables.steps
        return {
            step_id: {(one.asset, one.partition_key): _data(steps[one.step_id]) for one in row.inputs}
            for step_id in step_ids
            if (row := steps.get(step_id)) is not None and row.inputs
        }

    def active(self, assets: Sequence[str]) -> dict[str, int]:
        requested = set(assets)
        found: dict[str, int] = {}
        with self._tables.changed:
            for asset, _ in self._tables.active:
                if asset in requested:
                    found[asset] = found.get(asset, 0) + 1
        return found

    def _committed(self, target: Target) -> CommittedVersion | None:
        step_id = self._tables.current.get(target)
        if step_id is None:
            return None
        row, now = self._tables.steps[step_id], self._tables.in_use(target)
        assert now is not None
        restored, change = None, self._tables.restored(target)
        if change is not None:
            before = self._tables.steps.get(change.before) if change.before is not None else None
            restored = Restored(change.at, change.actor, before.new.code_version if before is not None else None)
        return CommittedVersion(_data(row), now.at, row.new.code_version, row.started_at, restored)

    def _newest(self, target: Target) -> NewestStep | None:
        step_id = self._tables.newest.get(target)
        if step_id is None:
            return None
        row = self._tables.steps[step_id]
        return NewestStep(
            row.id,
            row.state,
            row.new.code_version,
            row.created_at,
            row.started_at,
            row.finished_at,
            row.run_id,
        )


def _data(row: StepRow) -> DataVersion:
    return DataVersion(row.id, row.stored.content_hash if row.stored is not None else None)


_MAX_NOTE = 1000


class MemoryPartitionKeys(PartitionKeys):
    """Implements `flowstone.protocols.PartitionKeys` over dictionaries.

    Args:
        tables: the rows of the store, whose lock makes each method a transaction.
        now: clock of the history.
    """

    def __init__(self, tables: Tables, *, now: Callable[[], datetime] | None = None) -> None:
        self._tables = tables
        self._changed = tables.changed
        self._now = now or (lambda: datetime.now(UTC))
        # per definition the keys in the order of their last change, and all changes
        self._states: dict[str, dict[str, KeyState]] = defaultdict(dict)
        self._history: dict[str, list[KeyChange]] = defaultdict(list)

    def keys(self, name: str) -> list[str]:
        return [state.key for state in self.changed(name) if not state.removed]

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        found: list[KeyState] = []
        with self._changed:
            if name in self._states:
                for state in reversed(self._states[name].values()):
                    if state.revision <= after:
                        break
                    found.append(state)
        return found[::-1]

    def add(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        return self._change(name, [PartitionChange(name, key) for key in keys], by, reason)

    def remove(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        return self._change(name, [PartitionChange(name, key, remove=True) for key in keys], by, reason)

    def _change(
        self, name: str, changes: Sequence[PartitionChange], by: str | None, reason: str | None
    ) -> list[str]:
        with self._changed:
            done = self.apply_changes(changes, by=by, reason=reason)
            if done:
                action = "partitions.removed" if done[0].remove else "partitions.added"
                details = of_keys([change.key for change in done], reason)
                self._tables.note(action, f"partitions:{name}", details, by=by)
            return [change.key for change in done]

    def history(self, name: str, key: str | None = None, *, limit: int = 100) -> list[KeyChange]:
        with self._changed:
            changes = list(self._history[name]) if name in self._history else []
        return [change for change in reversed(changes) if key is None or change.key == key][:limit]

    def apply_changes(
        self, changes: Sequence[PartitionChange], *, by: str | None = None, reason: str | None = None
    ) -> list[PartitionChange]:
        """Add and remove keys, in this order; return the changes that changed something."""
        with self._changed:
            return [change for change in changes if self._apply(change, _note(by), _note(reason))]

    def _apply(self, change: PartitionChange, by: str | None, reason: str | None) -> bool:
        name, key, remove = change
        states, history = self._states[name], self._history[name]
        state = states.get(key)
        if (state is not None and not state.removed) is not remove:
            return False
        revision = len(history) + 1
        position = state.position if remove and state is not None else revision
        states.pop(key, None)  # a changed key is the last one in the order of changes
        states[key] = KeyState(key, position, revision)
        history.append(
            KeyChange(
                definition=name,
                revision=revision,
                key=key,
                removed=remove,
                at=self._now(),
                by=by,
                reason=reason,
            )
        )
        return True


def _note(text: str | None) -> str | None:
    return None if text is None else clean_text(text, limit=_MAX_NOTE)


class MemoryPublications(PublicationStore):
    """Implements `flowstone.protocols.PublicationStore` over a dictionary."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def issuer(self) -> str:
        return self._tables.issuer

    def pending(
        self, targets: Sequence[Target] | None = None, *, limit: int = 100, after: int = 0
    ) -> list[Publication]:
        chosen = None if targets is None else set(targets)
        with self._tables.lock:
            found = [one for target, one in self._tables.unpublished.items() if chosen is None or target in chosen]
        return sorted((one for one in found if one.token > after), key=lambda one: one.token)[:limit]

    def done(self, publication: Publication) -> None:
        target = publication.asset, publication.partition_key
        with self._tables.lock:
            if self._tables.unpublished.get(target) == publication:
                del self._tables.unpublished[target]
