"""PgQueuer draining no-op jobs that are there already: from the first worker's start to the last one's end."""

from __future__ import annotations

import asyncio
import time

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options


async def main() -> None:
    """Print the seconds of inserting in one batch and of draining."""
    arguments = options()
    connection = await asyncpg.connect(arguments["dsn"])
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    jobs = arguments["jobs"]
    started = time.perf_counter()
    await queries.enqueue(["noop"] * jobs, [None] * jobs, [0] * jobs)
    insert_seconds = time.perf_counter() - started
    await connection.execute("ANALYZE pgqueuer")
    with workers(
        "pgqueuer_worker", arguments["workers"], dsn=arguments["dsn"], limit=arguments["limit"]
    ) as children:
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        spans = [_span(await asyncio.to_thread(child.stdout.readline)) for child in children]
    assert await connection.fetchval("SELECT count(*) FROM pgqueuer") == 0
    await connection.close()
    answer(
        seconds=[max(end for _, end in spans) - min(start for start, _ in spans)], insert_seconds=[insert_seconds]
    )


def _span(line: str) -> tuple[float, float]:
    start, end = line.split()
    return float(start), float(end)


asyncio.run(main())
