"""Two versions of one app, as they are at work while a deploy rolls over; see `tests.steering.steered_app`."""

from __future__ import annotations

import os

from tests.steering.steered_app import LEASE_SECONDS
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, StaticPartitions, asset, scatter

VERSION = "STEERING_VERSION"
SWEEP_SECONDS = 1.0
NUMBERS = [str(number) for number in range(1200)]


@asset(isolation="process", code_version=os.environ.get(VERSION, "v1"))
def isolated():
    return os.environ[VERSION]


def make_flow(database_url: str, storage: str, version: str, *, deps_timeout_seconds: float = 600.0) -> FlowStone:
    """Return one version of the app."""
    old = version == "v1"

    @asset
    def raw():
        return 1

    @asset(partitions=None if old else StaticPartitions(["x", "y"]), code_version=version)
    def total():
        return version

    @asset(partitions=StaticPartitions(["x", "gone"] if old else ["x"]), code_version=version)
    def region():
        return version

    @asset(deps=[] if old else [raw], code_version=version)
    def reads():
        return version

    @asset(io="filesystem" if old else "postgres", code_version=version)
    def moved():
        return version

    @asset(partitions=StaticPartitions(NUMBERS), code_version=version)
    def same():
        return version

    @asset(code_version=version)
    def each(number):
        return version

    @scatter(each=each, code_version=version)
    def scattered():
        return [1, 2]

    @asset(name=f"only_{version}", partitions=StaticPartitions(NUMBERS[:20]))
    def only():
        return version

    settings = short_settings(
        database_url,
        storage,
        deps_timeout_seconds=deps_timeout_seconds,
        lease_seconds=LEASE_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
    )
    return FlowStone([raw, total, region, reads, moved, same, isolated, scattered, only], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(lambda url, storage: make_flow(url, storage, os.environ[VERSION]))
