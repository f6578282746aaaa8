"""The reading side of the PostgreSQL store: nothing here writes, but for `insert_checks`, which a commit calls.

`PostgresCatalog`, at the end, answers about targets, steps and runs. Before it: target statuses for conditions,
results of checks, the state of the installation for `doctor`, and the one listening connection for all threads
that wait for an end.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.automation.facts import (
    CommittedVersion,
    DataVersion,
    NewestStep,
    Reads,
    Restored,
    TargetStatus,
)
from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_details import RunDetails
from flowstone.core.run_filter import RunFilter
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
from flowstone.errors import DatabaseUnavailableError
from flowstone.protocols import Catalog, CheckStore, TargetStatuses
from flowstone.sql import load_sql
from flowstone.stores.postgres import outbox, runs
from flowstone.stores.postgres.counters import DONE_CHANNEL, SEPARATOR
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.listener import Listener
from flowstone.stores.postgres.recent import RecentVersions
from flowstone.stores.postgres.rows import to_ids, to_json
from flowstone.stores.postgres.runs import RunRow
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresTargetStatuses(TargetStatuses):
    """Implements `flowstone.protocols.TargetStatuses` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def status(self, targets: Sequence[Target]) -> dict[Target, TargetStatus]:
        if not targets:
            return {}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _TargetStatusRow, "catalog/status", {"targets": to_json(targets)})
        return {targets[row.position - 1]: row.status() for row in rows}

    def reads(self, step_ids: Sequence[int]) -> dict[int, Reads]:
        found: dict[int, Reads] = {}
        if step_ids:
            with self._database.connection() as connection:
                rows = fetch_all(connection, _Read, "catalog/reads", {"steps": list(step_ids)})
            for row in rows:
                data = DataVersion(row.upstream, row.content_hash)
                found.setdefault(row.step_id, {})[row.asset, row.partition_key] = data
        return found

    def active(self, assets: Sequence[str]) -> dict[str, int]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Active, "catalog/active", {"assets": list(assets)})
        return {row.asset: row.active for row in rows}


class _TargetStatusRow(NamedTuple):
    """A row of `target_status/status`: a target by its position from 1, its version in use, its newest step."""

    position: int
    committed_step: int | None
    committed_at: datetime
    committed_code: str | None
    content_hash: str | None
    committed_started_at: datetime | None
    restored_at: datetime | None
    restored_by: str | None
    replaced_code: str | None
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
            restored = None
            if self.restored_at is not None:
                restored = Restored(self.restored_at, self.restored_by, self.replaced_code)
            committed = CommittedVersion(
                data, self.committed_at, self.committed_code, self.committed_started_at, restored
            )
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
    partition_key: PartitionKey
    upstream: int
    content_hash: str | None


class _Active(NamedTuple):
    """A row of `target_status/active`: how many steps of an asset are not over."""

    asset: str
    active: int


