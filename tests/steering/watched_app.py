"""An app whose assets say how many of its values are alive in their process, with the cyclic collector off."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, StaticPartitions, asset, scatter
from flowstone.core.output import OutputAddress, StoredOutput

KEYS = [f"p{number}" for number in range(6)]
parts = StaticPartitions(KEYS)
twice = RetryPolicy(max_attempts=2, backoff_seconds=0)
_alive: weakref.WeakSet[Big] = weakref.WeakSet()


class Big:
    """A value whose life is watched."""

    def __init__(self) -> None:
        _alive.add(self)

    def __reduce__(self) -> Any:
        return Big, ()


class Fresh:
    """An IO manager that makes a new object at each load, as one that reads files does."""

    name, shared = "fresh", True

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        return StoredOutput(self.name, address.version)

    def load(self, stored: StoredOutput) -> object:
        return Big()

    def discard(self, stored: StoredOutput) -> None:
        pass


@asset(partitions=parts, io="fresh")
def big() -> Big:
    return Big()


@asset(partitions=parts)
def reads(big: Big) -> int:
    return len(_alive)


@asset(partitions=parts, isolation="process")
def isolated(big: Big) -> int:
    gc.disable()  # of the child
    return len(_alive)


@asset(partitions=parts, retry=twice)
def fails(big: Big) -> int:
    held = big
    raise ValueError(f"{len(_alive)} alive, {held is not None}")


@asset(io="fresh")
def one(key: str) -> Big:
    return Big()


@scatter(each=one, max_concurrency=1)
def scattered() -> list[str]:
    return KEYS


@scattered.gather
def gathered(results: Any) -> int:
    return len(_alive)


@asset
def left() -> int:
    return len(_alive)


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app."""
    settings = short_settings(database_url, storage, grace_seconds=30.0)
    assets = [big, reads, isolated, fails, scattered, left]
    return FlowStone(assets, io={"fresh": Fresh()}, settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    gc.disable()
    run_worker(make_flow)
