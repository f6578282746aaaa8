"""Stock Oban draining no-op jobs that are there already: from the first start to the last acknowledgement.

All workers are up before, with the queue paused; so neither their start nor the insertion counts.
"""

from __future__ import annotations

import asyncio
import time

from oban import Oban
from oban.schema import install

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.oban_jobs import QUEUE, Noop

WARM_UP = 200
_TIMEOUT_SECONDS = 120.0
_ALL_SO = "SELECT bool_and((meta ->> 'paused')::boolean = %s) FROM oban_producers"
_LEFT = "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'"
_SECONDS = "SELECT extract(epoch FROM max(completed_at) - min(attempted_at))::float8 FROM oban_jobs WHERE id > %s"


async def main() -> None:
    """Print the seconds of inserting with `enqueue_many` and of draining."""
    arguments = options()
    pool = await Oban.create_pool(arguments["dsn"])
    await install(pool)
    oban = Oban(pool=pool)
    await oban.start()
    queues = {QUEUE: {"limit": arguments["limit"], "paused": True}}
    with workers("oban_worker", arguments["workers"], dsn=arguments["dsn"], queues=queues):
        await oban.enqueue_many([Noop.new({"n": n}) for n in range(WARM_UP)])
        await _until_heard(pool, lambda: oban.resume_queue(QUEUE), paused=False)
        await _until_drained(pool)
        await _until_heard(pool, lambda: oban.pause_queue(QUEUE), paused=True)
        started = time.perf_counter()
        inserted = await oban.enqueue_many([Noop.new({"n": n}) for n in range(arguments["jobs"])])
        insert_seconds = time.perf_counter() - started
        async with pool.connection() as connection:
            await connection.execute("ANALYZE oban_jobs")
        await oban.resume_queue(QUEUE)
        await _until_drained(pool)
        first = (inserted[0].id or 0) - 1
        async with pool.connection() as connection:
            row = await (await connection.execute(_SECONDS, [first])).fetchone()
    await oban.stop()
    await pool.close()
    assert row is not None
    answer(seconds=[row[0]], insert_seconds=[insert_seconds])


async def _until_heard(pool, signal, *, paused: bool) -> None:
    """Signal until every worker obeys: one that has only just started may not listen yet."""
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        heard = False
        while not heard:
            await signal()
            await asyncio.sleep(0.2)
            async with pool.connection() as connection:
                row = await (await connection.execute(_ALL_SO, [paused])).fetchone()
            heard = bool(row and row[0])


async def _until_drained(pool) -> None:
    left = 1
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        while left:
            await asyncio.sleep(0.25)
            async with pool.connection() as connection:
                row = await (await connection.execute(_LEFT)).fetchone()
            left = row[0] if row else 0


asyncio.run(main())
