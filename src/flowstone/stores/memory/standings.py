"""How many targets stand at once, in memory: what conditions are judged by."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.core.automation.standing import CommittedVersion, DataVersion, NewestStep, Reads, TargetStatus
from flowstone.core.step import Target
from flowstone.protocols import TargetStatuses
from flowstone.stores.memory.tables import StepRow, Tables


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
            step_id: {(one.asset, one.partition): _data(steps[one.step_id]) for one in row.inputs}
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
        row = self._tables.steps[step_id]
        assert row.finished_at is not None
        return CommittedVersion(_data(row), row.finished_at, row.new.code_version, row.started_at)

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
