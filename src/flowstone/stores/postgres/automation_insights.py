"""What the PostgreSQL store answers about automations, checks and approvals."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.core.approval import Approval
from flowstone.core.automation.record import AutomationId, TickRecord
from flowstone.core.step import CheckRecord
from flowstone.protocols.insights import AutomationInsights
from flowstone.stores.postgres.automations import TickRow
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_value


class PostgresAutomationInsights(AutomationInsights):
    """Implements `flowstone.protocols.AutomationInsights` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ticks(self, automations: Sequence[AutomationId], *, each: int) -> list[TickRecord]:
        kinds, names = [one.kind for one in automations], [one.name for one in automations]
        parameters = {"kinds": kinds, "names": names, "each": each}
        with self._database.connection() as connection:
            rows = fetch_all(connection, TickRow, "automation_insights/ticks", parameters)
        return [row.record() for row in rows]

    def recent_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        parameters = {"assets": list(assets), "each": each}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "automation_insights/recent_checks", parameters)

    def failing_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        parameters = {"assets": list(assets), "each": each}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "automation_insights/failing_checks", parameters)

    def decided(self, *, before: int | None = None, limit: int) -> list[Approval]:
        parameters = {"before": before, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, Approval, "automation_insights/decided", parameters)

    def pending(self, *, limit: int) -> int:
        with self._database.connection() as connection:
            return fetch_value(connection, int, "automation_insights/pending", {"limit": limit}) or 0
