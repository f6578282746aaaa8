"""What it costs to watch: the same work with nothing attached, and with each of the observers, in turn.

Run with `python -m benchmarks.observability`; about five minutes, `--inline` and `--durable` half of it each.
Inline: a chain of 100 assets that do nothing. Durable: a backfill of partitions that do nothing, on one worker;
the processor time of the worker and of the server, until everything is sent. Each line is a median of rounds in
which all take turns, the order reversed every other one; ratios are medians of the rounds' ratios to `off`. `off
again` is as `off` is: what it differs by is noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import psycopg
from openlineage.client import OpenLineageClient
from openlineage.client.transport.noop import NoopConfig, NoopTransport
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.server import running_server
from flowstone import FlowStone, StaticPartitions, asset, telemetry
from flowstone.app.worker import serve
from flowstone.config import Settings
from flowstone.observability import OpenLineage, OpenTelemetry
from flowstone.observability.metrics import ProcessMetrics
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

CHAIN = 100
ARMS = ("off", "off again", "listener", "traces", "metrics", "lineage")
parts = StaticPartitions([f"p{number}" for number in range(20_000)])


@asset(partitions=parts)
def nothing() -> int:
    return 1


def chain() -> list[Any]:
    """Return assets that each read the one before."""
    names = [f"a{number}" for number in range(CHAIN)]
    text = "def a0():\n    return 1\n"
    text += "".join(f"def {name}({before}):\n    return 1\n" for before, name in pairwise(names))
    made: dict[str, Any] = {}
    exec(text, made)
    return [asset(made[name]) for name in names]


def observers(arm: str) -> list[Any]:
    """Return what watches in an arm."""
    if arm == "traces":
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
        return [OpenTelemetry(provider)]
    if arm == "lineage":
        return [OpenLineage(OpenLineageClient(transport=NoopTransport(NoopConfig())))]
    return []


@contextmanager
def listening(arm: str, flow: FlowStone) -> Iterator[None]:
    """Attach what is no observer."""
    metrics = ProcessMetrics(flow.graph)
    if arm == "listener":
        telemetry.attach("benchmark", ["*"], lambda *_: None)
    if arm == "metrics":
        metrics.start()
    try:
        yield
    finally:
        metrics.stop()
        telemetry.detach("benchmark")


def inline(arm: str, assets: list[Any]) -> float:
    """Return the seconds that one chain takes the processor, at best."""
    took = []
    for _ in range(6):
        with FlowStone.for_testing(assets, observers=observers(arm)) as flow, listening(arm, flow):
            started = time.process_time()  # with what the threads of observers take
            flow.materialize_all(f"a{CHAIN - 1}")
            took.append(time.process_time() - started)
    return min(took)


def processor_seconds(process: psutil.Process) -> float:
    """Return what a process, its children and those of them that are over have taken the processor."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def durable(arm: str, dsn: str, number: int) -> tuple[float, float]:
    """Return the processor seconds of worker and server for one backfill, until everything of it is sent."""
    upgrade(Database(dsn))
    with tempfile.TemporaryDirectory() as directory:
        ready = Path(directory) / "ready"
        environment = os.environ | {"BENCHMARK_ARM": arm, "BENCHMARK_DSN": dsn, "BENCHMARK_READY": str(ready)}
        worker = subprocess.Popen([sys.executable, "-m", "benchmarks.observability", "--worker"], env=environment)
        try:
            while not ready.exists():
                if worker.poll() is not None:
                    raise RuntimeError("the worker ended")
                time.sleep(0.05)
            settings = Settings(database_url=dsn, storage=directory, executor="oban")
            with FlowStone([nothing], settings=settings, observers=observers(arm)) as flow:
                flow.backfill("nothing", partitions=[f"p{one}" for one in range(200)])
                drained(dsn)
                measured = psutil.Process(worker.pid), server_of(dsn)
                before = [processor_seconds(one) for one in measured]
                flow.backfill("nothing", partitions=[f"p{one}" for one in range(200, 200 + number)])
                drained(dsn)
                took = [processor_seconds(one) - was for one, was in zip(measured, before, strict=True)]
                return took[0], took[1]
        finally:
            worker.terminate()
            worker.wait(60)


def server_of(dsn: str) -> psutil.Process:
    """Return the process of the server, whose children are its sessions."""
    with psycopg.connect(dsn) as connection:
        session = psutil.Process(connection.info.backend_pid)
        parent = session.parent()
        assert parent is not None
        return parent


def drained(dsn: str) -> None:
    """Wait until all lineage is sent, and whoever sends something else had a moment for it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute("SELECT EXISTS (SELECT FROM flowstone.feed_entries)").fetchone() != (False,):
            time.sleep(0.05)
    time.sleep(0.5)


def work() -> None:
    """Be the worker of an arm."""
    arm, dsn = os.environ["BENCHMARK_ARM"], os.environ["BENCHMARK_DSN"]
    settings = Settings(database_url=dsn, storage=tempfile.gettempdir(), executor="oban")
    flow = FlowStone([nothing], settings=settings, observers=observers(arm))
    with listening(arm, flow):
        serve(flow, queues={"backfill": 20}, on_ready=Path(os.environ["BENCHMARK_READY"]).touch)


def in_turn[Found](measure: Callable[[str], Found], rounds: int) -> dict[str, list[Found]]:
    """Measure all arms in turn."""
    found: dict[str, list[Found]] = {arm: [] for arm in ARMS}
    for number in range(rounds):
        for arm in ARMS if number % 2 == 0 else reversed(ARMS):
            found[arm].append(measure(arm))
    return found


def show(title: str, items: int, found: dict[str, list[float]]) -> None:
    """Print a table."""
    print(f"\n### {title}\n")
    print("|  | median | min – max | one | ÷ off |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for arm, seconds in found.items():
        ratio = statistics.median([one / off for one, off in zip(seconds, found["off"], strict=True)])
        middle = statistics.median(seconds)
        low, high = min(seconds) * 1e3, max(seconds) * 1e3
        one = middle / items * 1e6
        print(f"| {arm} | {middle * 1e3:.1f} ms | {low:.1f} – {high:.1f} ms | {one:.0f} µs | {ratio:.2f} |")


def main() -> None:
    """Measure, or be a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--inline", action="store_true")
    parser.add_argument("--durable", action="store_true")
    given = parser.parse_args()
    if given.worker:
        work()
        return
    rounds, number = (2, 500) if given.quick else (9, 4000)
    if not given.durable:
        assets = chain()
        title = "Inline, processor time of one asset of a chain of 100"
        show(title, CHAIN, in_turn(lambda arm: inline(arm, assets), rounds))
    if given.inline:
        return
    with running_server() as server:

        def backfill(arm: str) -> tuple[float, float]:
            with server.database() as dsn:
                return durable(arm, dsn, number)

        found = in_turn(backfill, 2 if given.quick else 4)
    for place, whose in enumerate(("worker", "server of the database")):
        title = f"Durable, processor time of the {whose} for one of {number} partitions"
        show(title, number, {arm: [each[place] for each in one] for arm, one in found.items()})


if __name__ == "__main__":
    main()
