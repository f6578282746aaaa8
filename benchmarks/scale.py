"""A million finished steps: does the backfill slow down, does a worker grow, does pruning keep up?

Run with `python -m benchmarks.scale`; takes about three minutes. FlowStone alone: there is no peer to compare,
the figures are ratios of one run.
"""

from __future__ import annotations

import statistics
import time
from datetime import timedelta

import psutil

from benchmarks.peers.children import workers
from benchmarks.peers.flowstone_durable_app import FIRST, app
from benchmarks.server import running_server
from flowstone import FlowStone
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

JOBS = 10_000
ROUNDS = 10
FINISHED = 1_000_000

_RUNS = """
    INSERT INTO flowstone.runs (id, kind, selection, executor, durable, state, priority, deps_timeout_seconds,
        created_at, finished_at)
    SELECT 'old' || n, 'backfill', 'noop', 'oban', true, 'completed', 8, 1,
        now() - interval '200 days', now() - interval '199 days'
    FROM generate_series(0, 99) AS n
"""
_STEPS = """
    INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts,
        token, output_step, output, created_at, started_at, finished_at)
    SELECT nextval('flowstone.step_ids'), 'old' || mod(n, 100), 'noop', 's:' || mod(n, 10000), 'completed', 8,
        'backfill', 1, 3, n, currval('flowstone.step_ids'),
        '{"io": "postgres", "location": "inline:gone", "serializer": "json", "size_bytes": 4,
          "content_hash": null, "value_type": "builtins.NoneType", "metadata": {}}',
        now() - interval '200 days', now() - interval '199 days', now() - interval '199 days'
    FROM generate_series(1, %s) AS n
"""
_ATTEMPTS = """
    INSERT INTO flowstone.attempts (step_id, attempt, token, state, started_at, finished_at)
    SELECT id, 1, token, 'completed', started_at, finished_at FROM flowstone.steps WHERE run_id LIKE 'old%%'
"""
_JOBS = """
    INSERT INTO oban_jobs (state, queue, worker, completed_at)
    SELECT 'completed', 'backfill', 'gone', now() FROM generate_series(1, 300000)
"""


def rate(flow: FlowStone) -> float:
    """Return steps per second of one backfill, from call to return."""
    days = [FIRST + timedelta(days=n) for n in range(JOBS)]
    started = time.perf_counter()
    result = flow.backfill("noop", partitions=days, executor="oban", force=True)
    assert result.succeeded == JOBS, result
    return JOBS / (time.perf_counter() - started)


def fill(dsn: str) -> None:
    """Put a million steps of long ago into the tables."""
    with Database(dsn) as database, database.connection() as connection:
        connection.execute(_RUNS)
        connection.execute(_STEPS, [FINISHED])
        connection.execute(_ATTEMPTS, [])
        connection.execute(_JOBS)
        connection.execute("ANALYZE")


def main() -> None:
    """Print the figures."""
    with running_server() as server, server.database() as dsn:
        upgrade(Database(dsn))
        with app(dsn) as flow, workers("flowstone_worker", 1, dsn=dsn, queues={"backfill": 50}) as children:
            worker = psutil.Process(children[0].pid)
            rate(flow)
            before = worker.memory_info().rss
            empty = [rate(flow) for _ in range(ROUNDS)]
            grown = worker.memory_info().rss - before
            fill(dsn)
            full = [rate(flow) for _ in range(ROUNDS // 2)]
            started = time.perf_counter()
            pruned = flow.retention.prune(older_than=timedelta(days=90))
            pruning = pruned.steps / (time.perf_counter() - started)
    first, last = statistics.median(empty), statistics.median(full)
    print(f"worker memory over {ROUNDS * JOBS:,} steps: {before >> 20} MiB, grown by {grown / 2**20:+.1f} MiB")
    print(f"backfill, few steps: {first:,.0f}/s ({min(empty):,.0f} - {max(empty):,.0f})")
    print(f"backfill beside {FINISHED:,} finished: {last:,.0f}/s ({min(full):,.0f} - {max(full):,.0f})")
    print(f"ratio: {last / first:.2f} (aim: at least 0.85)")
    print(f"pruning: {pruning:,.0f} steps/s, {pruning / last:.1f} x the rate at which they come")


if __name__ == "__main__":
    main()
