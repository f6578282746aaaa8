"""Guards what was gained: a dozen cheap ratios beside those that are stored, with a warning where one has grown.

`python -m benchmarks.regression` takes about half a minute and needs no peer; `--write` stores what it measures.
Everything is processor time, ours and that of a yardstick taken in turn, so that neighbours of the machine change
little; that of durable steps is of client, worker and PostgreSQL together. A ratio counts as grown when it is a
third above the stored one. It warns and succeeds, for CI; with `--strict` it fails.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date, timedelta
from typing import Any

import pandas

from benchmarks.environments import HERE
from benchmarks.noise import Noise
from benchmarks.peers.children import workers
from benchmarks.peers.flowstone_dag_app import ASSETS, FIRST, dag
from benchmarks.peers.processor import cpu_seconds, server_process
from benchmarks.peers.shapes import ends_of, functions
from benchmarks.server import running_server
from benchmarks.values import rows
from flowstone import DailyPartitions, FlowStone, asset
from flowstone.io import JsonSerializer, ParquetSerializer, TextSerializer
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

STORED = HERE / "ratios.json"
TOLERANCE = 4 / 3
_ROUNDS = 5
_DAYS = 250

type Act = Callable[[], object]


def _loop() -> None:
    Noise().measure_loop()


def _json() -> Iterator[tuple[str, Act, Act, int]]:
    serializer = JsonSerializer()
    for number, repeat in ((20, 400), (20_000, 1)):
        value = rows(number)
        data = serializer.dumps(value)
        yield f"JSON, {number:,} rows, write / json.dumps", *_pair(serializer.dumps, _dumps, value), repeat
        yield f"JSON, {number:,} rows, read / json.loads", *_pair(_read(serializer), json.loads, data), repeat


def _tables() -> Iterator[tuple[str, Act, Act, int]]:
    frame = pandas.DataFrame(rows(100_000)).drop(columns="note")
    parquet, file = ParquetSerializer(), io.BytesIO()
    parquet.write(frame, file)
    data = file.getvalue()
    yield "pandas, 100,000 rows, write / pandas", lambda: parquet.write(frame, io.BytesIO()), frame.to_parquet, 1
    alone = _pair(_read(parquet), lambda data: pandas.read_parquet(io.BytesIO(data)), data)
    yield "pandas, 100,000 rows, read / pandas", *alone, 1
    text = b"flowstone " * 2_000_000
    yield "text, 20 MB, read / bytes.decode", *_pair(_read(TextSerializer()), bytes.decode, text), 5


def _inline() -> Iterator[tuple[str, Act, Act, int]]:
    assets = [asset(function) for function in functions("chain").values()]
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(100)]

    @asset(partitions=DailyPartitions("2024-01-01"))
    def part() -> int:
        return 1

    def partitions() -> None:
        flow = FlowStone.for_testing([part])
        for day in days:
            flow.materialize("part", partition=day)

    def chain() -> None:
        FlowStone.for_testing(assets).materialize_all(ends_of("chain"))

    yield "app and chain of 100, inline / loop of pure Python", chain, _loop, 3
    yield "app and 100 partitions one by one, inline / loop of pure Python", partitions, _loop, 3


def _processes(cache: str) -> Iterator[tuple[str, Act, Act, int]]:
    # with compiled modules, as a user has them, and without leaving any behind
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    clean |= {"PYTHONPYCACHEPREFIX": cache}

    def python(code: str, *arguments: str) -> Act:
        return lambda: subprocess.run(
            [sys.executable, "-c", code, *arguments], env=clean, check=True, capture_output=True
        )

    entry = "from flowstone.cli import main; main()"
    yield "flowstone --help / python -c pass", python(entry, "--help"), python("pass"), 1
    yield "flowstone init --help / python -c pass", python(entry, "init", "--help"), python("pass"), 1
    yield "import of an app / python -c pass", python("from flowstone import FlowStone"), python("pass"), 1


def _durable(others: list[int]) -> Iterator[tuple[str, Act, Act, int]]:
    """A backfill with edges and values on a worker of its own; `others` gets the processes that take part."""
    with ExitStack() as stack:
        storage = stack.enter_context(tempfile.TemporaryDirectory(prefix="flowstone-bench-"))
        dsn = stack.enter_context(stack.enter_context(running_server()).database())
        upgrade(Database(dsn))
        shape = {"dsn": dsn, "edges": True, "rows": 20, "io": "postgres", "storage": storage}
        flow = stack.enter_context(dag(**shape))
        queues = {"backfill": 50}
        started = stack.enter_context(workers("flowstone_dag_worker", 1, queues=queues, name="dag", **shape))
        others += [server_process(dsn), *(child.pid for child in started)]
        days = [FIRST + timedelta(days=number) for number in range(_DAYS)]

        def backfill() -> None:
            flow.backfill(list(ASSETS), partitions=days, executor="oban", force=True)

        yield f"{len(ASSETS) * _DAYS:,} durable steps of the shape `dag` / loop of pure Python", backfill, _loop, 1
        others.clear()


def _pair(ours: Callable[[Any], object], theirs: Callable[[Any], object], value: Any) -> tuple[Act, Act]:
    return lambda: ours(value), lambda: theirs(value)


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _read(serializer: Any) -> Callable[[bytes], object]:
    return lambda data: serializer.read(io.BytesIO(data))


def _processor_seconds(others: list[int]) -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + cpu_seconds(others)


def _seconds(act: Act, repeat: int, others: list[int]) -> float:
    started = _processor_seconds(others)
    for _ in range(repeat):
        act()
    return _processor_seconds(others) - started


def measure() -> dict[str, float]:
    """Return each ratio: the median of rounds in which both take turns, after one that does not count."""
    found: dict[str, float] = {}
    others: list[int] = []
    with tempfile.TemporaryDirectory(prefix="flowstone-bench-") as cache:
        for group in (_json(), _tables(), _inline(), _processes(cache), _durable(others)):
            for name, ours, theirs, repeat in group:
                turns = range(_ROUNDS + 1)
                pairs = [(_seconds(ours, repeat, others), _seconds(theirs, repeat, others)) for _ in turns][1:]
                found[name] = round(statistics.median(mine / other for mine, other in pairs), 2)
    return found


def grown(measured: dict[str, float], stored: dict[str, float]) -> list[str]:
    """Return the names of ratios that are above what is stored, by more than a third.

    Example:
        >>> grown({"a": 2.0, "b": 1.4, "new": 9.0}, {"a": 1.2, "b": 1.2})
        ['a']
    """
    return [name for name, ratio in measured.items() if name in stored and ratio > stored[name] * TOLERANCE]


def main() -> int:
    """Measure, print the table, warn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression", description=__doc__)
    parser.add_argument("--write", action="store_true", help="store what was measured")
    parser.add_argument("--strict", action="store_true", help="fail when a ratio has grown")
    arguments = parser.parse_args()
    stored: dict[str, float] = json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}
    measured = measure()
    print("| ours / theirs, processor time | measured | stored |\n| --- | ---: | ---: |")
    for name, ratio in measured.items():
        print(f"| {name} | {ratio:.2f} | {stored.get(name, '')} |")
    if arguments.write:
        STORED.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    slower = grown(measured, stored)
    for name in slower:
        print(f"WARNING: slower than it was: {name} is {measured[name]:.2f}, stored is {stored[name]:.2f}.")
    return 1 if slower and arguments.strict else 0


if __name__ == "__main__":
    sys.exit(main())
