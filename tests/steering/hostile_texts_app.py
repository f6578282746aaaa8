"""An app whose steps say what hurt: to the database, to the engine, to listeners. Emitted events go to a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from tests.faults.fault_app import directory
from tests.worker_app import run_worker, short_settings

from flowstone import DailyPartitions, Fatal, FlowStone, RetryPolicy, asset, telemetry


class BusyError(Exception):
    """A service that says when to come again."""


class Unspeakable:
    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


def never(attempt: int, error: BaseException | None) -> float:
    return float("nan")


def soon(attempt: int, error: BaseException | None) -> float:
    assert isinstance(error, BusyError)
    return 0.1


class Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise SystemExit("a class that fights isinstance")


class FightsError(Exception, metaclass=Meta):
    pass


@asset(partitions=DailyPartitions("2024-01-01", end="2024-01-03"))
def good(context: Any) -> int:
    context.metadata.update(rows=np.int64(3), day=date(2024, 1, 5), share=float("nan"), name="a\x00b")
    return 1


@asset(retry=RetryPolicy(max_attempts=2, backoff=soon))
def busy(context: Any) -> int:
    if context.attempt == 1:
        raise BusyError("come again\nhint: later")
    return 1


@asset(retry=RetryPolicy(max_attempts=3, backoff=never))
def endless() -> None:
    raise BusyError("no")


@asset(retry=RetryPolicy(max_attempts=3, retry_on=[FightsError]))
def fights() -> None:
    raise BusyError("no")


@asset
def poisoned(context: Any) -> int:
    context.metadata["fact"] = Unspeakable()
    return 1


@asset
def ended() -> None:
    raise Fatal("the contract ended", data={"customer": np.int64(7)})


class Breaks:
    """A hook that fights its step."""

    def call(self, context: Any, step: Any) -> Any:
        outcome = step(context)
        if context.asset.name == "hooked":
            raise SystemExit("a hook")
        return Unspeakable() if context.asset.name == "answered" else outcome


@asset
def hooked() -> int:
    return 1


@asset
def answered() -> int:
    return 1


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app."""
    settings = short_settings(database_url, storage, grace_seconds=30.0)
    assets = [good, busy, endless, fights, poisoned, ended, hooked, answered]
    return FlowStone(assets, hooks=[Breaks()], settings=settings)


def main() -> None:
    """Run a worker as the environment says."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    reported = directory() / "emitted"

    def write(event: str, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        with reported.open("a") as file:
            file.write(json.dumps([event, measured, about]) + "\n")

    def clumsy(*_: object) -> None:
        raise SystemExit("a listener")

    telemetry.attach("write", ["attempt.committed", "run.ended"], write)
    telemetry.attach("clumsy", ["*"], clumsy)
    run_worker(make_flow)


if __name__ == "__main__":
    main()
