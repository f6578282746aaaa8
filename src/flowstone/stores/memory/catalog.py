"""The reading side of the in-memory store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from flowstone.core.run_details import NO_DETAILS, RunDetails
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    CommittedOutput,
    InputVersion,
    RunRecord,
    StepRecord,
    Target,
)
from flowstone.protocols import Catalog
from flowstone.stores.memory.tables import StepRow, Tables


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

    def resolve(self, requested: Sequence[tuple[str, str, str]]) -> list[CommittedOutput | None]:
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
            if made is None or not made.stored:
                found.append(None)
            else:
                found.append(CommittedOutput(made.id, made.stored, made.started_at, own_id is not None))
        return found

    def skipped(self, requested: Sequence[tuple[str, str, str]]) -> set[int]:
        with self._tables.changed:
            return {position for position, one in enumerate(requested) if self._was_skipped(*one)}

    def _was_skipped(self, run_id: str, asset: str, partition: str) -> bool:
        run = self._tables.runs.get(run_id)
        own = run.steps.get((asset, partition)) if run else None
        if own is not None and (own.state.is_success or own.state is State.SKIPPED):
            return own.state is State.SKIPPED
        for step_id in reversed(self._tables.by_asset.get(asset, ())):
            row = self._tables.steps[step_id]
            if row.partition == partition and row.state in (State.COMPLETED, State.SKIPPED):
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
        self, asset: str, partition: str | None, *, state: State | None = None, limit: int = 100
    ) -> list[StepRecord]:
        found: list[StepRecord] = []
        with self._tables.changed:
            ids = list(self._tables.by_asset.get(asset, ()))
        for step_id in reversed(ids):
            row = self._tables.steps[step_id]
            if (partition is None or row.partition == partition) and (state is None or row.state is state):
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
