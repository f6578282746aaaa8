"""An app whose assets say what they know of their run: run here, in threads, and by a worker."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict

from flowstone import FlowStone, RetryPolicy, asset, check, scatter
from flowstone.config import Settings
from flowstone.core.partitions_by_time import DailyPartitions

days = DailyPartitions(date(2020, 1, 1), end=date(2024, 1, 1))
GATE = "FLOWSTONE_TEST_GATE"


class Mode(StrEnum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Window:
    since: date = date(2024, 1, 1)
    hours: list[int] = field(default_factory=lambda: [0])


@dataclass
class Limits:
    rows: int = 10
    mode: Mode = Mode.FAST
    window: Window = field(default_factory=Window)
    password: str = ""


class Region(TypedDict):
    region: str


def message(context: Any) -> dict[str, Any]:
    run, config = context.run, context.config
    assert type(config) is Limits
    assert type(config.window) is Window
    assert type(config.mode) is Mode
    return {
        "config": [config.rows, config.mode.value, config.window.since.isoformat(), config.window.hours],
        "run": [run.id == context.run_id, run.kind, list(run.tags), dict(run.metadata), run.config],
        "attempt": context.attempt,
        "pid": os.getpid(),
    }


@asset(config=Limits)
def plain(context):
    reported = message(context)
    context.config.rows += 1  # an attempt has an object of its own
    return reported


@asset(config=Limits, isolation="process")
def isolated(context):
    return message(context)


@asset(config=Limits, retry=RetryPolicy(max_attempts=3, backoff_seconds=0))
def flaky(context):
    reported = message(context)
    context.config.rows += 100
    if context.attempt < 3:
        raise ConnectionError("not yet")
    return reported


@asset(config=Limits, partitions=days)
def daily(context):
    return context.config.rows


def each(context, number):
    return context.config.rows * number


@scatter(each=asset(name="each")(each), config=Limits)
def scattered(context):
    return list(range(context.config.rows))


@asset(config=Region)
def regional(context):
    return context.config["region"]


@asset
def report(plain, regional):
    return [plain["config"][0], regional]


@asset(requires=["db"])
def using(context):
    return context.resources["db"]


@check("using", requires=["db"])
def named(context, value):
    return context.resources["db"] == value


@asset(config=Limits)
def gated(context):
    """Rests until the gate is there: work under way."""
    while not Path(os.environ[GATE]).exists():
        if context.cancellation.wait(0.02):
            break
    return context.config.rows


class Noting:
    """A hook that writes its config into the metadata of the step."""

    config = Region

    def call(self, context, step):
        context.metadata["region"] = context.hooks_config["noting"]["region"]
        return step(context)


class Counting:
    """An always-on hook."""

    def __init__(self) -> None:
        self.calls = 0
        self.lock = threading.Lock()

    def call(self, context, step):
        with self.lock:
            self.calls += 1
        context.metadata["began"] = time.time()
        return step(context)


ASSETS = [plain, isolated, flaky, daily, scattered, regional, report, using, gated]


def make(settings: Settings | None = None, **options: Any) -> FlowStone:
    """Return the app."""
    return FlowStone(
        ASSETS,
        checks=[named],
        resources={"db": "real", "test_db": "test"},
        hooks=[Counting(), {"noting": Noting()}],
        settings=settings or Settings.load(),
        **options,
    )
