"""Every page of the dashboard on a million steps: time on the server, size, statements; what watching costs.

Run with `python -m benchmarks.pages`; takes about three minutes. `--small` is scale S: to see that it works;
`--large` has ten million steps and needs a quarter of an hour more, and 11 GB.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from tests.browser.harness import serving
from tests.scale.app import L, M, S, make_flow
from tests.scale.history import fill
from tests.scale.measure import addresses, dashboard_of, measure, recorded, whole_reads

from benchmarks.server import running_server
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

VIEWERS = 10
IDLE_SECONDS = 10.0


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--small", action="store_true", help="scale S: to see that everything works")
    parser.add_argument("--large", action="store_true", help="scale L: ten million steps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    scale = S if arguments.small else L if arguments.large else M
    with running_server() as server, server.database() as dsn, TemporaryDirectory() as storage:
        upgrade(Database(dsn))
        began = time.perf_counter()
        fill(dsn, scale)
        print(f"scale {scale.name} in {time.perf_counter() - began:.1f} s\n", flush=True)
        with make_flow(scale, dsn, storage) as flow, dashboard_of(flow) as (dashboard, client):
            print("| page | server ms, p95 | budget | kB | statements | elements | big tables read whole |")
            print("|---|---|---|---|---|---|---|")
            rows = []
            for address in addresses(scale):
                found = measure(dashboard, client, address, dsn, times=20)
                if found is None:
                    continue
                whole = whole_reads(dsn, found.statements)
                ms, _ = found.budget
                rows.append({"page": address, "ms": found.ms, "kb": found.kb, "statements": len(found.statements),
                             "elements": found.elements, "baseline_ms": found.baseline})  # fmt: skip
                print(f"| `{address}` | {found.ms:.1f} | {ms:.0f} | {found.kb:.1f} | {len(found.statements)} | "
                      f"{found.elements} | {'; '.join(whole) or 'none'} |", flush=True)  # fmt: skip
            with serving(dashboard) as served:
                per_second, questions = idle(served)
            print(
                f"\n{VIEWERS} idle viewers: {per_second:.1f} ms of PostgreSQL a second, {questions:.1f} statements"
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"pages": rows, "idle_ms": per_second}, indent=1), encoding="utf-8")


def idle(address: str) -> tuple[float, float]:
    """Return milliseconds and statements a second that viewers cost who watch a page on which nothing happens."""
    with watching(address), recorded() as statements:
        time.sleep(IDLE_SECONDS)
        found = list(statements)
    return sum(one.seconds for one in found) * 1000 / IDLE_SECONDS, len(found) / IDLE_SECONDS


@contextmanager
def watching(address: str) -> Iterator[None]:
    """Open the stream of changes once for each viewer."""
    end = threading.Event()

    def watch() -> None:
        with httpx.Client(timeout=None) as client, client.stream("GET", f"{address}/live") as stream:
            assert stream.status_code == 200
            for _ in stream.iter_lines():
                if end.is_set():
                    return

    viewers = [threading.Thread(target=watch, daemon=True) for _ in range(VIEWERS)]
    for one in viewers:
        one.start()
    time.sleep(2.0)
    try:
        yield
    finally:
        end.set()
        for one in viewers:
            one.join(timeout=6.0)


if __name__ == "__main__":
    main()
