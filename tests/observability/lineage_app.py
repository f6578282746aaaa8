"""An app that sends lineage, and whose workers are killed while they do."""

from __future__ import annotations

import json
import logging
import os
import sys

from openlineage.client import OpenLineageClient
from openlineage.client.transport.http import HttpConfig, HttpTransport
from tests.faults.fault_app import BEAT_SECONDS, LEASE_SECONDS, SWEEP_SECONDS, directory

from flowstone import FlowStone, asset
from flowstone.app.worker import serve
from flowstone.config import Settings
from flowstone.observability import OpenLineage, openlineage


@asset
def source() -> int:
    return 1


@asset
def derived(source: int) -> int:
    return source + 1


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app; it sends to where LINEAGE_URL says, and nothing without."""
    settings = Settings(
        database_url=database_url,
        storage=storage,
        executor="oban",
        beat_seconds=BEAT_SECONDS,
        lease_seconds=LEASE_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
    )
    url = os.environ.get("LINEAGE_URL")
    transport = HttpTransport(HttpConfig(url=url, timeout=60.0, retry={"total": 0})) if url else None
    observers = [OpenLineage(OpenLineageClient(transport=transport))] if transport else []
    return FlowStone([source, derived], settings=settings, observers=observers)


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    openlineage._LEASE_SECONDS = 2.0  # of what a killed worker had claimed
    openlineage._POLL_SECONDS = 0.2
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
