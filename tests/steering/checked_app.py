"""Assets with checks, run by real workers; what they make is what a file says."""

from __future__ import annotations

import json
import logging
import os
import sys

from tests.faults.fault_app import AT_ONCE, directory, reported

from flowstone import CheckResult, FlowStone, asset, check
from flowstone.app.worker import serve
from flowstone.config import Settings

LARGE = 200_000  # more than travels with a commit, so it is kept in chunks


def content() -> str:
    """What the file says."""
    return (directory() / "content").read_text()


@asset(retry=AT_ONCE)
def page(context):
    with reported(context):
        return content() * LARGE


@asset(retry=AT_ONCE, io="filesystem")
def filed(context):
    with reported(context):
        return content() * LARGE


@asset(retry=AT_ONCE)
def length(context, page):
    with reported(context):
        return len(page)


@check(page, blocking=True)
def clean(page):
    return CheckResult("!" not in page, description="it shouts", metadata={"characters": len(page)})


@check(filed, blocking=True)
async def filed_clean(filed):
    return "!" not in filed


@check(page, severity="warning")
def long(context, page):
    with reported(context):
        return len(page) > 10 * LARGE


ASSETS = (page, filed, length)
CHECKS = (clean, filed_clean, long)


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = Settings(
        database_url=database_url, storage=storage, beat_seconds=0.3, lease_seconds=1.5, sweep_seconds=0.3
    )
    return FlowStone(ASSETS, checks=CHECKS, settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO)
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
