"""Fan-out at run time: 100,000 items, 2 % of which fail, against a threshold of 5 %, on real workers.

Run with `python -m benchmarks.scatter`; takes a few minutes. `--items 2000` is quick. FlowStone alone: there is no
peer to compare. Memory is looked at before the first item and after the last one, in processes that have done
nothing before: what modules and caches take when they are first used is in the difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date

import psutil

from benchmarks.peers.children import workers
from benchmarks.peers.flowstone_scatter_worker import FAILING, THRESHOLD, app
from benchmarks.server import running_server
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

WIDTH = 500
WORKERS = 2
THREADS = 25
_DAY = date(2024, 1, 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Args:
        items: number of items.
        failed: how many of them failed.
        allowed: how many may fail.
        seconds: from the request to the gathered value.
        worker_bytes: memory of each worker before and after.
        client_bytes: memory of this process before and after.
    """

    items: int
    failed: int
    allowed: int
    seconds: float
    worker_bytes: list[tuple[int, int]]
    client_bytes: tuple[int, int]


def measure(dsn: str, items: int) -> Figures:
    """Scatter over real workers and gather.

    Args:
        dsn: an empty database.
        items: how many.
    """
    upgrade(Database(dsn))
    queues = {"assets": THREADS}
    given = {"dsn": dsn, "items": items, "width": WIDTH, "queues": queues}
    with app(dsn, items, WIDTH) as flow, workers("flowstone_scatter_worker", WORKERS, **given) as children:
        processes = [psutil.Process(child.pid) for child in children]
        flow.runs.latest()
        before = [process.memory_info().rss for process in processes]
        client = psutil.Process().memory_info().rss
        started = time.perf_counter()
        value = flow.materialize("pages", partition=_DAY, executor="oban").value
        took = time.perf_counter() - started
        after = [process.memory_info().rss for process in processes]
        client_after = psutil.Process().memory_info().rss
    failing = range(0, items, FAILING)
    expected = {"total": items, "failed": len(failing), "succeeded": items - len(failing)}
    assert value == expected | {"sum": sum(range(items)) - sum(failing)}, value
    allowed = int(items * THRESHOLD)
    memory = list(zip(before, after, strict=True))
    return Figures(items, value["failed"], allowed, took, memory, (client, client_after))


def table(found: Figures) -> str:
    """Return the figures as Markdown."""
    rows = [
        ["items", f"{found.items:,}"],
        ["items / s, discovering and gathering included", f"{found.items / found.seconds:,.0f}"],
        ["failed : allowed", f"{found.failed:,} : {found.allowed:,}"],
    ]
    for number, memory in enumerate(found.worker_bytes, 1):
        rows.append([f"memory of worker {number}, before and after", _mebibytes(memory)])
    rows.append(["memory of the client, before and after", _mebibytes(found.client_bytes)])
    return "\n".join(["| | |", "| --- | ---: |", *("| " + " | ".join(row) + " |" for row in rows)])


def _mebibytes(memory: Sequence[int]) -> str:
    return " MiB, ".join(f"{number / 2**20:,.0f}" for number in memory) + " MiB"


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="as JSON")
    arguments = parser.parse_args()
    with running_server() as server, server.database() as dsn:
        found = measure(dsn, arguments.items)
    print(json.dumps(asdict(found)) if arguments.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
