"""Millions of finished steps: do backfills slow down, does a worker grow, does pruning keep up with making?

`python -m benchmarks.scale` writes 1,000,000 steps of the shape `dag`, with edges and values, and takes some ten
minutes; `--steps 10000000` needs 30 GB and half an hour, `--quick` shows that it works. FlowStone alone: there is
no peer to compare, the figures are ratios of one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import psutil

from benchmarks.finished import PER_RUN, fill
from benchmarks.peers.children import workers
from benchmarks.peers.flowstone_dag_app import ASSETS, dag
from benchmarks.peers.flowstone_dag_app import FIRST as FIRST_DAY
from benchmarks.peers.flowstone_durable_app import FIRST, app
from benchmarks.server import running_server
from flowstone import FlowStone
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

PRUNED = 100_000
"""Steps that are pruned to measure how fast that is, of those that are the oldest."""


def rate(flow: FlowStone, assets: list[str], partitions: list[object]) -> float:
    """Return steps per second of one backfill, from call to return."""
    started = time.perf_counter()
    result = flow.backfill(assets, partitions=partitions, executor="oban", force=True)
    assert result.succeeded == len(assets) * len(partitions), result
    return result.succeeded / (time.perf_counter() - started)


def pruning(flow: FlowStone, steps: int) -> float:
    """Return steps per second of pruning some of the oldest; the runs are spread evenly over 100 days."""
    share = min(0.5, PRUNED / steps)
    started = time.perf_counter()
    pruned = flow.retention.prune(older_than=timedelta(days=100 * (1 - share)))
    assert pruned.steps == pruned.values > 0
    return pruned.steps / (time.perf_counter() - started)


def line(name: str, few: list[float], many: list[float]) -> float:
    """Print how fast something was before and after; return the latter."""
    before, after = statistics.median(few), statistics.median(many)
    print(
        f"{name}: {before:,.0f}/s ({min(few):,.0f} - {max(few):,.0f}), beside the finished ones {after:,.0f}/s "
        f"({min(many):,.0f} - {max(many):,.0f}), ratio {after / before:.2f} (aim: at least 0.85)",
        flush=True,
    )
    return after


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="finished ones, a multiple of 10,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small: to see that everything works")
    arguments = parser.parse_args()
    steps, rounds = (20 * PER_RUN, 1) if arguments.quick else (arguments.steps, arguments.rounds)
    days, jobs = (100, 1_000) if arguments.quick else (2_500, 10_000)
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="flowstone-bench-"))
        server = stack.enter_context(running_server())
        dsn = stack.enter_context(server.database())
        upgrade(Database(dsn))
        shape = {"dsn": dsn, "edges": True, "rows": 20, "io": "postgres", "storage": storage}
        shaped = stack.enter_context(dag(**shape))
        plain = stack.enter_context(app(dsn))
        queues = {"backfill": 50}

        def measured(make: Callable[[], float], module: str, **given: object) -> list[float]:
            """Measure with a worker of its own; the first round warms up."""
            with workers(module, 1, queues=queues, **given) as children:
                make()
                worker = psutil.Process(children[0].pid)
                before = worker.memory_info().rss
                found = [make() for _ in range(rounds)]
                grown = (worker.memory_info().rss - before) / 2**20
                print(f"memory of the worker: {before >> 20} MiB, grown by {grown:+.1f} MiB", flush=True)
            return found

        def noops() -> float:
            return rate(plain, ["noop"], [FIRST + timedelta(days=n) for n in range(jobs)])

        def dags() -> float:
            return rate(shaped, list(ASSETS), [FIRST_DAY + timedelta(days=n) for n in range(days)])

        few_noops, few_dags = (
            measured(noops, "flowstone_worker", dsn=dsn),
            measured(dags, "flowstone_dag_worker", name="dag", **shape),
        )
        started = time.perf_counter()
        fill(dsn, steps)
        print(f"{steps:,} steps written in {time.perf_counter() - started:,.0f} s", flush=True)
        many_noops, many_dags = (
            measured(noops, "flowstone_worker", dsn=dsn),
            measured(dags, "flowstone_dag_worker", name="dag", **shape),
        )
        line("no-op steps", few_noops, many_noops)
        made = line("steps of the shape `dag`", few_dags, many_dags)
        gone = pruning(shaped, steps)
        print(
            f"pruning: {gone:,.0f} steps/s, {gone / made:.1f} x the rate at which they are made (aim: at least 3)"
        )


if __name__ == "__main__":
    main()
