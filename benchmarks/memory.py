"""How much memory a large value takes on its way to files or PostgreSQL and back: peaks, as multiples of its size.

Run with `python -m benchmarks.memory`; `--megabytes 1000` is what the aims are about. Each figure is of a fresh
process: the highest resident memory from before the value was there, less what the process had after its imports.
A value that is only there, untouched, is 1.0. Of a step in a process of its own (`--isolated`) it is the highest
sum of both processes, sampled from outside every few milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import numpy
import pandas
import polars
import pyarrow
import pyarrow.compute

from benchmarks.environments import HERE
from benchmarks.server import BUCKET, running_objects, running_server
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.io import FilesystemIO, MemoryIO, ObjectIO, PostgresIO
from flowstone.protocols import IOManager

AIM = 1.5
_MEGABYTE = 1_000_000
_STATUS = Path("/proc/self/status")
_ROW_BYTES = 340
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.002


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
    "JSON": lambda size: [
        {"id": n, "name": f"customer {n}", "amount": n * 1.25, "ok": n % 2 == 0, "note": None}
        for n in range(size // _ROW_BYTES)
    ],
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
    if isinstance(value, list):
        return sum(map(_size_of_row, value)) + sys.getsizeof(value)
    found: int = value.nbytes if hasattr(value, "nbytes") else sys.getsizeof(value)
    return found


def _size_of_row(row: dict[str, Any]) -> int:
    return (
        sys.getsizeof(row) + sys.getsizeof(row["id"]) + sys.getsizeof(row["name"]) + sys.getsizeof(row["amount"])
    )


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


def keys_of(endpoint: str) -> dict[str, str]:
    """Return how clients reach a server of objects."""
    return {"endpoint": endpoint, "access_key_id": "bench", "secret_access_key": "bench", "region": "us-east-1"}


@contextlib.contextmanager
def manager_of(place: str, name: str = "place") -> Iterator[IOManager]:
    """Return the IO manager of files in a directory, of a database, of a bucket, or of this process."""
    if place == "memory":
        yield MemoryIO(name=name)
        return
    if place.startswith("/"):
        yield FilesystemIO(place, durable=False, name=name)
        return
    if place.startswith("http:"):
        yield ObjectIO(f"s3://{BUCKET}/values", options=keys_of(place), name=name)
        return
    import psycopg

    with psycopg.connect(place, autocommit=True) as connection:
        yield PostgresIO(lambda: contextlib.nullcontext(connection), max_bytes=8_000_000_000, name=name)


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


def sampled(value: str, place: str, size: int, *, read: bool) -> float:
    """Run `benchmarks.isolated` and return the highest sum of its two processes, in sizes of the value."""
    given = json.dumps({"value": value, "place": place, "size": size, "read": read})
    command = [sys.executable, "-m", "benchmarks.isolated", given]
    base, peak, found = 0, 0, 1
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as run:
        printed: SimpleQueue[list[str]] = SimpleQueue()
        threading.Thread(target=_put_lines, args=(run.stdout, printed), daemon=True).start()
        while run.poll() is None:
            total = sum(map(resident_of, processes_of(run.pid)))
            peak = max(peak, total)
            match [] if printed.empty() else printed.get():
                case ["ready"]:
                    base = peak = total
                case ["made", count]:
                    peak, found = total, int(count)
                    base = peak - found  # what making it left behind is not the step's
                case ["read", count]:
                    found = int(count)
                case ["done"]:
                    break
            time.sleep(_SAMPLE_SECONDS)
    if run.returncode:
        raise RuntimeError(f"{value}: exit code {run.returncode}")
    return (peak - base) / found


def _put_lines(stream: IO[str], printed: SimpleQueue[list[str]]) -> None:
    for line in stream:
        printed.put(line.split())


def processes_of(pid: int) -> list[int]:
    """Return a process and its children."""
    with contextlib.suppress(OSError):
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return [pid]


def resident_of(pid: int) -> int:
    """Return the memory of a process, nothing when it is gone; shared memory is not used between them."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def rows(size: int, names: list[str], only: str | None, *, isolated: bool) -> Iterator[tuple[str, float]]:
    """Yield what was measured and the multiple of the value's size."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="flowstone-bench-"))
        server = stack.enter_context(running_server()) if only in (None, "PostgreSQL") else None
        endpoint = stack.enter_context(running_objects()) if only in (None, "objects") else ""
        for name in names:
            with contextlib.nullcontext("") if server is None else server.database() as dsn:
                if dsn:
                    upgraded = [sys.executable, "-m", "flowstone", "db", "upgrade", "--database", dsn]
                    subprocess.run(upgraded, check=True, capture_output=True)
                places = {"files": directory, "PostgreSQL": dsn, "objects": endpoint}
                if isolated:
                    places["memory"] = "memory"
                for label, place in places.items():
                    if only not in (None, label):
                        continue
                    if isolated:
                        yield f"{name}, {label}, returned", sampled(name, place, size, read=False)
                        yield f"{name}, {label}, read", sampled(name, place, size, read=True)
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
    parser.add_argument("--place", choices=("files", "PostgreSQL", "objects", "memory"), help="only there")
    parser.add_argument("--isolated", action="store_true", help="steps in processes of their own")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(json.loads(arguments.child))
        return
    print(f"| value, {arguments.megabytes} MB | peak / size | aim | met |\n| --- | ---: | ---: | --- |")
    size, names = arguments.megabytes * _MEGABYTE, arguments.value or list(VALUES)
    for label, ratio in rows(size, names, arguments.place, isolated=arguments.isolated):
        print(f"| {label} | {ratio:.2f} | {AIM} | {'yes' if ratio <= AIM else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
