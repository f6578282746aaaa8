"""The app of the tests with worker processes: something that runs every second."""

from __future__ import annotations

from tests.faults.fault_app import reported
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, Schedule, asset


@asset
def pulse(context):
    with reported(context):
        return context.run_id


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(database_url, storage)
    every_second = Schedule("pulse", "* * * * * *", catch_up="all")
    return FlowStone([pulse], settings=settings, schedules=[every_second])


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
