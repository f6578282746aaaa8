"""The shapes `fan` and `wide` on workers: seconds, and the processor time of workers, PostgreSQL and client."""

from __future__ import annotations

import time

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_shapes_app import shape
from benchmarks.peers.processor import server_process, times
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade


def main() -> None:
    """Print the figures of each repetition after one that does not count; all steps are computed each time."""
    arguments = options()
    dsn, repetitions, limit = arguments["dsn"], arguments["repetitions"], arguments["limit"]
    given = {"name": arguments["shape"], "dsn": dsn} | arguments["app"]
    upgrade(Database(dsn))
    seconds = []
    with (
        shape(**given) as flow,
        workers("flowstone_dag_worker", arguments["workers"], queues={"backfill": limit}, **given) as children,
    ):
        servers = [server_process(dsn)]
        before = times(children, servers)
        for number in range(repetitions + 1):
            started = time.perf_counter()
            result = flow.backfill("*", executor="oban", force=True)
            took = time.perf_counter() - started
            assert result.succeeded == arguments["steps"], result
            if number:
                seconds.append(took)
            else:
                before = times(children, servers)
        used = [now - earlier for now, earlier in zip(times(children, servers), before, strict=True)]
    per_step = [round(one / arguments["steps"] / repetitions * 1e6) for one in used]
    answer(seconds=seconds, worker_us=per_step[0], postgres_us=per_step[1], client_us=per_step[2])


main()
