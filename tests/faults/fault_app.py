"""The app of the fault tests: its assets write what they do to a file, and wait where a test says so.

Workers run it with `python -c "from tests.faults.fault_app import main; main()"`, tests import it as clients.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.worker_app import DIRECTORY, LEASE_SECONDS, run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, Route, asset, dep
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.partitions_by_time import HourlyPartitions
from flowstone.testing.injection import KillPoints

NEWER = "FAULTS_NEWER"
LEASE = "FAULTS_LEASE_SECONDS"
ITEMS = [f"i{number:04}" for number in range(2000)]
POLL_SECONDS = 0.005

items = StaticPartitions(ITEMS)
hours = HourlyPartitions("2005-01-01T00:00")
AT_ONCE = RetryPolicy(max_attempts=3, backoff_seconds=0.0)


def directory() -> Path:
    """Where this fleet leaves its marks."""
    return Path(os.environ[DIRECTORY])


def report(event: str, context: AssetContext) -> None:
    """Append one line in one write, which the kernel keeps whole."""
    line = {
        "event": event,
        "asset": context.asset.name,
        "key": context.partition or "",
        "attempt": context.attempt,
        "token": context.token,
        "pid": os.getpid(),
        "at": time.monotonic(),
    }
    with (directory() / "events").open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


@contextmanager
def reported(context: AssetContext) -> Iterator[None]:
    """Note the beginning and, when it is reached, of the end."""
    report("start", context)
    yield
    report("end", context)


def wait_for_gate(name: str, context: AssetContext) -> None:
    """Wait until the test opens a gate, or it is cancelled."""
    while not (directory() / f"open-{name}").exists():
        context.cancellation.raise_if_cancelled(context.asset.name)
        time.sleep(POLL_SECONDS)


@asset(partitions=items, retry=AT_ONCE)
def quick(context):
    with reported(context):
        return context.partition


@asset(partitions=hours)
def wide():
    """One of very many."""


@asset(partitions=items, retry=AT_ONCE)
def raw(context):
    with reported(context):
        return context.partition


@asset(partitions=items, retry=AT_ONCE)
def clean(context, raw):
    with reported(context):
        return raw.upper()


@asset(partitions=items, retry=AT_ONCE)
def brief(context):
    with reported(context):
        context.cancellation.wait(0.02)


@asset(partitions=items, retry=AT_ONCE)
def gated(context):
    with reported(context):
        context.logger.info("at the gate")
        wait_for_gate(str(context.partition), context)
        return context.partition


@asset(partitions=items, retry=AT_ONCE)
def stubborn(context):
    """Does not listen to its token."""
    with reported(context):
        while not (directory() / f"open-{context.partition}").exists():
            time.sleep(POLL_SECONDS)


@asset(partitions=items, retry=AT_ONCE, isolation="process")
def apart(context):
    with reported(context):
        wait_for_gate(str(context.partition), context)


@asset(partitions=items, retry=AT_ONCE, routes=["near", "far"])
def fork(context):
    """Every attempt decides otherwise than the one before."""
    with reported(context):
        return Route("far" if context.attempt == 1 else "near", value=context.attempt)


@asset(partitions=items, retry=AT_ONCE)
def near(context, fork):
    with reported(context):
        wait_for_gate(str(context.partition), context)
        return fork


@asset(partitions=items, retry=AT_ONCE)
def far(context, fork):
    with reported(context):
        wait_for_gate(str(context.partition), context)
        return fork


@asset(partitions=items, deps=[dep("near", optional=True), dep("far", optional=True)])
def meeting(context, near, far):
    with reported(context):
        return [near, far]


@asset(retry=AT_ONCE)
def holds_lock(context):
    """One call into C that keeps the interpreter lock for much longer than the lease."""
    sleep = ctypes.PyDLL(None).sleep  # not CDLL, which would let the lock go
    with reported(context):
        started = time.monotonic()
        sleep(math.ceil(2.0 * LEASE_SECONDS))
        return time.monotonic() - started


@asset(retry=AT_ONCE)
def poison(context):
    report("start", context)
    os._exit(13)


@asset(retry=AT_ONCE, isolation="process")
def poison_apart(context):
    report("start", context)
    ctypes.string_at(0)


@asset(retry=AT_ONCE)
def newer(context):
    """Known only to workers of a newer deployment."""
    with reported(context):
        return "new"


_ALWAYS: tuple[Asset, ...] = (
    quick,
    wide,
    raw,
    clean,
    brief,
    gated,
    stubborn,
    apart,
    fork,
    near,
    far,
    meeting,
    holds_lock,
    poison,
    poison_apart,
)


def make_flow(database_url: str, storage: str, *, with_newer: bool = True) -> FlowStone:
    """Return the app, with times short enough for tests."""
    settings = short_settings(
        database_url, storage, snooze_seconds=0.5, lease_seconds=float(os.environ.get(LEASE, LEASE_SECONDS))
    )
    assets = (*_ALWAYS, newer) if with_newer else _ALWAYS
    return FlowStone(assets, settings=settings, hooks=[KillPoints()])


def main() -> None:
    """Run a worker as the environment says."""
    run_worker(lambda url, storage: make_flow(url, storage, with_newer=NEWER not in os.environ))
