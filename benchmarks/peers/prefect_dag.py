"""The shape `dag` in Prefect: one flow with its tasks on threads of this process, recorded in SQLite."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from benchmarks.peers.exchange import answer, options, repeat

ARGUMENTS = options()
ROWS = [{"id": n, "name": f"customer {n}", "amount": n * 1.25} for n in range(20)]
TASKS_A_DAY = 4


def main() -> None:
    """Print the seconds of one flow; the server is up before."""
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    @task(persist_result=True)
    def orders() -> Any:
        return ROWS

    @task(persist_result=True)
    def lines(orders: Any) -> Any:
        return orders

    @task(persist_result=True)
    def report(lines: Any) -> Any:
        return lines

    @task(persist_result=True)
    def trend(lines: Any) -> int:
        return len(lines)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=ARGUMENTS["limit"]))
    def backfill(days: int) -> int:
        read = [lines.submit(orders.submit()) for _ in range(days)]
        reports = [report.submit(one) for one in read]
        trends = [trend.submit(read[max(0, day - 2) : day + 1]) for day in range(days)]
        return sum(len(one.result()) for one in reports) + len([one.result() for one in trends])

    backfill(2)
    days = ARGUMENTS["jobs"] // TASKS_A_DAY

    def run(_: None) -> None:
        assert backfill(days) == days * (len(ROWS) + 1)

    answer(seconds=repeat(lambda: None, run, repetitions=1, warmups=0))


with tempfile.TemporaryDirectory(prefix="flowstone-bench-") as home:
    os.environ |= {
        "PREFECT_HOME": home,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
    }
    main()
