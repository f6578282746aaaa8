"""The app of the approval tests; see `tests.faults.fault_app`, from which its assets borrow log and gates."""

from __future__ import annotations

import json
import logging
import os
import sys

from tests.faults.fault_app import AT_ONCE, directory, items, reported, wait_for_gate

from flowstone import Approval, AwaitApproval, FlowStone, asset
from flowstone.app.worker import serve
from flowstone.config import Settings
from flowstone.core.asset import Asset

NOTIFIED = "APPROVALS_NOTIFIED"


@asset(partitions=items, retry=AT_ONCE)
def bought(context):
    """Expensive before the gate, cheap after it."""
    if context.approval is None:
        with reported(context):
            raise AwaitApproval("Buy?", resume={"offer": str(context.partition)}, timeout=600)
    with reported(context):
        return context.approval.resume["offer"] + " by " + context.approval.decided_by


@asset(partitions=items, retry=AT_ONCE)
def delivered(context, bought):
    with reported(context):
        return bought.upper()


@asset(partitions=items, retry=AT_ONCE, concurrency={"crane": 1})
def lifted(context):
    with reported(context):
        if context.approval is None:
            raise AwaitApproval("Lift?", timeout=600)


@asset(partitions=items, retry=AT_ONCE)
def brief(context):
    """Asks for a moment only."""
    with reported(context):
        if context.approval is None:
            raise AwaitApproval("Quickly?", timeout=0.2, on_timeout="approve")


@asset(partitions=items, retry=AT_ONCE)
def plain(context):
    with reported(context):
        return context.partition


@asset(partitions=items, retry=AT_ONCE)
def held(context):
    with reported(context):
        wait_for_gate(str(context.partition), context)
        raise AwaitApproval("Late?", timeout=600)


ASSETS: tuple[Asset, ...] = (bought, delivered, lifted, brief, plain, held)


def report(approval: Approval) -> None:
    """Append what was announced to a file; the first time is an accident when the test wants one."""
    accident = directory() / "accident"
    if accident.exists():
        accident.unlink()
        raise ConnectionError("nobody there")
    with (directory() / "announced").open("a") as file:
        file.write(f"{approval.id} {approval.state}\n")


def make_flow(database_url: str, storage: str, *, notifiers: bool = False) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = Settings(
        database_url=database_url,
        storage=storage,
        executor="oban",
        snooze_seconds=60.0,
        beat_seconds=0.3,
        lease_seconds=2.0,
        sweep_seconds=0.5,
        grace_seconds=1.0,
    )
    return FlowStone(ASSETS, settings=settings, notifiers=[report] if notifiers else [])


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    flow = make_flow(
        os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"], notifiers=NOTIFIED in os.environ
    )
    ready = directory() / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ["FAULTS_QUEUES"]), on_ready=ready.touch))
