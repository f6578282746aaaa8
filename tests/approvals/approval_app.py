"""The app of the approval tests; see `tests.faults.fault_app`, from which its assets borrow log and gates."""

from __future__ import annotations

import os

from tests.faults.fault_app import AT_ONCE, directory, items, reported, wait_for_gate
from tests.worker_app import run_worker, short_settings

from flowstone import Approval, AwaitApproval, FlowStone, asset
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
    settings = short_settings(database_url, storage, snooze_seconds=60.0)
    return FlowStone(ASSETS, settings=settings, notifiers=[report] if notifiers else [])


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(lambda url, storage: make_flow(url, storage, notifiers=NOTIFIED in os.environ))
