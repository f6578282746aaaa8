"""Assets with checks, run by real workers; what they make is what a file says."""

from __future__ import annotations

from tests.faults.fault_app import AT_ONCE, directory, reported
from tests.worker_app import run_worker, short_settings

from flowstone import CheckResult, FlowStone, asset, check

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
    settings = short_settings(database_url, storage, lease_seconds=1.5, sweep_seconds=0.3, grace_seconds=30.0)
    return FlowStone(ASSETS, checks=CHECKS, settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
