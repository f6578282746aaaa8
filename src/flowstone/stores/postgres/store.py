"""The PostgreSQL store as a whole."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from flowstone import telemetry
from flowstone.core.project import Project
from flowstone.core.step import NewRange, NewRun, NewStep, PlacedStep
from flowstone.errors import DatabaseError, DatabaseUnavailableError
from flowstone.protocols import CallerLoop, OpensRuns, Publisher, ReadingStore
from flowstone.stores.postgres import migrations, oban_jobs
from flowstone.stores.postgres.approvals import PostgresApprovals
from flowstone.stores.postgres.audit import PostgresAudit
from flowstone.stores.postgres.automations import PostgresAutomations
from flowstone.stores.postgres.bulk import PostgresBulkActions
from flowstone.stores.postgres.caller import CallerDatabase
from flowstone.stores.postgres.catalog import DoneSignals, PostgresCatalog, PostgresChecks, PostgresTargetStatuses
from flowstone.stores.postgres.control import PostgresControl, carry_over
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
from flowstone.stores.postgres.feed import PostgresAttemptFeed
from flowstone.stores.postgres.insights import PostgresInsights
from flowstone.stores.postgres.lease import Heartbeat
from flowstone.stores.postgres.ledger import PostgresLedger
from flowstone.stores.postgres.logs import PostgresLogs
from flowstone.stores.postgres.notifications import PostgresNotifications
from flowstone.stores.postgres.partition_keys import PostgresPartitionKeys
from flowstone.stores.postgres.placing import PostgresRanges
from flowstone.stores.postgres.publications import PostgresPublications
from flowstone.stores.postgres.queue import PostgresQueue, end_lost
from flowstone.stores.postgres.reading import ReadingDatabase
from flowstone.stores.postgres.recent import RecentVersions
from flowstone.stores.postgres.scatters import PostgresScatters
from flowstone.stores.postgres.versions import PostgresVersions

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger("flowstone")

EMBEDDED = "embedded"
_CARRY_OVER_SECONDS = 10.0


log = logging.getLogger(__name__)


class CheckedDatabase(Database):
    """A database that is used only once its tables are known to fit this version.

    Args:
        dsn: where it is.
        project: whose tables to use.
        max_size: most connections at once.
        renamed: earlier names of assets, whose history is to be carried over, and their names of today.
    """

    def __init__(
        self,
        dsn: str,
        *,
        project: Project | None = None,
        max_size: int = 20,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(dsn, project=project, max_size=max_size)
        self.renamed: Mapping[str, str] = renamed or {}
        self._carry_over_at = 0.0
        self._logged: set[tuple[str, str]] = set()
        self._checking = threading.Lock()
        self._durable: bool | None = None
        self._queue_problem: str | None = None

    def _leave_to_parent(self) -> None:
        super()._leave_to_parent()
        self._checking = threading.Lock()

    @property
    def durable(self) -> bool:
        """Whether Oban's tables are there, so that transactions can place work on its queue."""
        self._check()
        return bool(self._durable)

    @property
    def queue_problem(self) -> str | None:
        """Why they cannot, when they cannot."""
        self._check()
        return self._queue_problem

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """Borrow a connection once the tables are known to fit.

        Raises:
            SchemaVersionError: the tables are missing, older or newer; names the command that helps.
        """
        self._check()
        if self.renamed and time.monotonic() >= self._carry_over_at:
            self._carry_over()
        with super().connection() as connection:
            yield connection

    def _carry_over(self) -> None:
        """Give renamed assets their history before anything is read; what is in use is tried again later."""
        with self._checking:
            if not self.renamed or time.monotonic() < self._carry_over_at:
                return
            self._carry_over_at = time.monotonic() + _CARRY_OVER_SECONDS
            plain = Database(self.dsn, project=self.project, max_size=1)
            try:
                waiting = carry_over(plain, self.renamed)
            finally:
                plain.close()
            for old, new in waiting.items():
                if (old, new) not in self._logged:
                    self._logged.add((old, new))
                    log.warning(
                        "The history of %r becomes that of %r when no step of it is under way and no living "
                        "worker declares the earlier name.",
                        old,
                        new,
                    )
            self.renamed = waiting

    def _check(self) -> None:
        if self._durable is not None:
            return
        with self._checking:
            if self._durable is None:
                with super().connection() as connection:
                    migrations.require_current_on(connection, self)
                    self._queue_problem = oban_jobs.unusable(connection)
                self._durable = self._queue_problem is None


