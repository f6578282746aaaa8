"""The app of the tests with worker processes: something that runs every second."""

from __future__ import annotations

import json
import logging
import os
import sys

from tests.faults.fault_app import BEAT_SECONDS, LEASE_SECONDS, SWEEP_SECONDS, directory, reported

from flowstone import FlowStone, Schedule, asset
from flowstone.app.worker import serve
from flowstone.config import Settings


@asset
def pulse(context):
    with reported(context):
        return context.run_id


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = Settings(
        database_url=database_url,
        storage=storage,
        executor="oban",
        beat_seconds=BEAT_SECONDS,
        lease_seconds=LEASE_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
        grace_seconds=1.0,
    )
    every_second = Schedule("pulse", "* * * * * *", catch_up="all")
    return FlowStone([pulse], settings=settings, schedules=[every_second])


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
