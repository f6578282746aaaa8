"""What it costs to keep a value: JSON beside `json`, two million rows beside their own library in the same place.

Run with `python -m benchmarks.values`; some minutes. Both contestants take turns. Times are processor time of this
process, the least of the rounds; what a server or the disk takes shows in the ratio of wall time alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy
import obstore
import obstore.store
import pandas
import polars
import psycopg
import pyarrow
import pyarrow.parquet

from benchmarks.memory import keys_of, manager_of
from benchmarks.server import BUCKET, running_objects, running_server
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import NO_PARTITION
from flowstone.io import FilesystemIO, JsonSerializer
from flowstone.protocols import IOManager

ROUNDS = 7
ROWS = 2_000_000


def rows(number: int) -> list[dict[str, Any]]:
    """Return rows as an API sends them."""
    return [
        {"id": n, "name": f"customer {n}", "amount": n * 1.25, "ok": n % 2 == 0, "note": None}
        for n in range(number)
    ]


def frame() -> pandas.DataFrame:
    """Return two million rows of numbers, times and texts."""
    random = numpy.random.default_rng(1)
    return pandas.DataFrame(
        {
            "id": numpy.arange(ROWS),
            "amount": random.normal(size=ROWS),
            "shop": random.choice(["north", "south", "east", "west"], ROWS),
            "when": pandas.Timestamp("2024-01-01")
            + pandas.to_timedelta(random.integers(0, 10**7, ROWS), unit="s"),
            "name": pandas.Series(random.integers(0, 10**6, ROWS)).map("customer {}".format),
        }
    )


class Figures(NamedTuple):
    """What both contestants took for one value, in milliseconds of processor time: the least of the rounds."""

    ours: float
    theirs: float
    wall: float
    """Ours by theirs, the median of the rounds."""


def beside(ours: Callable[[], Any], theirs: Callable[[], Any], *, repeat: int = 1) -> Figures:
    """Measure both in turn, the order reversed every other round."""
    took: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    for number in range(ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            act = (ours, theirs)[which]
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                act()
            processor, wall = time.process_time() - processor, time.perf_counter() - wall
            took[which].append((processor / repeat * 1000, wall / repeat * 1000))
    least = [min(processor for processor, _ in took[which]) for which in (0, 1)]
    walls = [one / other for (_, one), (_, other) in zip(took[0], took[1], strict=True)]
    return Figures(least[0], least[1], statistics.median(walls))


def show(what: str, figures: Figures, aim: float) -> None:
    """Print a line of the table."""
    ours, theirs, wall = figures
    ratio = ours / theirs
    met = "yes" if ratio <= aim else "no"
    print(f"| {what} | {ours:,.3f} | {theirs:,.3f} | {ratio:.2f} | {wall:.2f} | {aim} | {met} |", flush=True)


def measure_json() -> None:
    """Compare with `json.dumps` and `json.loads`."""
    serializer = JsonSerializer()
    nested = [{"a": [1, 2, {"b": [n] * 5}], "c": {"x": 1.5, "y": "z"}} for n in range(200)]
    shapes = {"20 rows": (rows(20), 500), "50,000 rows": (rows(50_000), 1), "200 nested documents": (nested, 50)}
    for name, (value, repeat) in shapes.items():
        data = serializer.dumps(value)
        written = beside(
            partial(serializer.dumps, value), lambda value=value: json.dumps(value).encode(), repeat=repeat
        )
        show(f"JSON, {name}, write", written, 1.5)
        read = beside(
            lambda data=data: serializer.read(io.BytesIO(data)), partial(json.loads, data), repeat=repeat
        )
        show(f"JSON, {name}, read", read, 1.2)


class Table(NamedTuple):
    """A table, and how its own library writes it to a file and reads it from one."""

    value: Any
    write: Callable[[Any, Any], Any]
    read: Callable[[Any], Any]


class Alone(Protocol):
    """What a user writes by hand to keep a table in a place, with a checksum."""

    def store(self, table: Table) -> None:
        """Write it, and keep its SHA-256."""

    def load(self, table: Table) -> Any:
        """Verify and read it."""


class FilesAlone:
    """A synced file, hashed as it lies on the disk."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "alone.parquet"
        self._digest = b""

    def store(self, table: Table) -> None:
        with self._path.open("w+b") as file:
            table.write(table.value, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            self._digest = hashlib.file_digest(file, "sha256").digest()

    def load(self, table: Table) -> Any:
        with self._path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == self._digest
        return table.read(self._path)


class BytesAlone:
    """Bytes in memory, hashed, and given to whatever keeps them."""

    def __init__(self, put: Callable[[memoryview], object], get: Callable[[], Any]) -> None:
        self._put, self._get = put, get
        self._digest = b""

    def store(self, table: Table) -> None:
        file = io.BytesIO()
        table.write(table.value, file)
        self._digest = hashlib.sha256(file.getbuffer()).digest()
        self._put(file.getbuffer())

    def load(self, table: Table) -> Any:
        data = self._get()
        assert hashlib.sha256(data).digest() == self._digest
        return table.read(io.BytesIO(data))


@contextmanager
def places(only: str | None) -> Iterator[dict[str, tuple[IOManager, Alone]]]:
    """Yield an IO manager and what is done by hand, for files, PostgreSQL and a bucket."""
    with ExitStack() as stack:
        found: dict[str, tuple[IOManager, Alone]] = {}
        if only in (None, "files"):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowstone-bench-")))
            found["files"] = FilesystemIO(directory / "ours"), FilesAlone(directory)
        if only in (None, "PostgreSQL"):
            dsn = stack.enter_context(stack.enter_context(running_server()).database())
            upgraded = [sys.executable, "-m", "flowstone", "db", "upgrade", "--database", dsn]
            subprocess.run(upgraded, check=True, capture_output=True)
            found["PostgreSQL"] = stack.enter_context(manager_of(dsn)), _postgres_alone(stack, dsn)
        if only in (None, "objects"):
            endpoint = stack.enter_context(running_objects())
            found["objects"] = stack.enter_context(manager_of(endpoint)), _objects_alone(endpoint)
        yield found


def _postgres_alone(stack: ExitStack, dsn: str) -> Alone:
    connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
    connection.execute("CREATE TABLE alone (id int PRIMARY KEY, data bytea)")
    keep = "INSERT INTO alone VALUES (1, %b) ON CONFLICT (id) DO UPDATE SET data = excluded.data"

    def get() -> Any:
        row = connection.execute("SELECT data FROM alone", binary=True).fetchone()
        assert row is not None
        return row[0]

    return BytesAlone(lambda data: connection.execute(keep, [data]), get)


def _objects_alone(endpoint: str) -> Alone:
    store = obstore.store.from_url(f"s3://{BUCKET}", config=keys_of(endpoint), client_options={"allow_http": True})
    return BytesAlone(
        lambda data: obstore.put(store, "alone", bytes(data), use_multipart=False),
        lambda: memoryview(obstore.get(store, "alone").bytes()),
    )


def measure_tables(place: str | None) -> None:
    """Compare with the library of the table alone, writing to the same place."""
    pandas_frame = frame()
    tables = {
        "pandas": Table(pandas_frame, pandas.DataFrame.to_parquet, pandas.read_parquet),
        "polars": Table(polars.from_pandas(pandas_frame), polars.DataFrame.write_parquet, polars.read_parquet),
        "Arrow": Table(
            pyarrow.Table.from_pandas(pandas_frame), pyarrow.parquet.write_table, pyarrow.parquet.read_table
        ),
    }
    numbers = count(1)
    with places(place) as found:
        for where, (manager, alone) in found.items():
            for name, table in tables.items():

                def store(manager: IOManager = manager, table: Table = table) -> StoredOutput:
                    number = next(numbers)
                    address = OutputAddress("table", NO_PARTITION, "run", number, attempt=1, token=number)
                    return manager.store(table.value, address)

                what = f"{name}, {ROWS:,} rows, {where}"
                show(f"{what}, write", beside(store, partial(alone.store, table)), 1.3)
                show(f"{what}, read", beside(partial(manager.load, store()), partial(alone.load, table)), 1.2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.values", description=__doc__)
    parser.add_argument("--only", choices=("JSON", "files", "PostgreSQL", "objects"), help="only this part")
    only = parser.parse_args().only
    print("| value | FlowStone, processor ms | alone | ratio | ratio of wall time | aim | met |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    if only in (None, "JSON"):
        measure_json()
    if only != "JSON":
        measure_tables(only)


if __name__ == "__main__":
    main()
