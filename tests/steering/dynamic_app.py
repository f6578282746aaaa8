"""An app with dynamic partitions for real workers; see `tests.steering.steered_app`."""

from __future__ import annotations

from tests.faults.fault_app import AT_ONCE, directory, reported, wait_for_gate
from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS
from tests.worker_app import run_worker, short_settings

from flowstone import DynamicPartitions, FlowStone, LastN, asset, dep

customers = DynamicPartitions("customers")


@asset(partitions=customers, retry=AT_ONCE)
def orders(context):
    with reported(context):
        if (directory() / f"hold-{context.partition}").exists():
            wait_for_gate(str(context.partition), context)
        return context.partition


@asset(partitions=customers, deps={"recent": dep(orders, mapping=LastN(2))}, retry=AT_ONCE)
def trend(context, recent):
    with reported(context):
        return list(recent)


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(database_url, storage, lease_seconds=LEASE_SECONDS, sweep_seconds=SWEEP_SECONDS)
    return FlowStone([orders, trend], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