class PostgresChecks(CheckStore):
    """Implements `flowstone.protocols.CheckStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, records: Sequence[CheckRecord]) -> int:
        if not records:
            return 0
        with self._database.transaction() as connection:
            number = insert_checks(connection, records)
            outbox.note_checks(connection, records, {})
            return number

    def results(
        self,
        asset: str,
        *,
        partition: PartitionKey | None = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        parameters = {"asset": asset, "partition": partition, "check": check, "failed": failed, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "checks/results", parameters)

    def latest(
        self,
        asset: str | None = None,
        *,
        partition: PartitionKey | None = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        parameters = {"asset": asset, "partition": partition, "limit": limit}
        with self._database.connection() as connection:
            if failed:
                return fetch_all(connection, CheckRecord, "checks/latest_failed", parameters)
            return fetch_all(connection, CheckRecord, "checks/latest", parameters)

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, tuple[CheckRecord, ...]]:
        found: dict[int, tuple[CheckRecord, ...]] = dict.fromkeys(step_ids, ())
        with self._database.connection() as connection:
            records = fetch_all(connection, CheckRecord, "checks/of_steps", {"steps": list(step_ids)})
        for record in records:
            found[record.step_id] += (record,)
        return found


def insert_checks(connection: Connection[TupleRow], records: Iterable[CheckRecord]) -> int:
    """Record what checks found, in the transaction of the caller; return how many rows that made."""
    rows = [
        {
            "step_id": one.step_id,
            "attempt": one.attempt,
            "token": one.token,
            "check": one.check,
            "passed": one.passed,
            "severity": one.severity,
            "blocking": one.blocking,
            "description": one.description,
            "error": one.error,
            "metadata": one.metadata,
            "started_at": one.started_at,
            "took_seconds": one.took_seconds,
        }
        for one in records
    ]
    return connection.execute(load_sql("checks/record"), {"rows": to_json(rows)}).rowcount


OLDEST_SERVER = 14
"""Oldest major version of PostgreSQL that is tested."""


@dataclass(frozen=True, slots=True)
class AliveWorker:
    """A process with a valid lease.

    Args:
        id: its name.
        kind: `node` for workers, `inline` for processes that run assets themselves.
        host: where it runs.
        pid: its process id there.
        beat_at: when it last renewed its lease.
        queues: queues that it serves, and how many steps of each at once; None when it serves none.
        started_at: when it started; None when nobody said.
    """

    id: str
    kind: str
    host: str
    pid: int
    beat_at: datetime
    queues: Mapping[str, int] | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a database, as far as it could be read.

    Args:
        version: of the server, such as `18.1`.
        workers: processes with a valid lease; None when the table is missing.
    """

    version: str
    workers: tuple[AliveWorker, ...] | None

    @property
    def major(self) -> int:
        """Major version of the server.

        Example:
            >>> Health("18.1 (Debian)", ()).major
            18
        """
        found = re.match(r"\d+", self.version)
        return int(found[0]) if found else 0


def read_health(database: Database) -> Health:
    """Read server version, tables and workers, whatever of them is there.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    with database.connection() as connection:
        server = fetch_one(connection, _Server, "database/server")
        assert server is not None
        workers: tuple[AliveWorker, ...] | None = None
        if server.has_workers:
            workers = tuple(fetch_all(connection, AliveWorker, "workers/alive"))
    return Health(server.version, workers)


class _Server(NamedTuple):
    """The server, and whether our tables are there."""

    version: str
    has_workers: bool


_IDLE_SECONDS = 30.0
_CLOSE_SECONDS = 1.0


class DoneSignals:
    """Wakes waiting threads when a notification names what they wait for.

    Notifications are hints: whoever is woken reads the tables, and polls them from time to time anyway.

    Args:
        database: where to listen.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closed = False
        self._listener: Listener | None = None
        self._begin()
        renew_after_fork(self, DoneSignals._begin)

    def _begin(self) -> None:
        if self._listener is not None:
            self._listener.leave_to_parent()
            keep_of_parent(self._listener)
        self._lock = threading.Lock()
        self._waiting: dict[threading.Event, frozenset[str]] = {}
        self._listener = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def subscribe(self, keys: Sequence[str]) -> Iterator[threading.Event]:
        """Give an event that is set when one of these keys is named; subscribe before reading the tables."""
        event = threading.Event()
        with self._lock:
            self._waiting[event] = frozenset(keys)
            if self._thread is None and not self._closed:
                self._listener = self._database.listen([DONE_CHANNEL])
                self._thread = threading.Thread(
                    target=self._listen, args=(self._listener,), name="flowstone-done", daemon=True
                )
                self._thread.start()
        try:
            yield event
        finally:
            with self._lock:
                del self._waiting[event]

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._closed = True
            listener, thread, self._listener, self._thread = self._listener, self._thread, None, None
        if listener is not None and thread is not None:
            listener.close()
            thread.join(_CLOSE_SECONDS)

    def _listen(self, listener: Listener) -> None:
        while not self._closed:  # ends with the process at the latest
            arrived = listener.wait(_IDLE_SECONDS)
            named = {key for one in arrived for key in one.payload.split(SEPARATOR)}
            with self._lock:
                for event, keys in self._waiting.items():
                    # an empty answer may mean that the connection was cut: everybody reads the tables
                    if not arrived or not keys.isdisjoint(named):
                        event.set()


