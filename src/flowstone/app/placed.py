"""An order that was placed: its run, its steps, and the executor that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowstone.app.order import Order
from flowstone.core.job import Job
from flowstone.core.partition import decode_partition
from flowstone.core.run_details import RunDetails
from flowstone.core.step import PlacedStep
from flowstone.engine.planner import Plan
from flowstone.protocols import Executor


@dataclass(slots=True)
class Placed:
    """Steps that were placed, with the executor that holds them."""

    run_id: str
    executor: Executor
    options: dict[str, Any]
    steps: list[PlacedStep]
    plan: Plan
    order: Order
    priorities: list[int]
    details: RunDetails
    details_of: Callable[[str], RunDetails]
    """Says what another run is about, whose work this one joined."""

    @property
    def requested_for(self) -> int:
        """Position of the first target in the plan, which may hold skipped inputs before it."""
        if len(self.plan.steps) == 1:
            return 0
        target = self.order.targets[0]
        return next(at for at, one in enumerate(self.plan.steps) if (one.asset, one.partition) == target)

    def job(self, position: int) -> Job:
        """Return the handle of a step by its position in the plan."""
        planned, placed = self.plan.steps[position], self.steps[position]
        details = self.details if placed.run_id == self.run_id else self.details_of(placed.run_id)
        return Job(
            id=placed.id,
            asset=planned.asset,
            partition=decode_partition(planned.partition) if planned.partition else None,
            run_id=placed.run_id,
            executor=self.executor.name,
            priority=self.priorities[position],
            scheduled_at=self.order.scheduled_at,
            deduplicated=placed.deduplicated,
            metadata=dict(details.metadata),
        )
