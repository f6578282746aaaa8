"""One app for each project of a database, with assets of the same names; see `tests.steering.steered_app`."""

from __future__ import annotations

import json
import logging
import os
import sys

from tests.faults.fault_app import directory
from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS

from flowstone import DynamicPartitions, FlowStone, RunRequest, StaticPartitions, asset, sensor
from flowstone.app.worker import serve
from flowstone.config import Settings
from flowstone.core.project import DEFAULT_PROJECT

NUMBERS = [str(number) for number in range(20)]
keys = DynamicPartitions("keys")


def make_flow(database_url: str, storage: str, project: str) -> FlowStone:
    """Return the app of a project, which says its name in every value."""

    @asset
    def orders():
        return f"orders of {project}"

    @asset
    def large():
        return f"{project} " * 50_000  # in chunks, not with the commit

    @asset(io="filesystem")
    def filed():
        return f"file of {project}"

    @asset(deps=[orders, large, filed])
    def together(orders, large, filed):
        return [orders, large.split()[-1], filed]

    @asset(partitions=StaticPartitions(NUMBERS), concurrency={"one": 1})
    def trivial():
        return project

    @asset(partitions=keys)
    def keyed(context):
        return context.partition

    @asset
    def requested():
        return project

    @sensor(every=3600)
    def asks():
        return RunRequest(selection="requested", run_key="once")

    settings = Settings(
        database_url=database_url,
        storage=storage,
        project=project,
        beat_seconds=0.3,
        lease_seconds=LEASE_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
        grace_seconds=1.0,
    )
    return FlowStone(
        [orders, large, filed, together, trivial, keyed, requested], sensors=[asks], settings=settings
    )


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    project = os.environ.get("FLOWSTONE_PROJECT", DEFAULT_PROJECT)
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"], project)
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
