"""How many targets stand at once, in PostgreSQL: what conditions are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowstone.core.automation.standing import CommittedVersion, DataVersion, NewestStep, Reads, Standing
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql


class PostgresStandings:
    """Implements `flowstone.protocols.Standings` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self, targets: Sequence[Target]) -> dict[Target, Standing]:
        """See `flowstone.protocols.Standings`."""
        if not targets:
            return {}
        rows = self._rows("standing", {"targets": to_json(targets)})
        return {targets[row[0] - 1]: _standing(row) for row in rows}

    def reads(self, step_ids: Sequence[int]) -> dict[int, Reads]:
        """See `flowstone.protocols.Standings`."""
        found: dict[int, Reads] = {}
        if step_ids:
            for step_id, asset, partition, upstream, content_hash in self._rows(
                "reads", {"steps": list(step_ids)}
            ):
                found.setdefault(step_id, {})[asset, partition] = DataVersion(upstream, content_hash)
        return found

    def active(self, assets: Sequence[str]) -> dict[str, int]:
        """See `flowstone.protocols.Standings`."""
        return dict(self._rows("active", {"assets": list(assets)}))

    def _rows(self, name: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self._database.connection() as connection:
            return connection.execute(load_sql(f"standings/{name}"), parameters).fetchall()


def _standing(row: Sequence[Any]) -> Standing:
    committed = newest = None
    if row[1] is not None:
        committed = CommittedVersion(DataVersion(row[1], row[4]), row[2], row[3], row[12])
    if row[5] is not None:
        newest = NewestStep(row[5], State(row[6]), *row[7:12])
    return Standing(committed, newest)
