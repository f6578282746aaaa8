"""Stock Oban inserting no-op jobs with one `enqueue_many`, no worker running."""

from __future__ import annotations

import asyncio
import time

from oban import Oban
from oban.schema import install

from benchmarks.peers.exchange import answer, options
from benchmarks.peers.oban_jobs import Noop


async def main() -> None:
    """Print the seconds, making the job objects included."""
    arguments = options()
    pool = await Oban.create_pool(arguments["dsn"])
    await install(pool)
    oban = Oban(pool=pool)
    await oban.enqueue_many([Noop.new({"n": n}) for n in range(100)])
    started = time.perf_counter()
    await oban.enqueue_many([Noop.new({"n": n}) for n in range(arguments["jobs"])])
    seconds = time.perf_counter() - started
    await pool.close()
    answer(seconds=[seconds])


asyncio.run(main())
