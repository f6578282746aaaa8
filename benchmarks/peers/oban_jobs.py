"""The no-op jobs of stock Oban."""

from __future__ import annotations

import time

from oban import worker

QUEUE = "backfill"


@worker(queue=QUEUE)
class Noop:
    """Does nothing."""

    async def process(self, job: object) -> None:
        """Do nothing."""


@worker(queue="latency")
class Report:
    """Prints when it started, on the clock that all processes of a machine share."""

    async def process(self, job: object) -> None:
        """Print the clock."""
        print(time.monotonic_ns(), flush=True)
