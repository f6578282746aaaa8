"""An app with sensors for real workers; see `tests.steering.steered_app`."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.fault_app import AT_ONCE, directory, reported
from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS
from tests.worker_app import run_worker, short_settings

from flowstone import DynamicPartitions, FlowStone, asset, new_files, sensor

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
    settings = short_settings(database_url, storage, lease_seconds=LEASE_SECONDS, sweep_seconds=SWEEP_SECONDS)
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
    run_worker(make_flow)
