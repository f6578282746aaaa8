"""A chain of 50 assets through the durable executor, one idle worker."""

from __future__ import annotations

import time

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_durable_app import CHAIN_LENGTH, app
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade


def main() -> None:
    """Print the seconds of each chain."""
    arguments = options()
    upgrade(Database(arguments["dsn"]))
    last = f"c{CHAIN_LENGTH - 1}"
    seconds = []
    queues = {"assets": arguments["limit"]}
    with app(arguments["dsn"]) as flow, workers("flowstone_worker", 1, dsn=arguments["dsn"], queues=queues):
        for number in range(arguments["repetitions"] + 1):
            started = time.perf_counter()
            result = flow.materialize_all(last, executor="oban", force=True, force_deps=True)
            took = time.perf_counter() - started
            assert result.ok
            assert result.succeeded == CHAIN_LENGTH
            if number:
                seconds.append(took)
    answer(seconds=seconds)


main()