class CallerTransaction:
    """Records durable runs inside a transaction of the caller's.

    Args:
        database: the caller's connection.
    """

    def __init__(self, database: CallerDatabase) -> None:
        self._ledger = PostgresLedger(cast("Database", database), lambda: "")
        self._ranges = PostgresRanges(cast("Database", database))

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        """Place a run inside the transaction of the caller."""
        return self._ledger.open_run(run, steps)

    def open_range(self, run: NewRun, new: NewRange) -> int:
        """Place a large backfill inside the transaction of the caller."""
        return self._ranges.open_run(run, new)


class PostgresStore:
    """Records in PostgreSQL; shared by every process that reaches it.

    Args:
        database: where.
        server: embedded server to leave on close, when this store joined one.
        beat_seconds: how often the lease of this process is renewed.
        lease_seconds: after how long without renewal others may take over.
        now: clock of the automations in place of the database's; for tests.
    """

    name = "postgres"
    shared = True

    def __init__(
        self,
        database: Database,
        *,
        server: EmbeddedPostgres | None = None,
        beat_seconds: float = 5.0,
        lease_seconds: float = 30.0,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.database = database
        self._server = server
        self._signals = DoneSignals(database)
        self.heartbeat = Heartbeat(database, kind="inline", beat_seconds=beat_seconds, lease_seconds=lease_seconds)
        recent = RecentVersions()
        self.ledger = PostgresLedger(database, lambda: self.heartbeat.worker_id, recent=recent)
        self.catalog = PostgresCatalog(database, self._signals, recent)
        database.after_runs = partial(_emit_ended, self.catalog)
        self.checks = PostgresChecks(database)
        self.target_statuses = PostgresTargetStatuses(database)
        self.queue = PostgresQueue(database)
        self.control = self.retention = PostgresControl(database)
        self.approvals = PostgresApprovals(database)
        self.audit = PostgresAudit(database)
        self.bulk = PostgresBulkActions(database)
        self.scatters = PostgresScatters(database)
        self.versions = PostgresVersions(database)
        self.publications = PostgresPublications(database)
        self.ranges = PostgresRanges(database)
        self.partition_keys = PostgresPartitionKeys(database)
        self.logs = PostgresLogs(database)
        self.feed = PostgresAttemptFeed(database)
        self.notifications = PostgresNotifications(database)
        self.automations = PostgresAutomations(database, lambda: self.heartbeat.worker_id, now=now)
        self.insights = PostgresInsights(database)
        self._readers: list[PostgresReadingStore] = []
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        directory: Path,
        project: Project | None = None,
        renamed: Mapping[str, str] | None = None,
        beat_seconds: float = 5.0,
        lease_seconds: float = 30.0,
    ) -> Self:
        """Make a store for a URL.

        Args:
            url: `postgresql://...`, a libpq string, or `embedded` (`embedded:DIRECTORY`) for a server of our
                own, which is started, or joined, and brought up to date.
            directory: where the embedded server lies when the URL does not say.
            project: whose tables to use; the default project's when None.
            renamed: see `CheckedDatabase`.
            beat_seconds: see the class.
            lease_seconds: see the class.

        Raises:
            ConfigurationError: the URL cannot be understood.
            EmbeddedDatabaseError: the embedded server cannot be started.
        """
        server = embedded_server(url, directory)
        try:
            database = CheckedDatabase(server.start() if server else url, project=project, renamed=renamed)
            if server is not None:
                upgrade(Database(database.dsn, project=project))
        except BaseException:
            if server is not None:
                server.stop()
            raise
        return cls(database, server=server, beat_seconds=beat_seconds, lease_seconds=lease_seconds)

    def publish_with(self, publisher: Publisher) -> None:
        """Have changes of what is in use published, from now on."""
        self.ledger.publisher = self.versions.publisher = publisher

    @property
    def durable(self) -> bool:
        """Whether work can be placed on Oban's queue here."""
        return self.database.durable

    @property
    def queue_problem(self) -> str | None:
        """Why no work can be placed on Oban's queue here, when it cannot."""
        return self.database.queue_problem

    def reading(self) -> ReadingStore:
        """Return the same data over a few connections of its own that cannot write; closed with this store."""
        reader = PostgresReadingStore(ReadingDatabase(self.database))
        self._readers = [one for one in self._readers if not one.database.closed] + [reader]
        return reader

    def within(self, connection: object, caller: CallerLoop | None) -> OpensRuns:
        """Return what places runs inside a transaction of the caller."""
        return CallerTransaction(CallerDatabase(connection, self.database, caller))

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """Borrow an autocommit connection."""
        with self.database.connection() as connection:
            yield connection

    def end_lost(self, step_ids: Sequence[int]) -> bool:
        """End steps whose process is lost; whether there were any. False while the database is away."""
        try:
            return end_lost(self.database, step_ids)
        except DatabaseUnavailableError:
            return False  # asked again later

    def close(self) -> None:
        """Give the lease up, close the connections, leave the embedded server; at exit by itself."""
        atexit.unregister(self._at_exit)
        for reader in self._readers:
            reader.close()
        self.heartbeat.stop()
        self._signals.close()
        self.database.close()
        if self._server is not None:
            self._server.stop()


