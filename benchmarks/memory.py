"""How much memory a large value takes on its way to files or PostgreSQL and back: peaks, as multiples of its size.

Run with `python -m benchmarks.memory`; `--megabytes 1000` is what the aims are about. Each figure is of a fresh
process: the highest resident memory from before the value was there, less what the process had after its imports.
A value that is only there, untouched, is 1.0.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pyarrow.compute

from benchmarks.environments import HERE
from benchmarks.server import running_server
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.io import FilesystemIO, PostgresIO
from flowstone.protocols import IOManager

AIM = 1.5
_MEGABYTE = 1_000_000
_STATUS = Path("/proc/self/status")


def numbers(size: int) -> pandas.DataFrame:
    """Return eight columns of numbers."""
    random = numpy.random.default_rng(1)
    return pandas.DataFrame({f"n{column}": random.normal(size=size // 64) for column in range(8)})


def mixed(size: int) -> pandas.DataFrame:
    """Return numbers, times, a few texts and many."""
    count = size // 60
    random = numpy.random.default_rng(1)
    return pandas.DataFrame(
        {
            "id": numpy.arange(count),
            "amount": random.normal(size=count),
            "shop": random.choice(["north", "south", "east", "west"], count),
            "when": pandas.Timestamp("2024-01-01")
            + pandas.to_timedelta(random.integers(0, 10**7, count), unit="s"),
            "name": pandas.Series(random.integers(0, 10**6, count)).map("customer {}".format),
        }
    )


def polars_mixed(size: int) -> polars.DataFrame:
    """Return the same with polars."""
    count = size // 60
    random = numpy.random.default_rng(1)
    shops, start = numpy.array(["north", "south", "east", "west"]), numpy.datetime64("2024-01-01", "us")
    return polars.DataFrame(
        {
            "id": numpy.arange(count),
            "amount": random.normal(size=count),
            "shop": polars.Series(shops[random.integers(0, 4, count)]),
            "when": start + random.integers(0, 10**7, count).astype("timedelta64[s]"),
        }
    ).with_columns(name=polars.format("customer {}", polars.Series(random.integers(0, 10**6, count))))


def arrow_mixed(size: int) -> pyarrow.Table:
    """Return the same with Arrow."""
    count = size // 60
    random = numpy.random.default_rng(1)
    names = pyarrow.array(random.integers(0, 10**6, count)).cast(pyarrow.string())
    shops = pyarrow.array(["north", "south", "east", "west"])
    return pyarrow.table(
        {
            "id": numpy.arange(count),
            "amount": random.normal(size=count),
            "shop": shops.take(pyarrow.array(random.integers(0, 4, count))),
            "when": pyarrow.array(random.integers(0, 10**13, count)).cast(pyarrow.timestamp("us")),
            "name": pyarrow.compute.binary_join_element_wise("customer", names, " "),
        }
    )


VALUES: dict[str, Callable[[int], Any]] = {
    "bytes": lambda size: b"flowstone " * (size // 10),
    "text": lambda size: "flowstone " * (size // 10),
    "NumPy": lambda size: numpy.random.default_rng(1).normal(size=size // 8),
    "pandas, numbers": numbers,
    "pandas, mixed": mixed,
    "polars, mixed": polars_mixed,
    "Arrow, mixed": arrow_mixed,
}


def size_of(value: Any) -> int:
    """Return the bytes that a value takes in memory."""
    if isinstance(value, pandas.DataFrame):
        return int(value.memory_usage(deep=True).sum())
    if isinstance(value, polars.DataFrame):
        return int(value.estimated_size())
    found: int = value.nbytes if hasattr(value, "nbytes") else sys.getsizeof(value)
    return found


def resident(field: str = "VmRSS") -> int:
    """Return the memory of this process, or `VmHWM`, the highest since `forget_peak`."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Begin to measure the highest memory anew; what libraries keep of what is free goes back first."""
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def manager_of(place: str) -> Iterator[IOManager]:
    """Return the IO manager of files in a directory, or of a database."""
    if place.startswith("/"):
        yield FilesystemIO(place, durable=False)
        return
    import psycopg

    with psycopg.connect(place, autocommit=True) as connection:
        yield PostgresIO(lambda: contextlib.nullcontext(connection), max_bytes=8_000_000_000)


def child(arguments: dict[str, Any]) -> None:
    """Store or load one value and print what it took."""
    make, size = VALUES[arguments["value"]], arguments["size"]
    address = OutputAddress("value", "", "run", 1, attempt=1, token=1)
    warm_up = OutputAddress("value", "", "run", 2, attempt=1, token=2)
    with manager_of(arguments["place"]) as manager:
        manager.load(manager.store(make(1_000_000), warm_up))  # imports and pools are not the value's
        forget_peak()
        before = resident()
        if arguments["stored"] is None:
            value = make(size)
            forget_peak()
            before = resident() - size_of(value)  # what making it left behind is not the store's
            stored = manager.store(value, address)
        else:
            stored = StoredOutput.from_json(arguments["stored"])
            value = manager.load(stored)
        peak = resident("VmHWM") - before
        print(json.dumps({"peak": peak, "size": size_of(value), "stored": stored.to_json()}))


def measure(value: str, place: str, size: int, stored: Any = None) -> dict[str, Any]:
    """Run `child` in a process of its own."""
    arguments = {"value": value, "place": place, "size": size, "stored": stored}
    command = [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, check=False)
    if done.returncode:
        raise RuntimeError(f"{value}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(size: int, names: list[str], only: str | None) -> Iterator[tuple[str, float]]:
    """Yield what was measured and the multiple of the value's size."""
    with tempfile.TemporaryDirectory(prefix="flowstone-bench-") as directory, running_server() as server:
        for name in names:
            with server.database() as dsn:
                upgraded = [sys.executable, "-m", "flowstone", "db", "upgrade", "--database", dsn]
                subprocess.run(upgraded, check=True, capture_output=True)
                for label, place in (("files", directory), ("PostgreSQL", dsn)):
                    if only not in (None, label):
                        continue
                    written = measure(name, place, size)
                    yield f"{name}, {label}, store", written["peak"] / written["size"]
                    read = measure(name, place, size, written["stored"])
                    yield f"{name}, {label}, load", read["peak"] / read["size"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="size of each value")
    parser.add_argument("--value", action="append", choices=list(VALUES), help="only this one")
    parser.add_argument("--place", choices=("files", "PostgreSQL"), help="only there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(json.loads(arguments.child))
        return
    print(f"| value, {arguments.megabytes} MB | peak / size | aim | met |\n| --- | ---: | ---: | --- |")
    for label, ratio in rows(arguments.megabytes * _MEGABYTE, arguments.value or list(VALUES), arguments.place):
        print(f"| {label} | {ratio:.2f} | {AIM} | {'yes' if ratio <= AIM else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
