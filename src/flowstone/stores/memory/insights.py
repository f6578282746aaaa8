"""What the in-memory store answers for people who watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.automation.record import AutomationId, TickRecord
from flowstone.core.insights.overview import FoundRun, PoolUse, Pulse, StaleAsset, TableSize
from flowstone.core.step import CheckRecord
from flowstone.protocols.automation import AutomationStore
from flowstone.protocols.insights import AssetInsights, AutomationInsights, OverviewInsights
from flowstone.protocols.stores import ApprovalStore, CheckStore
from flowstone.stores.memory.asset_insights import MemoryAssetInsights
from flowstone.stores.memory.fleet_insights import MemoryFleetInsights
from flowstone.stores.memory.logs import MemoryLogs
from flowstone.stores.memory.run_insights import MemoryRunInsights
from flowstone.stores.memory.tables import Tables

_MAX_STALE = 100_000
_ALL = 1_000_000


class MemoryOverviewInsights(OverviewInsights):
    """Implements `flowstone.protocols.OverviewInsights` over dictionaries."""

    def __init__(self, tables: Tables, assets: AssetInsights) -> None:
        self._tables = tables
        self._assets = assets

    def stale_assets(self, code_versions: Mapping[str, str | None], *, limit: int) -> list[StaleAsset]:
        found = []
        for name in sorted(code_versions):
            with self._tables.changed:
                last = sorted((key for asset, key in self._tables.current if asset == name), reverse=True)[:limit]
                stale = self._assets.stale(name, code_versions[name], limit=_MAX_STALE)
            ours = [one for one in stale if one.partition_key in last]
            if ours:
                first = next((one for one in ours if one.upstream is not None), ours[0])
                found.append(StaleAsset(name, len(ours), len(last), first.upstream, first.upstream_key))
        return found

    def find_runs(self, text: str, *, limit: int) -> list[FoundRun]:
        found: list[FoundRun] = []
        with self._tables.changed:
            for run in reversed(self._tables.runs.values()):
                if len(found) == limit:
                    break
                new = run.new
                if new.id.startswith(text) or new.selection.startswith(text) or text in new.details.tags:
                    state = run.record().state.value
                    found.append(FoundRun(new.id, new.kind, new.selection[:200], state, new.created_at))
        return found


class MemoryAutomationInsights(AutomationInsights):
    """Implements `flowstone.protocols.AutomationInsights` in memory.

    Args:
        approvals: of the store.
        automations: of the store.
        checks: of the store.
    """

    def __init__(self, approvals: ApprovalStore, automations: AutomationStore, checks: CheckStore) -> None:
        self._approvals = approvals
        self._automations = automations
        self._checks = checks

    def ticks(self, automations: Sequence[AutomationId], *, each: int) -> list[TickRecord]:
        found = [tick for one in automations for tick in self._automations.ticks(one, limit=each)]
        return sorted(found, key=lambda tick: tick.id, reverse=True)

    def recent_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        return [one for asset in assets for one in self._checks.results(asset, limit=each)]

    def failing_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        found = []
        for asset in assets:
            newest = {id(one) for one in self._checks.latest(asset, failed=True, limit=_ALL)}
            found += [one for one in self._checks.results(asset, failed=True, limit=each) if id(one) in newest]
        return found

    def decided(self, *, before: int | None = None, limit: int) -> list[Approval]:
        found = [one for one in self._approvals.list(limit=_ALL) if one.state is not ApprovalState.PENDING]
        return [one for one in found if before is None or one.id < before][:limit]

    def pending(self, *, limit: int) -> int:
        return len(self._approvals.list(state=ApprovalState.PENDING, limit=limit))


class MemoryInsights:
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
        self.fleet = MemoryFleetInsights(tables)
        self.assets = MemoryAssetInsights(tables)
        self.runs = MemoryRunInsights(tables)
        self.overview = MemoryOverviewInsights(tables, self.assets)
        self.automation = MemoryAutomationInsights(approvals, automations, checks)

    def tables(self) -> list[TableSize]:
        """Return the tables of the store, with about how many rows they have."""
        tables = self._tables
        rows = {"steps": len(tables.steps), "runs": len(tables.runs), "current_outputs": len(tables.current)}
        return [TableSize(name, number, 0, 0) for name, number in rows.items()]

    def connections(self) -> list[PoolUse]:
        """Return how the connections of this process are used."""
        return []

    def pulse(self) -> Pulse:
        """Return a text for each topic that is another one as soon as something about it is."""
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
