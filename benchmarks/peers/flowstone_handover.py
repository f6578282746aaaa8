"""A chain that takes turns on two workers: from the end of a function to the start of the next one, elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import quantiles

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_durable_app import CHAIN_LENGTH, app
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

LAST = f"h{CHAIN_LENGTH - 1}"


def main() -> None:
    """Print the sum of the times of each chain, and how they spread."""
    arguments = options()
    upgrade(Database(arguments["dsn"]))
    seconds, single = [], []
    with app(arguments["dsn"]) as flow, ExitStack() as stack:
        for queue in ("left", "right"):
            queues = {queue: arguments["limit"]}
            stack.enter_context(workers("flowstone_worker", 1, dsn=arguments["dsn"], queues=queues))
        for number in range(arguments["repetitions"] + 1):
            assert flow.materialize_all(LAST, executor="oban", force=True, force_deps=True).ok
            took = flow.load(LAST)[0]
            assert len(took) == CHAIN_LENGTH - 1
            if number:
                # as many as the latencies that they are compared with
                seconds.append(sum(took) / len(took) * CHAIN_LENGTH)
                single += took
    p50, p95 = (round(quantiles(single, n=20)[at] * 1e3, 2) for at in (9, 18))
    answer(seconds=seconds, p50_ms=p50, p95_ms=p95)


main()
