"""The app of the tests that kill workers while items are discovered, worked on and gathered."""

from __future__ import annotations

import os
import time

from tests.faults.fault_app import (
    report,
    reported,
    wait_for_gate,
)
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, asset, scatter
from flowstone.testing.injection import KillPoints

NUMBER = int(os.environ.get("SCATTER_ITEMS", "300"))
AT_ONCE = RetryPolicy(max_attempts=3, backoff_seconds=0.0, jitter=0.0)
HALF = "half"


@asset(retry=AT_ONCE)
def work(context, item):
    """Takes a moment; one item in fifty always fails."""
    report("start", context)
    time.sleep(0.002)
    if item % 50 == 7:
        raise ValueError(f"item {item}")
    report("end", context)
    return -item


@scatter(each=work, max_concurrency=20, max_failures=0.05, retry=AT_ONCE)
def found(context):
    """Waits in the middle until the test lets it go on."""
    report("discover", context)
    for number in range(NUMBER):
        if number == NUMBER // 2:
            time.sleep(0.6)  # so long that what was found so far is added
            yield number
            report(HALF, context)
            wait_for_gate(HALF, context)
            continue
        yield number


@found.gather
def gathering(context, results):
    """Notes what it got."""
    with reported(context):
        return {"values": [result.value for result in results], "total": results.total, "failed": results.failed}


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(database_url, storage)
    return FlowStone([found], settings=settings, hooks=[KillPoints()])


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
