"""A procrastinate worker that drains the queue once asked to, and prints when it began and ended."""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from benchmarks.peers.exchange import options
from benchmarks.peers.procrastinate_jobs import app


async def main() -> None:
    """Drain the queue; finished jobs stay in the table, as they do by default."""
    arguments = options()
    async with app(arguments["dsn"]).open_async() as made:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        started = time.monotonic()
        await made.run_worker_async(concurrency=arguments["limit"], wait=False, install_signal_handlers=False)
        print(started, time.monotonic(), flush=True)


uvloop.run(main())
