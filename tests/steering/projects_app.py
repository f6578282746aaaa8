"""One app for each project of a database, with assets of the same names; see `tests.steering.steered_app`."""

from __future__ import annotations

import os

from tests.steering.steered_app import LEASE_SECONDS, SWEEP_SECONDS
from tests.worker_app import run_worker, short_settings

from flowstone import DynamicPartitions, FlowStone, RunRequest, StaticPartitions, asset, sensor
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

    settings = short_settings(
        database_url, storage, project=project, lease_seconds=LEASE_SECONDS, sweep_seconds=SWEEP_SECONDS
    )
    return FlowStone(
        [orders, large, filed, together, trivial, keyed, requested], sensors=[asks], settings=settings
    )


def main() -> None:
    """Run a worker as the environment says."""
    project = os.environ.get("FLOWSTONE_PROJECT", DEFAULT_PROJECT)
    run_worker(lambda url, storage: make_flow(url, storage, project))
