"""Durable backfill in FlowStone: from the call to its return, with everything in between."""

from __future__ import annotations

import time
from datetime import timedelta

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_durable_app import FIRST, app
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

WARM_UP = 200


def main() -> None:
    """Print the seconds of one backfill."""
    arguments = options()
    upgrade(Database(arguments["dsn"]))
    days = [FIRST + timedelta(days=n) for n in range(arguments["jobs"] + WARM_UP)]
    queues = {"backfill": arguments["limit"]}
    with (
        app(arguments["dsn"]) as flow,
        workers("flowstone_worker", arguments["workers"], dsn=arguments["dsn"], queues=queues),
    ):
        assert flow.backfill("noop", partitions=days[:WARM_UP], executor="oban").ok
        started = time.perf_counter()
        result = flow.backfill("noop", partitions=days[WARM_UP:], executor="oban")
        seconds = time.perf_counter() - started
        assert result.ok
        assert result.succeeded == arguments["jobs"], result
    answer(seconds=[seconds])


main()