class PostgresReadingStore(PostgresStore):
    """The store over connections that only read; what would write raises DatabaseError."""

    def __init__(self, database: ReadingDatabase) -> None:
        super().__init__(database)
        self._reading = database

    def reading(self) -> ReadingStore:
        """Return this store."""
        return self

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer the questions of this thread from one state of the data."""
        with self._reading.snapshot():
            yield


def _close(store: weakref.ref[PostgresStore]) -> None:
    found = store()
    if found is not None:
        found.close()


def embedded_server(url: str, directory: Path) -> EmbeddedPostgres | None:
    """Return the embedded server that a URL means, or None for a server of the user's own.

    Example:
        >>> embedded_server("postgresql://db.example/data", Path("unused")) is None
        True
    """
    kind, _, place = url.partition(":")
    if kind != EMBEDDED:
        return None
    return EmbeddedPostgres(Path(place).expanduser() if place else directory / "postgres")


def upgrade(database: Database) -> list[str]:
    """Bring the tables of the database's project, and Oban's when that package is installed, up to date.

    Returns:
        Names of the migrations that were applied, and what was added to Oban's tables.
    """
    with database:
        return migrations.upgrade(database, also=partial(oban_jobs.install, schema=database.project.oban_schema))


def _emit_ended(catalog: PostgresCatalog, ended: list[str | telemetry.Event]) -> None:
    """Emit what was noted, and `run.ended`; what was committed stays so, whatever happens here."""
    if not telemetry.listening():
        return
    for event in ended:
        if not isinstance(event, str):
            event.emit()
    runs = [one for one in ended if isinstance(one, str)]
    if not runs or not telemetry.listening("run.ended"):
        return
    try:
        found = [catalog.run(run_id) for run_id in runs]
    except DatabaseError as error:
        log.warning("run.ended of %s cannot be emitted: %s", ", ".join(runs), error)
        return
    for record in found:
        if record is not None:
            telemetry.emit_run_ended(record)
