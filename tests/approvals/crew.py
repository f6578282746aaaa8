"""A fleet on the app of the approval tests."""

from __future__ import annotations

from tests.approvals import approval_app
from tests.faults.fleet import check
from tests.steering.crew import Crew

from flowstone import FlowStone
from flowstone.core.approval import Approval
from flowstone.core.context import CancellationToken
from flowstone.core.step import AttemptResult
from flowstone.engine.worker import NodeWork


class Askers(Crew):
    """Workers and a client of the approval app."""

    app = "tests.approvals.approval_app"

    def client(self) -> FlowStone:
        return approval_app.make_flow(self.database_url, self.storage)

    def requested(self, number: int = 1) -> list[Approval]:
        """Wait until so many requests are open."""
        check(lambda: len(self.flow.approvals.list()) >= number, lambda: self.report(f"{number} requests"))
        return sorted(self.flow.approvals.list(), key=lambda one: one.id)

    def jobs(self, queue: str) -> list[str]:
        """States of the jobs of a queue."""
        return [row[0] for row in self.rows("SELECT state FROM oban_jobs WHERE queue = %s ORDER BY id", queue)]

    def work(self, queue: str = "assets", *, demand: int = 100) -> int:
        """Do in this process, once, what a worker does with a queue; return how many steps that were."""
        parts = self.flow.parts
        work = NodeWork(
            self.flow.graph,
            reader=parts.reader,
            runner=parts.runner,
            snooze_seconds=1.0,
            target_statuses=parts.store.target_statuses,
            shapes=parts.shapes,
            others=list,
        )
        taken = self.take(queue, demand=demand)
        ends: list[AttemptResult] = [
            work.perform(attempt, prepared, CancellationToken())
            for attempt, prepared in zip(taken, work.prepare(taken), strict=True)
        ]
        self.store.ledger.commit(ends)
        return len(taken)
