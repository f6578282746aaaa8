"""The app of the steering tests that scatters."""

from __future__ import annotations

import time
from typing import Any

from tests.faults.fault_app import report, wait_for_gate
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, StaticPartitions, asset, scatter

ONCE = RetryPolicy(max_attempts=1)
KEYS = [f"p{number}" for number in range(30)]
WIDTH = 3


@asset(retry=ONCE, concurrency={"web": 2})
def work(context: Any, item: int) -> int:
    """Waits for its gate, if it is the item of one."""
    report("start", context)
    if item < 0:
        wait_for_gate(f"item{item}", context)
    time.sleep(0.002)
    report("end", context)
    return item


@scatter(each=work, max_concurrency=WIDTH)
def gated(context: Any) -> list[int]:
    """Forty items, the first of which wait."""
    return [-1, -2, -3, *range(40)]


@scatter(each=lambda item: item, partitions=StaticPartitions(KEYS))
def many(context: Any) -> list[str]:
    """A scatter in each partition."""
    report("discover", context)
    return [f"{context.partition}-{number}" for number in range(4)]


@many.gather
def joined(results: Any) -> str:
    """Join."""
    return ",".join(result.value for result in results)


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app."""
    settings = short_settings(database_url, storage)
    return FlowStone([gated, many], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
