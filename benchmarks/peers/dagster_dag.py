"""The shape `dag` in Dagster: `materialize` for each day in this process; recorded in SQLite, values in files."""

from __future__ import annotations

import logging
import tempfile
from datetime import date, timedelta
from typing import Any

from dagster import (
    AssetIn,
    DagsterInstance,
    DailyPartitionsDefinition,
    FilesystemIOManager,
    TimeWindowPartitionMapping,
    asset,
    materialize,
)

from benchmarks.peers.exchange import answer, options, repeat

FIRST = date(2020, 1, 1)
DAYS = DailyPartitionsDefinition(FIRST.isoformat())
ROWS = [{"id": n, "name": f"customer {n}", "amount": n * 1.25} for n in range(20)]


@asset(partitions_def=DAYS)
def orders() -> Any:
    """Return twenty rows."""
    return ROWS


@asset(partitions_def=DAYS)
def lines(orders: Any) -> Any:
    """Return what was read."""
    return orders


@asset(partitions_def=DAYS)
def report(lines: Any) -> Any:
    """Return what was read."""
    return lines


@asset(partitions_def=DAYS, ins={"lines": AssetIn(partition_mapping=TimeWindowPartitionMapping(start_offset=-2))})
def trend(lines: Any) -> int:
    """Read three days."""
    return len(lines)


def main() -> None:
    """Print the seconds of each repetition: all days, one after the other, the first ones before."""
    arguments = options()
    logging.disable(logging.CRITICAL)
    assets = [orders, lines, report, trend]
    keys = [(FIRST + timedelta(days=n)).isoformat() for n in range(2 + arguments["jobs"] // len(assets))]
    with tempfile.TemporaryDirectory(prefix="flowstone-bench-") as home:
        resources = {"io_manager": FilesystemIOManager(base_dir=home)}
        with DagsterInstance.local_temp(home) as instance:

            def run(some: list[str]) -> None:
                for key in some:
                    assert materialize(assets, partition_key=key, instance=instance, resources=resources).success

            run(keys[:2])
            seconds = repeat(lambda: keys[2:], run, repetitions=1, warmups=0)
    answer(seconds=seconds)


main()
