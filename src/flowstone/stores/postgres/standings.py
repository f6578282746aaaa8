"""How many targets stand at once, in PostgreSQL: what conditions are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from flowstone.core.automation.standing import CommittedVersion, DataVersion, NewestStep, Reads, TargetStatus
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.protocols import TargetStatuses
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import fetch_all


class PostgresTargetStatuses(TargetStatuses):
    """Implements `flowstone.protocols.TargetStatuses` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def status(self, targets: Sequence[Target]) -> dict[Target, TargetStatus]:
        if not targets:
            return {}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _TargetStatusRow, "target_status/status", {"targets": to_json(targets)})
        return {targets[row.position - 1]: row.status() for row in rows}

    def reads(self, step_ids: Sequence[int]) -> dict[int, Reads]:
        found: dict[int, Reads] = {}
        if step_ids:
            with self._database.connection() as connection:
                rows = fetch_all(connection, _Read, "target_status/reads", {"steps": list(step_ids)})
            for row in rows:
                data = DataVersion(row.upstream, row.content_hash)
                found.setdefault(row.step_id, {})[row.asset, row.partition] = data
        return found

    def active(self, assets: Sequence[str]) -> dict[str, int]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Active, "target_status/active", {"assets": list(assets)})
        return {row.asset: row.active for row in rows}


class _TargetStatusRow(NamedTuple):
    """A row of `target_status/status`: a target by its position from 1, its version in use, its newest step."""

    position: int
    committed_step: int | None
    committed_at: datetime
    committed_code: str | None
    content_hash: str | None
    committed_started_at: datetime | None
    newest_step: int | None
    newest_state: State | None
    newest_code: str | None
    placed_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_id: str

    def status(self) -> TargetStatus:
        committed = newest = None
        if self.committed_step is not None:
            data = DataVersion(self.committed_step, self.content_hash)
            committed = CommittedVersion(data, self.committed_at, self.committed_code, self.committed_started_at)
        if self.newest_step is not None and self.newest_state is not None:
            newest = NewestStep(
                self.newest_step,
                self.newest_state,
                self.newest_code,
                self.placed_at,
                self.started_at,
                self.finished_at,
                self.run_id,
            )
        return TargetStatus(committed, newest)


class _Read(NamedTuple):
    """A row of `target_status/reads`."""

    step_id: int
    asset: str
    partition: str
    upstream: int
    content_hash: str | None


class _Active(NamedTuple):
    """A row of `target_status/active`: how many steps of an asset are not over."""

    asset: str
    active: int
