"""An app with sensors for real workers; see `tests.steering.steered_app`."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from tests.faults.fault_app import AT_ONCE, directory, reported
from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS

from flowstone import DynamicPartitions, FlowStone, asset, new_files, sensor
from flowstone.app.worker import serve
from flowstone.config import Settings

files = DynamicPartitions("files")


@asset(partitions=files, retry=AT_ONCE)
def taken(context):
    with reported(context):
        return context.partition


@sensor(every=1)
def raises():
    raise RuntimeError("no network")


@sensor(every=1, timeout=0.3)
def hangs():
    while not (directory() / "open-hangs").exists():
        time.sleep(0.01)


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
    inbox = new_files(
        Path(storage).parent / "inbox",
        name="inbox",
        selection="taken",
        pattern="*.csv",
        partition=lambda file: file.name,
        add_to=files,
        settle=0.1,
        every=1,
    )
    return FlowStone([taken], sensors=[inbox, raises, hangs], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
