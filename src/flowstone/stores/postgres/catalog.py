"""The reading side of the PostgreSQL store."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.run_details import RunDetails
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    CommittedOutput,
    InputVersion,
    RunRecord,
    StepRecord,
    Target,
    run_state,
)
from flowstone.errors import DatabaseUnavailableError
from flowstone.protocols import Catalog
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.done_signals import DoneSignals
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

_POLL_SECONDS = 1.0
_AWAY_SECONDS = 120.0

log = logging.getLogger("flowstone")


class PostgresCatalog(Catalog):
    """Implements `flowstone.protocols.Catalog` on PostgreSQL."""

    def __init__(self, database: Database, signals: DoneSignals) -> None:
        self._database = database
        self._signals = signals
        self._away_since: float | None = None

    def current(self, targets: Sequence[Target]) -> dict[Target, int]:
        if not targets:
            return {}
        with self._database.connection() as connection:
            rows = fetch_all(connection, CurrentOutput, "catalog/current", {"targets": to_json(targets)})
        return {targets[row.position - 1]: row.step_id for row in rows}

    def config_hashes(self, step_ids: Sequence[int]) -> dict[int, str | None]:
        if not step_ids:
            return {}
        with self._database.connection() as connection:
            rows = fetch_all(connection, ConfigHash, "catalog/config_hashes", {"steps": list(step_ids)})
        return {row.id: row.config_hash for row in rows}

    def run_details(self, run_id: str) -> RunDetails:
        with self._database.connection() as connection:
            document = fetch_value(connection, dict, "catalog/run_details", {"run_id": run_id})
        return RunDetails.from_json(document)

    def started(self, targets: Sequence[Target]) -> dict[Target, datetime]:
        if not targets:
            return {}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Started, "catalog/started", {"targets": to_json(targets)})
        return {targets[row.position - 1]: row.started_at for row in rows}

    def resolve(self, requested: Sequence[tuple[str, str, str]]) -> list[CommittedOutput | None]:
        found: list[CommittedOutput | None] = [None] * len(requested)
        parameters = {
            "runs": [run for run, _, _ in requested],
            "assets": [asset for _, asset, _ in requested],
            "partitions": [key for _, _, key in requested],
        }
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Resolved, "catalog/resolve", parameters)
        for row in rows:
            stored = StoredOutput.from_json(row.output, row.payload)
            found[row.position - 1] = CommittedOutput(row.step_id, stored, row.started_at, row.own)
        return found

    def skipped(self, requested: Sequence[tuple[str, str, str]]) -> set[int]:
        if not requested:
            return set()
        with self._database.connection() as connection:
            positions = fetch_column(connection, int, "catalog/skipped", {"requested": to_json(requested)})
        return {position - 1 for position in positions}

    def step(self, step_id: int) -> StepRecord | None:
        with self._database.connection() as connection:
            return fetch_one(connection, StepRecord, "catalog/step", {"step_id": step_id})

    def steps(self, run_id: str, *, state: State | None = None, limit: int = 1000) -> list[StepRecord]:
        parameters = {"run_id": run_id, "state": state, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, StepRecord, "catalog/steps", parameters)

    def history(
        self, asset: str, partition: str | None, *, state: State | None = None, limit: int = 100
    ) -> list[StepRecord]:
        parameters = {"asset": asset, "partition": partition, "state": state, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, StepRecord, "catalog/history", parameters)

    def attempts(self, step_id: int) -> list[AttemptRecord]:
        with self._database.connection() as connection:
            return fetch_all(connection, AttemptRecord, "catalog/attempts", {"step_id": step_id})

    def inputs(self, step_ids: Sequence[int]) -> dict[int, tuple[InputVersion, ...]]:
        found: dict[int, list[InputVersion]] = {step_id: [] for step_id in step_ids}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Input, "catalog/inputs", {"steps": list(step_ids)})
        for row in rows:
            found[row.step_id].append(InputVersion(row.parameter, row.asset, row.partition, row.upstream))
        return {step_id: tuple(inputs) for step_id, inputs in found.items()}

    def readers(self, step_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {step_id: [] for step_id in step_ids}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Reader, "catalog/readers", {"steps": list(step_ids)})
        for row in rows:
            found[row.upstream].append(row.reader)
        return {step_id: tuple(readers) for step_id, readers in found.items()}

    def run(self, run_id: str) -> RunRecord | None:
        found = self._runs({"run_id": run_id, "parent": None, "tag": None, "limit": 1})
        return found[0] if found else None

    def runs(self, *, limit: int = 50, parent: str | None = None, tag: str | None = None) -> list[RunRecord]:
        return self._runs({"run_id": None, "parent": parent, "tag": tag, "limit": limit})

    def wait(self, step_ids: Sequence[int], *, run_id: str | None = None, timeout_seconds: float) -> bool:
        """See `flowstone.protocols.Catalog`: notification first, a poll once a second as backstop.

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
        with self._signals.subscribe(keys) as event:
            while self._still_open(step_ids, run_id):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                event.wait(min(left, _POLL_SECONDS))
                event.clear()
        return True

    def _runs_of(self, step_ids: Sequence[int]) -> set[str]:
        """Runs whose end says that these steps are over; only read for the few that are waited for."""
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
        with self._database.connection() as connection:
            parameters = {"steps": list(step_ids), "run_id": run_id}
            return bool(fetch_value(connection, bool, "catalog/unfinished", parameters))

    def _runs(self, parameters: Mapping[str, object]) -> list[RunRecord]:
        with self._database.connection() as connection:
            records = fetch_all(connection, RunRecord, "catalog/runs", parameters)
            rows = fetch_all(connection, _Count, "catalog/counts", {"runs": [record.id for record in records]})
        counts: dict[str, dict[State, int]] = defaultdict(dict)
        for row in rows:
            counts[row.run_id][row.state] = row.steps
        return [
            replace(
                record,
                state=run_state(record.state, counts[record.id]),
                counts=counts[record.id],
                details=record.details.masked(),
            )
            for record in records
        ]


class CurrentOutput(NamedTuple):
    """A row of `catalog/current`: positions of targets count from 1."""

    position: int
    step_id: int


class ConfigHash(NamedTuple):
    """A row of `catalog/config_hashes`."""

    id: int
    config_hash: str | None


class _Started(NamedTuple):
    """A row of `catalog/started`."""

    position: int
    started_at: datetime


class _Resolved(NamedTuple):
    """A row of `catalog/resolve`."""

    position: int
    step_id: int
    output: dict[str, JsonValue]
    payload: bytes | None
    started_at: datetime | None
    own: bool


class _Input(NamedTuple):
    """A row of `catalog/inputs`."""

    step_id: int
    parameter: str
    asset: str
    partition: str
    upstream: int


class _Reader(NamedTuple):
    """A row of `catalog/readers`."""

    upstream: int
    reader: int


class _Count(NamedTuple):
    """A row of `catalog/counts`."""

    run_id: str
    state: State
    steps: int
