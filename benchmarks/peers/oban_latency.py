"""Stock Oban with an idle worker in another process: from `enqueue` to the start of the job."""

from __future__ import annotations

import asyncio
import time

from oban import Oban
from oban.schema import install

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.oban_jobs import Report

PAUSE_SECONDS = 0.02
"""Between a start and the next job: the worker has acknowledged and is idle again."""


async def main() -> None:
    """Print, for each repetition, the sum of the latencies of a number of jobs."""
    arguments = options()
    pool = await Oban.create_pool(arguments["dsn"])
    await install(pool)
    oban = Oban(pool=pool)
    await oban.start()
    sums = []
    with workers("oban_worker", 1, dsn=arguments["dsn"], queues={"latency": arguments["limit"]}) as children:
        reported = children[0].stdout
        assert reported is not None
        for number in range(arguments["repetitions"] + 1):
            total = 0.0
            for _ in range(arguments["length"]):
                await asyncio.sleep(PAUSE_SECONDS)
                started = time.monotonic_ns()
                await oban.enqueue(Report.new({}))
                total += (int(await asyncio.to_thread(reported.readline)) - started) / 1e9
            if number:
                sums.append(total)
    await oban.stop()
    await pool.close()
    answer(seconds=sums)


asyncio.run(main())
