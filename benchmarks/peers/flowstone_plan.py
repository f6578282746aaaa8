"""Planning and inserting a durable backfill in FlowStone, no worker running: seconds and growth of memory."""

from __future__ import annotations

import resource
import time
from datetime import timedelta

from benchmarks.peers.exchange import answer, options
from benchmarks.peers.flowstone_durable_app import FIRST, app
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade


def main() -> None:
    """Print the seconds until everything is placed, and by how much the peak of memory grew meanwhile."""
    arguments = options()
    upgrade(Database(arguments["dsn"]))
    days = [FIRST + timedelta(days=n) for n in range(arguments["jobs"] + 100)]
    with app(arguments["dsn"]) as flow:
        # a wait that is over at once: what is left is the placing
        at_once = {"wait_timeout": 0.001}
        flow.backfill("noop", partitions=days[:100], executor="oban", executor_opts=at_once)
        before = _peak_kib()
        started = time.perf_counter()
        result = flow.backfill("noop", partitions=days[100:], executor="oban", executor_opts=at_once)
        seconds = time.perf_counter() - started
        grown = _peak_kib() - before
        assert result.total == arguments["jobs"]
    answer(seconds=[seconds], grown_kib=grown)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


main()
