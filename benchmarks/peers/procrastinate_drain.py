"""Procrastinate draining no-op jobs that are there: from the first worker's start to the last one's end."""

from __future__ import annotations

import asyncio
import time

from benchmarks.peers.children import drain, workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.procrastinate_jobs import app

_LEFT = "SELECT count(*) AS left FROM procrastinate_jobs WHERE status <> 'succeeded'"


async def main() -> None:
    """Print the seconds of inserting in one batch and of draining."""
    arguments = options()
    async with app(arguments["dsn"]).open_async() as made:
        await made.schema_manager.apply_schema_async()
        started = time.perf_counter()
        await made.tasks["noop"].batch_defer_async(*({"n": n} for n in range(arguments["jobs"])))
        insert_seconds = time.perf_counter() - started
        await made.connector.execute_query_async("ANALYZE procrastinate_jobs")
        with workers(
            "procrastinate_worker", arguments["workers"], dsn=arguments["dsn"], limit=arguments["limit"]
        ) as children:
            seconds = await asyncio.to_thread(drain, children)
        left = await made.connector.execute_query_one_async(_LEFT)
        assert left["left"] == 0, left
    answer(seconds=[seconds], insert_seconds=[insert_seconds])


asyncio.run(main())