_POLL_SECONDS = 1.0
_AWAY_SECONDS = 120.0

log = logging.getLogger("flowstone")


class PostgresCatalog(Catalog):
    """Implements `flowstone.protocols.Catalog` on PostgreSQL.

    Args:
        database: where.
        signals: what wakes who waits.
        recent: what this process committed last.
    """

    def __init__(self, database: Database, signals: DoneSignals, recent: RecentVersions) -> None:
        self._database = database
        self._signals = signals
        self._recent = recent
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

    def resolve(self, requested: Sequence[tuple[str, str, PartitionKey]]) -> list[CommittedOutput | None]:
        found = [self._recent.find(one) for one in requested]
        with self._database.connection() as connection:
            if known := {one.step_id for one in found if one is not None}:
                kept = set(fetch_column(connection, int, "catalog/kept", {"steps": to_ids(known)}))
                found = [None if one is None or one.step_id not in kept else one for one in found]
            unknown = [position for position, one in enumerate(found) if one is None]
            if not unknown:
                return found
            targets = to_json([requested[position] for position in unknown])
            rows = fetch_all(connection, _Resolved, "catalog/resolve", {"targets": targets})
        for row in rows:
            stored = StoredOutput.from_json(row.output, row.payload)
            found[unknown[row.position - 1]] = CommittedOutput(row.step_id, stored, row.started_at, row.own)
        return found

    def skipped(self, requested: Sequence[tuple[str, str, PartitionKey]]) -> set[int]:
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
        self, asset: str, partition: PartitionKey | None, *, state: State | None = None, limit: int = 100
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
            found[row.step_id].append(InputVersion(row.parameter, row.asset, row.partition_key, row.upstream))
        return {step_id: tuple(inputs) for step_id, inputs in found.items()}

    def readers(self, step_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {step_id: [] for step_id in step_ids}
        with self._database.connection() as connection:
            rows = fetch_all(connection, _Reader, "catalog/readers", {"steps": list(step_ids)})
        for row in rows:
            found[row.upstream].append(row.reader)
        return {step_id: tuple(readers) for step_id, readers in found.items()}

    def run(self, run_id: str) -> RunRecord | None:
        with self._database.connection() as connection:
            rows = fetch_all(connection, RunRow, "runs/named", {"runs": [run_id]})
            found = runs.records(connection, rows, exactly=True)
        return found[0] if found else None

    def runs(self, *, limit: int = 50, parent: str | None = None, tag: str | None = None) -> list[RunRecord]:
        requested = RunFilter(tag=() if tag is None else (tag,), items_of=parent)
        with self._database.connection() as connection:
            with_items = parent is None and tag is None
            return runs.page(connection, requested, datetime.now(UTC), limit=limit, with_items=with_items)

    def wait(self, step_ids: Sequence[int], *, run_id: str | None = None, timeout_seconds: float) -> bool:
        """Wait by notification, with a poll once a second as backstop.

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


class CurrentOutput(NamedTuple):
    """A row of `catalog/current`: positions of targets count from 1."""

    position: int
    step_id: int


def config_hashes(connection: Connection[TupleRow], steps: Iterable[int]) -> dict[int, str | None]:
    """Return how the runs of some steps were to compute them."""
    rows = fetch_all(connection, ConfigHash, "catalog/config_hashes", {"steps": list(steps)})
    return {row.id: row.config_hash for row in rows}


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
    partition_key: PartitionKey
    upstream: int


class _Reader(NamedTuple):
    """A row of `catalog/readers`."""

    upstream: int
    reader: int
