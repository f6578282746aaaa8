"""The shape `dag` as a durable backfill: seconds, and the processor time of workers, PostgreSQL and client."""

from __future__ import annotations

import tempfile
import time
from datetime import timedelta

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_dag_app import ASSETS, FIRST, dag
from benchmarks.peers.processor import server_process, times
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

WARM_UP_DAYS = 50


def main() -> None:
    """Print the figures of one backfill."""
    arguments = options()
    dsn, days = arguments["dsn"], arguments["jobs"] // len(ASSETS)
    upgrade(Database(dsn))
    every = [FIRST + timedelta(days=n) for n in range(WARM_UP_DAYS + days)]
    queues = {"backfill": arguments["limit"]}
    with tempfile.TemporaryDirectory(prefix="flowstone-bench-") as storage:
        shape = {name: arguments[name] for name in ("edges", "rows", "io")} | {"dsn": dsn, "storage": storage}
        with (
            dag(**shape) as flow,
            workers("flowstone_dag_worker", arguments["workers"], queues=queues, name="dag", **shape) as children,
        ):
            assert flow.backfill(list(ASSETS), partitions=every[:WARM_UP_DAYS], executor="oban").ok
            servers = [server_process(dsn)]
            before = times(children, servers)
            started = time.perf_counter()
            result = flow.backfill(list(ASSETS), partitions=every[WARM_UP_DAYS:], executor="oban")
            seconds = time.perf_counter() - started
            used = [now - earlier for now, earlier in zip(times(children, servers), before, strict=True)]
            assert result.succeeded == days * len(ASSETS), result
    per_step = [round(one / arguments["jobs"] * 1e6) for one in used]
    answer(seconds=[seconds], worker_us=per_step[0], postgres_us=per_step[1], client_us=per_step[2])


main()
