"""What a caller waits for on an idle worker: one step, and a step that goes on after its approval."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers.children import workers
from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_durable_app import app
from flowstone import FlowStone
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

PAUSE_SECONDS = 0.02
"""Before each: the worker has committed and is idle again."""


def main() -> None:
    """Print the sum of the times of each repetition."""
    arguments = options()
    upgrade(Database(arguments["dsn"]))
    measure = approved if arguments["approval"] else one_step
    seconds = []
    queues = {"assets": 10}
    with app(arguments["dsn"]) as flow, workers("flowstone_worker", 1, dsn=arguments["dsn"], queues=queues):
        for number in range(arguments["repetitions"] + 1):
            took = sum(measure(flow) for _ in range(arguments["length"]))
            if number:
                seconds.append(took)
    answer(seconds=seconds)


def one_step(flow: FlowStone) -> float:
    """Return the seconds from the call to the value."""
    time.sleep(PAUSE_SECONDS)
    started = time.perf_counter()
    assert flow.materialize("c0", executor="oban", force=True).value == 1
    return time.perf_counter() - started


def approved(flow: FlowStone) -> float:
    """Return the seconds from the approval to the value, for a caller that waits for it."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: flow.materialize("approved", executor="oban", force=True).value)
        while not (pending := flow.approvals.list()):
            time.sleep(PAUSE_SECONDS)
        time.sleep(PAUSE_SECONDS)
        started = time.perf_counter()
        flow.approvals.approve(pending[0].id, by="ann")
        assert waiting.result() == 1
        return time.perf_counter() - started


main()
