"""An app whose assets have conditions, for real workers; see `tests.steering.steered_app`."""

from __future__ import annotations

from tests.faults.fault_app import directory, reported
from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, asset, eager

ONCE = RetryPolicy(max_attempts=1)


@asset(retry=ONCE)
def source(context):
    with reported(context):
        return (directory() / "value").read_text()


@asset(retry=ONCE, automation=eager())
def first(context, source):
    with reported(context):
        return source.upper()


@asset(retry=ONCE, automation=eager())
def second(context, first):
    with reported(context):
        return len(first)


@asset(retry=ONCE, automation=eager())
def third(context, second):
    with reported(context):
        if second > 5:
            raise ValueError("too long")
        return second + 1


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(
        database_url, storage, lease_seconds=LEASE_SECONDS, sweep_seconds=SWEEP_SECONDS, conditions_seconds=0.5
    )
    return FlowStone([source, first, second, third], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
