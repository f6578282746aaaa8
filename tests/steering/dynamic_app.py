"""An app with dynamic partitions for real workers; see `tests.steering.steered_app`."""

from __future__ import annotations

import json
import logging
import os
import sys

from tests.faults.fault_app import AT_ONCE, directory, reported, wait_for_gate
from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS

from flowstone import DynamicPartitions, FlowStone, LastN, asset, dep
from flowstone.app.worker import serve
from flowstone.config import Settings

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
    settings = Settings(
        database_url=database_url,
        storage=storage,
        beat_seconds=0.3,
        lease_seconds=LEASE_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
        grace_seconds=1.0,
    )
    return FlowStone([orders, trend], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
