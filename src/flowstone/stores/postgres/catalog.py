"""The reading side of the PostgreSQL store."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from flowstone.core.output import StoredOutput
from flowstone.core.run_details import RunDetails
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    CommittedOutput,
    InputVersion,
    RunRecord,
    StepRecord,
    Target,
)
from flowstone.errors import DatabaseUnavailableError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.done_signals import DoneSignals
from flowstone.stores.postgres.rows import run_from, step_from, to_json
from flowstone.stores.postgres.sql import load_sql

_POLL_SECONDS = 1.0
_AWAY_SECONDS = 120.0

log = logging.getLogger("flowstone")


class PostgresCatalog:
    """Implements `flowstone.protocols.Catalog` on PostgreSQL."""

    def __init__(self, database: Database, signals: DoneSignals) -> None:
        self._database = database
        self._signals = signals
        self._away_since: float | None = None

    def current(self, targets: Sequence[Target]) -> dict[Target, int]:
        """See `flowstone.protocols.Catalog`."""
        if not targets:
            return {}
        rows = self._rows("current", {"targets": to_json(targets)})
        return {targets[position - 1]: step_id for position, step_id in rows}

    def config_hashes(self, step_ids: Sequence[int]) -> dict[int, str | None]:
        """See `flowstone.protocols.Catalog`."""
        return dict(self._rows("config_hashes", {"steps": list(step_ids)})) if step_ids else {}

    def run_details(self, run_id: str) -> RunDetails:
        """See `flowstone.protocols.Catalog`."""
        rows = self._rows("run_details", {"run_id": run_id})
        return RunDetails.from_json(rows[0][0] if rows else None)

    def started(self, targets: Sequence[Target]) -> dict[Target, datetime]:
        """See `flowstone.protocols.Catalog`."""
        if not targets:
            return {}
        rows = self._rows("started", {"targets": to_json(targets)})
        return {targets[position - 1]: started_at for position, started_at in rows}

    def resolve(self, wanted: Sequence[tuple[str, str, str]]) -> list[CommittedOutput | None]:
        """See `flowstone.protocols.Catalog`."""
        found: list[CommittedOutput | None] = [None] * len(wanted)
        parameters = {
            "runs": [run for run, _, _ in wanted],
            "assets": [asset for _, asset, _ in wanted],
            "partitions": [key for _, _, key in wanted],
        }
        for position, step_id, output, payload, started_at, own in self._rows("resolve", parameters):
            stored = StoredOutput.from_json(output, payload)
            found[position - 1] = CommittedOutput(step_id, stored, started_at, own)
        return found

    def skipped(self, wanted: Sequence[tuple[str, str, str]]) -> set[int]:
        """See `flowstone.protocols.Catalog`."""
        if not wanted:
            return set()
        return {position - 1 for (position,) in self._rows("skipped", {"wanted": to_json(wanted)})}

    def step(self, step_id: int) -> StepRecord | None:
        """See `flowstone.protocols.Catalog`."""
        rows = self._rows("step", {"step_id": step_id})
        return step_from(rows[0]) if rows else None

    def steps(self, run_id: str, *, state: State | None = None, limit: int = 1000) -> list[StepRecord]:
        """See `flowstone.protocols.Catalog`."""
        return [step_from(row) for row in self._rows("steps", {"run_id": run_id, "state": state, "limit": limit})]

    def history(
        self, asset: str, partition: str | None, *, state: State | None = None, limit: int = 100
    ) -> list[StepRecord]:
        """See `flowstone.protocols.Catalog`."""
        parameters = {"asset": asset, "partition": partition, "state": state, "limit": limit}
        return [step_from(row) for row in self._rows("history", parameters)]

    def attempts(self, step_id: int) -> list[AttemptRecord]:
        """See `flowstone.protocols.Catalog`."""
        return [
            AttemptRecord(
                attempt=row[0],
                state=State(row[1]),
                started_at=row[2],
                finished_at=row[3],
                worker=row[4],
                error=row[5],
                error_type=row[6],
                retry_at=row[7],
            )
            for row in self._rows("attempts", {"step_id": step_id})
        ]

    def inputs(self, step_ids: Sequence[int]) -> dict[int, tuple[InputVersion, ...]]:
        """See `flowstone.protocols.Catalog`."""
        found: dict[int, list[InputVersion]] = {step_id: [] for step_id in step_ids}
        for step_id, parameter, asset, key, upstream in self._rows("inputs", {"steps": list(step_ids)}):
            found[step_id].append(InputVersion(parameter, asset, key, upstream))
        return {step_id: tuple(inputs) for step_id, inputs in found.items()}

    def readers(self, step_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """See `flowstone.protocols.Catalog`."""
        found: dict[int, list[int]] = {step_id: [] for step_id in step_ids}
        for upstream, reader in self._rows("readers", {"steps": list(step_ids)}):
            found[upstream].append(reader)
        return {step_id: tuple(readers) for step_id, readers in found.items()}

    def run(self, run_id: str) -> RunRecord | None:
        """See `flowstone.protocols.Catalog`."""
        found = self._runs({"run_id": run_id, "parent": None, "tag": None, "limit": 1})
        return found[0] if found else None

    def runs(self, *, limit: int = 50, parent: str | None = None, tag: str | None = None) -> list[RunRecord]:
        """See `flowstone.protocols.Catalog`."""
        return self._runs({"run_id": None, "parent": parent, "tag": tag, "limit": limit})

    def wait(self, step_ids: Sequence[int], *, run_id: str | None = None, timeout_seconds: float) -> bool:
        """See `flowstone.protocols.Catalog`: notification first, a look once a second as backstop.

        While the database is away, whoever waits goes on waiting, for two minutes in all.

        Raises:
            DatabaseUnavailableError: it stayed away; names what was waited for.
        """
        deadline = time.monotonic() + timeout_seconds
        keys = [f"s:{step_id}" for step_id in step_ids]
        if run_id is not None:
            keys.append(f"r:{run_id}")
        elif step_ids:
            with suppress(DatabaseUnavailableError):  # without it the end is noticed a second later
                keys += [f"r:{one}" for one in self._runs_of(step_ids)]
        with self._signals.subscribe(keys) as told:
            while self._still_open(step_ids, run_id):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                told.wait(min(left, _POLL_SECONDS))
                told.clear()
        return True

    def _runs_of(self, step_ids: Sequence[int]) -> set[str]:
        """Runs whose end tells of these steps; only asked for the few that somebody waits for."""
        records = [self.step(step_id) for step_id in step_ids[:20]]
        return {record.run_id for record in records if record is not None}

    def _still_open(self, step_ids: Sequence[int], run_id: str | None) -> bool:
        try:
            unfinished = self._unfinished(step_ids, run_id)
        except DatabaseUnavailableError as error:
            now = time.monotonic()
            what = f"run {run_id}" if run_id is not None else f"step {', '.join(map(str, step_ids[:5]))}"
            if self._away_since is None:
                self._away_since = now
                log.warning("The database went away; still waiting for %s. (%s)", what, error.why)
            if now - self._away_since < _AWAY_SECONDS:
                return True
            raise error.while_waiting_for(what, _AWAY_SECONDS) from error
        if self._away_since is not None:
            self._away_since = None
            log.warning("The database answers again.")
        return unfinished

    def _unfinished(self, step_ids: Sequence[int], run_id: str | None) -> bool:
        return bool(self._rows("unfinished", {"steps": list(step_ids), "run_id": run_id})[0][0])

    def _runs(self, parameters: Mapping[str, object]) -> list[RunRecord]:
        rows = self._rows("runs", parameters)
        counts: dict[str, dict[State, int]] = defaultdict(dict)
        for run_id, state, number in self._rows("counts", {"runs": [row[0] for row in rows]}):
            counts[run_id][State(state)] = number
        return [run_from(row, counts[row[0]]) for row in rows]

    def _rows(self, name: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self._database.connection() as connection:
            return connection.execute(load_sql(f"catalog/{name}"), parameters).fetchall()
