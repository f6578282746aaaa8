"""The in-memory store as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from flowstone.errors import OptionsError
from flowstone.protocols import CallerLoop, OpensRuns, Publisher, ReadingStore
from flowstone.stores.memory.approvals import MemoryApprovals, MemoryAudit
from flowstone.stores.memory.automations import MemoryAutomations
from flowstone.stores.memory.bulk import MemoryBulkActions
from flowstone.stores.memory.catalog import (
    MemoryCatalog,
    MemoryChecks,
    MemoryPartitionKeys,
    MemoryPublications,
    MemoryTargetStatuses,
)
from flowstone.stores.memory.insights import MemoryInsights
from flowstone.stores.memory.ledger import MemoryLedger
from flowstone.stores.memory.logs import MemoryLogs
from flowstone.stores.memory.notifications import MemoryNotifications
from flowstone.stores.memory.retention import MemoryRetention
from flowstone.stores.memory.scatters import MemoryScatters
from flowstone.stores.memory.tables import Tables
from flowstone.stores.memory.versions import MemoryVersions


class MemoryStore:
    """Keeps everything in this process; gone with it.

    Args:
        now: clock of automations and approvals; for tests.

    Example:
        >>> MemoryStore().shared
        False
    """

    name = "memory"
    shared = False
    durable = False
    queue_problem = None
    control = None
    ranges = None
    feed = None

    def __init__(self, *, now: Callable[[], datetime] | None = None) -> None:
        self._tables = tables = Tables()
        self.publications = MemoryPublications(tables)
        self.approvals = MemoryApprovals(tables, now=now)
        self.audit = MemoryAudit(tables)
        self.bulk = MemoryBulkActions(tables, self.approvals)
        self.scatters = MemoryScatters(tables, self.approvals)
        self.ledger = MemoryLedger(tables, self.approvals, self.scatters)
        self.catalog = MemoryCatalog(tables)
        self.checks = MemoryChecks(tables)
        self.target_statuses = MemoryTargetStatuses(tables)
        self.partition_keys = MemoryPartitionKeys(tables, now=now)
        self.automations = MemoryAutomations(tables, self.ledger, self.partition_keys, now=now)
        self.logs = MemoryLogs(tables, now=now)
        self.notifications = MemoryNotifications(tables, now=now)
        self.versions = MemoryVersions(tables, self.approvals, self.scatters, self.logs, self.notifications)
        self.retention = MemoryRetention(tables, self.approvals, self.scatters, self.automations, self.logs)
        self.insights = MemoryInsights(tables, self.approvals, self.automations, self.checks, self.logs)

    def publish_with(self, publisher: Publisher) -> None:
        """Have changes of what is in use published, from now on."""
        self._tables.publisher = publisher

    def reading(self) -> ReadingStore:
        """Return this store: there are no connections to spare."""
        return self

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer each question from the state of its moment: a page never holds up what runs here."""
        yield

    def end_lost(self, step_ids: Sequence[int]) -> bool:
        """What runs here ends with this process: nothing is ever lost to another one."""
        return False

    def within(self, connection: object, caller: CallerLoop | None) -> OpensRuns:
        """Refuse: there is no transaction that a caller could be part of."""
        raise OptionsError("connection=: this app records in memory, and no transaction of yours is part of that.")

    def close(self) -> None:
        """Nothing to release."""
