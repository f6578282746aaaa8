"""A worker of the app that scatters, and that app."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.peers.exchange import options
from flowstone import DailyPartitions, FlowStone, Gathered, RetryPolicy, asset, scatter
from flowstone.app.worker import serve

FAILING = 50
"""One item in so many fails: 2 %."""

THRESHOLD = 0.05


@asset(retry=RetryPolicy(max_attempts=1))
def fetched(item: int) -> int:
    """Do next to nothing; one item in fifty fails."""
    if item % FAILING == 0:
        raise ValueError(f"item {item} is not there")
    return item


def app(dsn: str, items: int, width: int) -> FlowStone:
    """Return the app on a database; every partition of `pages` is a scatter of its own."""

    @scatter(each=fetched, max_concurrency=width, max_failures=THRESHOLD, partitions=DailyPartitions("2024-01-01"))
    def pages() -> Any:
        yield from range(items)

    @pages.gather
    def gathering(results: Gathered) -> dict[str, int]:
        previous, total = -1, 0
        for result in results:
            assert result.item > previous
            previous, total = result.item, total + result.value
        return {"total": results.total, "succeeded": len(results), "failed": results.failed, "sum": total}

    return FlowStone([pages], database_url=dsn)


def main() -> int:
    """Serve until SIGTERM."""
    arguments = options()
    flow = app(arguments["dsn"], arguments["items"], arguments["width"])
    return serve(flow, queues=arguments["queues"], on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(main())
