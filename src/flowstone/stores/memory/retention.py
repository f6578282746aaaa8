"""Forgetting in memory: by age when a caller asks, and by itself, so that no long-lived process fills up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from flowstone.core.control import PruneCounts
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.core.version import ChangeKind, OutputChange
from flowstone.protocols.stores import Retention
from flowstone.stores.memory.approvals import MemoryApprovals
from flowstone.stores.memory.automations import MemoryAutomations
from flowstone.stores.memory.logs import MemoryLogs
from flowstone.stores.memory.scatters import MemoryScatters
from flowstone.stores.memory.tables import RunRow, StepRow, Tables

_NEWEST_RUNS = 100


class MemoryRetention(Retention):
    """Implements `flowstone.protocols.Retention` over dictionaries.

    What is kept is the same as in PostgreSQL: what `load` returns, everything it was made from, what reused steps
    stand on, and the items of a step that is kept.

    Args:
        tables: the rows of the store, whose lock makes each method a transaction.
        approvals: forgets the requests of steps that go.
        scatters: forgets the scatters of steps that go.
        automations: forgets old ticks.
        logs: forgets what steps that go have logged.
    """

    def __init__(
        self,
        tables: Tables,
        approvals: MemoryApprovals,
        scatters: MemoryScatters,
        automations: MemoryAutomations,
        logs: MemoryLogs,
    ) -> None:
        self._tables = tables
        self._approvals = approvals
        self._scatters = scatters
        self._automations = automations
        self._logs = logs
        self._limit: int | None = None
        self._discard: Callable[[Sequence[StoredOutput]], object] = lambda _: None
        tables.make_room = self._keep_within_limit

    def limit(self, steps: int, discard: Callable[[Sequence[StoredOutput]], object]) -> None:
        """Keep at most so many steps that are over and that nothing needs, and as many ticks, from now on.

        Args:
            steps: how many; the oldest go first.
            discard: deletes values that nobody can read any more.
        """
        self._limit, self._discard = steps, discard
        self._tables.max_steps = steps

    def prune(
        self, *, older_than_seconds: float, discard: Callable[[Sequence[StoredOutput]], None]
    ) -> PruneCounts:
        with self._tables.changed:
            gone = self._unneeded(self._ended(older_than_seconds))
            counts = _count(gone)
            discard(_outputs(gone))
            runs = self._forget(gone, self._ended(older_than_seconds))
            pruned = counts._replace(runs=runs)
            if any(pruned):
                age = {"older_than_seconds": older_than_seconds}
                self._tables.note("records.pruned", "records", pruned._asdict() | age)
            return pruned

    def needed_versions(self, versions: Sequence[str]) -> set[str]:
        """Return all: what other processes store is unknown here, and numbered alike."""
        return set(versions)

    def prunable(self, *, older_than_seconds: float) -> PruneCounts:
        with self._tables.changed:
            ended = self._ended(older_than_seconds)
            gone = self._unneeded(ended)
            ids = {row.id for row in gone}
            return _count(gone)._replace(runs=sum(_is_empty(run, without=ids) for run in ended))

    def recorded_of(self, asset: str) -> tuple[PruneCounts, int]:
        with self._tables.changed:
            rows = self._of(asset)
            return _count(rows), sum(not row.state.is_terminal for row in rows)

    def prune_asset(self, asset: str, *, discard: Callable[[Sequence[StoredOutput]], None]) -> PruneCounts:
        with self._tables.changed:
            gone = [row for row in self._of(asset) if row.state.is_terminal]
            discard(_outputs(gone))
            for row in gone:
                self._tables.current.pop(_target(row), None)
            self._forget(gone, ())
            for target in [target for target in self._tables.changes if target[0] == asset]:
                del self._tables.changes[target]
            if gone:
                self._tables.note("asset.pruned", f"asset:{asset}", _count(gone)._asdict())
            return _count(gone)

    def _of(self, asset: str) -> list[StepRow]:
        return [self._tables.steps[step_id] for step_id in self._tables.by_asset.get(asset, ())]

    def _keep_within_limit(self) -> None:
        """Forget the oldest that nothing needs; called once for every `limit` of new steps, with the lock held."""
        tables = self._tables
        assert self._limit is not None
        # whoever has just got the result of a run may not have read it yet
        ended = self._ended(0.0)[:-_NEWEST_RUNS]
        unneeded = sorted(row.id for row in self._unneeded(ended))
        # down to half, so that the next pass is far away
        last = unneeded[-self._limit // 2] if len(unneeded) > self._limit // 2 else 0
        gone = self._unneeded(ended, below=last)
        self._discard(_outputs(gone))
        self._forget(gone, ended)
        self._automations.keep_ticks(self._limit)
        tables.max_steps = max(0, len(tables.steps) - self._limit // 2) + self._limit

    def _ended(self, older_than_seconds: float) -> list[RunRow]:
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        found = []
        for run in self._tables.runs.values():
            rows = (*run.steps.values(), *run.joined.values())
            if run.state(Counter(row.state for row in rows)) is State.RUNNING:
                continue
            if max((row.finished_at for row in rows if row.finished_at), default=run.new.created_at) <= before:
                found.append(run)
        return found

    def _unneeded(self, runs: Iterable[RunRow], *, below: int | None = None) -> list[StepRow]:
        """Return the steps of runs that nothing else needs; only those below an id, if it is given."""
        tables = self._tables
        candidates = {
            row.id: row
            for run in runs
            for row in run.steps.values()
            if tables.current.get(_target(row)) != row.id and (below is None or row.id < below)
        }
        reused_by: dict[int, list[int]] = defaultdict(list)
        for row in tables.steps.values():
            if row.state is State.REUSED and row.output_step is not None:
                reused_by[row.output_step].append(row.id)
        left = dict(candidates)
        while True:
            # who is read by, or stands under, something that stays must stay; that may keep others in turn
            kept = [row for row in left.values() if self._is_needed(row, left, reused_by)]
            if not kept:
                return list(left.values())
            for row in kept:
                del left[row.id]

    def _is_needed(
        self, row: StepRow, going: Mapping[int, StepRow], reused_by: Mapping[int, Sequence[int]]
    ) -> bool:
        for user in (*self._tables.readers.get(row.id, ()), *reused_by.get(row.id, ())):
            if user not in going:
                return True
        scatter = self._tables.runs[row.run_id].scatter
        return scatter is not None and scatter.step_id in self._tables.steps and scatter.step_id not in going

    def _forget(self, gone: Sequence[StepRow], runs: Sequence[RunRow]) -> int:
        """Delete steps with all that is recorded of them, and runs of which nothing is left; count those."""
        tables = self._tables
        ids = {row.id for row in gone}
        self._note_pruned(gone)
        for row in gone:
            del tables.steps[row.id]
            tables.runs[row.run_id].steps.pop(_target(row), None)
            if tables.newest.get(_target(row)) == row.id:
                del tables.newest[_target(row)]
            tables.readers.pop(row.id, None)
            tables.checks_of_step.pop(row.id, None)
            for read in row.inputs:
                readers = tables.readers.get(read.step_id)
                if readers is not None and read.step_id not in ids:
                    tables.readers[read.step_id] = [one for one in readers if one not in ids]
        for asset in {row.asset for row in gone}:
            tables.by_asset[asset] = [one for one in tables.by_asset[asset] if one not in ids]
            tables.checks[asset] = [one for one in tables.checks[asset] if one.step_id not in ids]
        self._approvals.forget(ids)
        self._scatters.forget(ids)
        self._logs.forget(ids)
        empty = [run for run in runs if _is_empty(run, without=frozenset())]
        for run in empty:
            tables.runs.pop(run.new.id, None)
        return len(empty)

    def _note_pruned(self, gone: Sequence[StepRow]) -> None:
        """Keep until when versions of targets are gone: which one was in use before that is not known any more."""
        for row in gone:
            if row.state is not State.COMPLETED or row.finished_at is None:
                continue
            if self._tables.runs[row.run_id].scatter is not None:
                continue
            changes = self._tables.changes[_target(row)]
            until = row.finished_at
            if changes and changes[0].kind is ChangeKind.PRUNED:
                until = max(until, changes.pop(0).at)
            pruned = OutputChange(
                asset=row.asset, partition_key=row.partition_key, kind=ChangeKind.PRUNED, at=until
            )
            changes.insert(0, pruned)


def _target(row: StepRow) -> Target:
    return row.asset, row.partition_key


def _is_empty(run: RunRow, *, without: Iterable[int]) -> bool:
    gone = frozenset(without)
    return all(row.id in gone for row in run.steps.values())


def _outputs(gone: Sequence[StepRow]) -> list[StoredOutput]:
    return [row.stored for row in gone if row.stored is not None and row.output_step == row.id]


def _count(gone: Sequence[StepRow]) -> PruneCounts:
    outputs = _outputs(gone)
    return PruneCounts(
        steps=len(gone), values=len(outputs), size_bytes=sum(output.size_bytes or 0 for output in outputs)
    )
