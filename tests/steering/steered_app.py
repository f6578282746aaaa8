"""The app of the steering tests; see `tests.faults.fault_app`, from which its assets borrow log and gates."""

from __future__ import annotations

import os

from tests.faults.fault_app import AT_ONCE, directory, items, reported, wait_for_gate
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, asset
from flowstone.core.asset import Asset

SWEEP_SECONDS, LEASE_SECONDS = 0.3, 1.5


@asset(partitions=items, retry=AT_ONCE)
def quick(context):
    with reported(context):
        return context.partition


@asset(partitions=items, queue="elsewhere")
def elsewhere(context):
    with reported(context):
        return context.partition


@asset(partitions=items, retry=AT_ONCE)
def gated(context):
    with reported(context):
        wait_for_gate(str(context.partition), context)
        return context.partition


@asset(partitions=items, retry=RetryPolicy(max_attempts=1))
def fragile(context):
    with reported(context):
        if (directory() / f"hold-{context.partition}").exists():
            wait_for_gate(str(context.partition), context)
        if (directory() / f"break-{context.partition}").exists():
            raise ValueError(f"{context.partition} is broken")
        return context.partition


@asset(partitions=items, retry=RetryPolicy(max_attempts=1))
def after(context, fragile):
    with reported(context):
        return fragile.upper()


@asset(partitions=items, retry=RetryPolicy(max_attempts=1))
def gated_after(context, fragile):
    with reported(context):
        wait_for_gate(str(context.partition), context)
        return fragile


@asset(retry=RetryPolicy(max_attempts=3, backoff_seconds=600.0))
def retries_late():
    raise ValueError("not today")


@asset(partitions=items, retry=AT_ONCE, concurrency={"crane": 2})
def lifted(context):
    with reported(context):
        wait_for_gate(str(context.partition), context)


@asset(partitions=items, retry=AT_ONCE, concurrency={"crane": 2, "dock": 1})
def unloaded(context):
    with reported(context):
        wait_for_gate(str(context.partition), context)


@asset(partitions=items, retry=AT_ONCE, concurrency={"rate": "3/second"})
def requested(context):
    with reported(context):
        return context.partition


@asset(partitions=items, retry=RetryPolicy(max_attempts=1), concurrency={"service": "breaker 3 failures/1 s"})
def called(context):
    with reported(context):
        if (directory() / f"hold-{context.partition}").exists():
            wait_for_gate(str(context.partition), context)
        if (directory() / "down").exists():
            raise ConnectionError("the service is down")


@asset(partitions=items, retry=RetryPolicy(max_attempts=1), concurrency={"line": "breaker 3 failures/hour"})
def phoned(context):
    with reported(context):
        raise ConnectionError("nobody answers")


@asset(partitions=items, retry=AT_ONCE, concurrency={"far": "breaker 1 failure/hour", "crane": 2})
def hoisted(context):
    with reported(context):
        raise ConnectionError("no power")


ASSETS: tuple[Asset, ...] = (
    quick,
    elsewhere,
    gated,
    fragile,
    after,
    gated_after,
    retries_late,
    lifted,
    unloaded,
    requested,
    called,
    phoned,
    hoisted,
)


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(
        database_url,
        storage,
        snooze_seconds=60.0,
        lease_seconds=LEASE_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
        grace_seconds=float(os.environ.get("FAULTS_GRACE", "1")),
    )
    return FlowStone(ASSETS, settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
