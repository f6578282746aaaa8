"""What the in-memory store answers about automations, checks and approvals."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.automation.record import AutomationId, TickRecord
from flowstone.core.step import CheckRecord
from flowstone.protocols.automation import AutomationStore
from flowstone.protocols.insights import AutomationInsights
from flowstone.protocols.stores import ApprovalStore, CheckStore

_ALL = 1_000_000


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
