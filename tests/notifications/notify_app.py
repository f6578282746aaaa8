"""The app of the fault tests of notifications: what its sender takes is a line of a file."""

from __future__ import annotations

import json
import os
import signal

from tests.faults.fault_app import AT_ONCE, directory, items, report, reported, wait_for_gate
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, Message, Notify, asset
from flowstone.core.asset import Asset


@asset(partitions=items)
def broken(context):
    with reported(context):
        raise ValueError(f"no rows of {context.partition}")


@asset(partitions=items, retry=AT_ONCE)
def killed(context):
    report("start", context)
    os._exit(13)


@asset(partitions=items)
def below(killed):
    return killed


@asset(partitions=items)
def gated(context):
    with reported(context):
        wait_for_gate(str(context.partition), context)
        raise ValueError("after the gate")


ASSETS: tuple[Asset, ...] = (broken, killed, below, gated)


class ToFile:
    """Writes messages to a file; where a test armed it, its process is killed before, or after it wrote."""

    name = "file"

    def send(self, message: Message) -> None:
        self._die("before")
        with (directory() / "sent").open("a") as file:
            file.write(json.dumps(message.to_json()) + "\n")
        self._die("after")

    def _die(self, point: str) -> None:
        armed = directory() / f"die-{point}"
        if armed.exists():
            armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def make_flow(database_url: str, storage: str, *, known: bool = True) -> FlowStone:
    """Return the app, with times short enough for tests; `known` says whether it declares its rule."""
    settings = short_settings(database_url, storage, dashboard_url="https://flow.example.com/")
    notify = [Notify(to=ToFile(), on=["failed", "recovered"], name="ops")] if known else []
    return FlowStone(ASSETS, settings=settings, notify=notify)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
