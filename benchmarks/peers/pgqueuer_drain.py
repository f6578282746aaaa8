"""PgQueuer draining no-op jobs that are there already: from the first worker's start to the last one's end."""

from __future__ import annotations

import asyncio
import time

import asyncpg
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from benchmarks.peers.children import drain, workers
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
        seconds = await asyncio.to_thread(drain, children)
    assert await connection.fetchval("SELECT count(*) FROM pgqueuer") == 0
    await connection.close()
    answer(seconds=[seconds], insert_seconds=[insert_seconds])


asyncio.run(main())
