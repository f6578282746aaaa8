"""A stock Oban worker, on uvloop as its own command line runs it."""

from __future__ import annotations

import asyncio
import signal

import uvloop
from oban import Oban

from benchmarks.peers import oban_jobs  # noqa: F401 - registers the workers
from benchmarks.peers.exchange import options


async def main() -> None:
    """Serve until SIGTERM."""
    arguments = options()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    pool = await Oban.create_pool(arguments["dsn"])
    async with Oban(pool=pool, queues=arguments["queues"]):
        print("ready", flush=True)
        await stop.wait()
    await pool.close()


if __name__ == "__main__":
    uvloop.run(main())
