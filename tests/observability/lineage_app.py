"""An app that sends lineage, and whose workers are killed while they do."""

from __future__ import annotations

import os

from openlineage.client import OpenLineageClient
from openlineage.client.transport.http import HttpConfig, HttpTransport
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, asset
from flowstone.observability import OpenLineage, openlineage


@asset
def source() -> int:
    return 1


@asset
def derived(source: int) -> int:
    return source + 1


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app; it sends to where LINEAGE_URL says, and nothing without."""
    settings = short_settings(database_url, storage, grace_seconds=30.0)
    url = os.environ.get("LINEAGE_URL")
    transport = HttpTransport(HttpConfig(url=url, timeout=60.0, retry={"total": 0})) if url else None
    observers = [OpenLineage(OpenLineageClient(transport=transport))] if transport else []
    return FlowStone([source, derived], settings=settings, observers=observers)


def main() -> None:
    """Run a worker as the environment says."""
    openlineage._LEASE_SECONDS = 2.0  # of what a killed worker had claimed
    openlineage._POLL_SECONDS = 0.2
    run_worker(make_flow)
