"""What the in-memory store answers for people who watch."""

from __future__ import annotations

from flowstone.core.approval import ApprovalState
from flowstone.core.insights.pulse import Pulse
from flowstone.core.insights.system import PoolUse, TableSize
from flowstone.protocols.automation import AutomationStore
from flowstone.protocols.insights import (
    AssetInsights,
    AutomationInsights,
    FleetInsights,
    Insights,
    OverviewInsights,
    RunInsights,
)
from flowstone.protocols.stores import ApprovalStore, CheckStore
from flowstone.stores.memory.asset_insights import MemoryAssetInsights
from flowstone.stores.memory.automation_insights import MemoryAutomationInsights
from flowstone.stores.memory.fleet_insights import MemoryFleetInsights
from flowstone.stores.memory.logs import MemoryLogs
from flowstone.stores.memory.overview_insights import MemoryOverviewInsights
from flowstone.stores.memory.run_insights import MemoryRunInsights
from flowstone.stores.memory.tables import Tables


class MemoryInsights(Insights):
    """Implements `flowstone.protocols.Insights` in memory: one object for each subject."""

    def __init__(
        self,
        tables: Tables,
        approvals: ApprovalStore,
        automations: AutomationStore,
        checks: CheckStore,
        logs: MemoryLogs,
    ) -> None:
        self._tables = tables
        self._logs = logs
        self._approvals = approvals
        self._automations = automations
        self._fleet = MemoryFleetInsights(tables)
        self._assets = MemoryAssetInsights(tables)
        self._runs = MemoryRunInsights(tables)
        self._overview = MemoryOverviewInsights(tables, self._assets)
        self._automation = MemoryAutomationInsights(approvals, automations, checks)

    @property
    def fleet(self) -> FleetInsights:
        return self._fleet

    @property
    def runs(self) -> RunInsights:
        return self._runs

    @property
    def assets(self) -> AssetInsights:
        return self._assets

    @property
    def overview(self) -> OverviewInsights:
        return self._overview

    @property
    def automation(self) -> AutomationInsights:
        return self._automation

    def tables(self) -> list[TableSize]:
        tables = self._tables
        rows = {"steps": len(tables.steps), "runs": len(tables.runs), "current_outputs": len(tables.current)}
        return [TableSize(name, number, 0, 0) for name, number in rows.items()]

    def connections(self) -> list[PoolUse]:
        return []

    def pulse(self) -> Pulse:
        tables = self._tables
        with tables.changed:
            rows = [tables.steps[one] for one in tables.active.values()]
            active = hash(tuple((row.id, row.state, row.attempt) for row in rows))
            runs = f"{len(tables.runs)} {next(reversed(tables.runs), None)} {active}"
            steps = f"{max(tables.steps, default=0)} {active} {sum(tables.current.values())}"
        pending = self._approvals.list(state=ApprovalState.PENDING)
        automations = hash(tuple(map(repr, self._automations.records())))
        return Pulse(
            runs=runs,
            steps=steps,
            queues="",
            approvals=f"{[one.id for one in pending]}",
            automations=str(automations),
            workers="",
            audit=str(len(tables.audit)),
            logs=self._logs.pulse(),
        )
