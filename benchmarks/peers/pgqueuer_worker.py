"""A PgQueuer worker that drains the queue once asked to, and prints when it began and ended."""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.types import QueueExecutionMode

from benchmarks.peers.exchange import options


async def main() -> None:
    """Drain the queue."""
    arguments = options()
    pool = await asyncpg.create_pool(arguments["dsn"], min_size=2)
    queuer = PgQueuer.from_asyncpg_pool(pool)

    @queuer.entrypoint("noop")
    async def noop(job: object) -> None:
        """Do nothing."""

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    started = time.monotonic()
    await queuer.qm.run(
        batch_size=arguments["limit"], max_concurrent_tasks=2 * arguments["limit"], mode=QueueExecutionMode.drain
    )
    print(started, time.monotonic(), flush=True)
    await pool.close()


uvloop.run(main())
