"""The app of the tests that kill parts of a Dask cluster: the workers call functions there."""

from __future__ import annotations

import os

from tests.faults.fault_app import (
    report,
    reported,
    wait_for_gate,
)
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, asset
from flowstone.compute import DaskCompute
from flowstone.core.definition import StaticPartitions
from flowstone.errors import StepCancelledError
from flowstone.io.filesystem import FilesystemIO

SCHEDULER = "FAULTS_SCHEDULER"
names = StaticPartitions(["a", "b", "c", "d"])
SOON = RetryPolicy(max_attempts=20, backoff_seconds=0.3, max_backoff_seconds=0.3, jitter=0.0, retry_on=(KeyError,))
"""No error of a cluster is among those that it names."""


@asset(partitions=names, retry=SOON, compute="dask")
def remote(context):
    """Waits on the cluster until the test lets it go on."""
    with reported(context):
        context.logger.info("at the gate")
        try:
            wait_for_gate(str(context.partition), context)
        except StepCancelledError:
            report("heard", context)
            raise
        return [context.partition, context.attempt]


@asset(partitions=names, retry=SOON, compute="dask")
def below(context, remote):
    """Reads what was stored there."""
    with reported(context):
        return remote[0].upper()


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(database_url, storage)
    return FlowStone(
        [remote, below],
        settings=settings,
        compute={"dask": DaskCompute(os.environ.get(SCHEDULER, "tcp://127.0.0.1:9"), connect_seconds=2)},
        io={"filesystem": FilesystemIO(f"{storage}/values")},
        default_io="filesystem",
    )


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(make_flow)
