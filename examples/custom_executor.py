"""An executor of your own: at most so many steps per second. Run with `python examples/custom_executor.py`."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from flowstone import Capability, DailyPartitions, FlowStone, Job, Materialization, asset
from flowstone.protocols import RunJob


class RateLimited:
    """Runs one step after the other, in the caller's thread, not faster than `per_second`."""

    name = "rate-limited"
    capabilities = frozenset({Capability.SEQUENTIAL, Capability.NON_PERSISTENT})

    def __init__(self, per_second: float) -> None:
        self._interval = 1.0 / per_second
        self._next = 0.0
        self._run: RunJob

    def bind(self, run: RunJob) -> None:
        """Receive what runs a job; the app calls this once."""
        self._run = run

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Wait for this step's turn, then run it."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._interval
        return self._run(job)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Run it and return the handle: this executor has no queue."""
        self.execute(job, **options)
        return job


@asset(partitions=DailyPartitions("2024-01-01", end="2024-01-05"))
def rates() -> float:
    """Stands for a call of a service that allows few calls per second."""
    return 1.08


if __name__ == "__main__":
    flow = FlowStone.for_testing([rates], executors={"rate-limited": RateLimited(per_second=20)})
    started = time.monotonic()
    result = flow.backfill("rates", executor="rate-limited")
    print(f"{result.succeeded} of {result.total} days")
    print("not faster than the limit:", time.monotonic() - started >= 4 / 20)
    print(flow.load("rates", partition=date(2024, 1, 3)))
