"""What it costs to keep a value: JSON beside `json`, two million rows beside their own library with fsync.

Run with `python -m benchmarks.values`; about a minute. Each line is a median of rounds in which both contestants
take turns; the ratios are those of one run.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet

from flowstone.core.output import OutputAddress
from flowstone.io import FilesystemIO, JsonSerializer

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


def beside(ours: Callable[[], Any], theirs: Callable[[], Any], *, repeat: int = 1) -> tuple[float, float, float]:
    """Return the median milliseconds of both and the median ratio, taken in turn."""
    pairs = []
    for _ in range(ROUNDS):
        pair = []
        for act in (ours, theirs):
            started = time.perf_counter()
            for _ in range(repeat):
                act()
            pair.append((time.perf_counter() - started) / repeat * 1000)
        pairs.append(pair)
    return (
        statistics.median(ours for ours, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(ours / theirs for ours, theirs in pairs),
    )


def show(what: str, figures: tuple[float, float, float], aim: float) -> None:
    """Print a line of the table."""
    ours, theirs, ratio = figures
    print(f"| {what} | {ours:,.3f} | {theirs:,.3f} | {ratio:.2f} | {aim} | {'yes' if ratio <= aim else 'no'} |")


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


def measure_tables() -> None:
    """Compare with the library of the table alone, writing to a synced file."""
    pandas_frame = frame()
    contestants: dict[str, tuple[Any, Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
        "pandas": (pandas_frame, pandas.DataFrame.to_parquet, pandas.read_parquet),
        "polars": (polars.from_pandas(pandas_frame), polars.DataFrame.write_parquet, polars.read_parquet),
        "Arrow": (
            pyarrow.Table.from_pandas(pandas_frame),
            pyarrow.parquet.write_table,
            pyarrow.parquet.read_table,
        ),
    }
    numbers = count(1)
    with tempfile.TemporaryDirectory(prefix="flowstone-bench-") as directory:
        manager = FilesystemIO(Path(directory, "ours"))
        for name, (table, write, read) in contestants.items():
            path = Path(directory, f"{name}.parquet")

            def alone(table: Any = table, write: Any = write, path: Path = path) -> None:
                with path.open("wb") as file:
                    write(table, file)
                    file.flush()
                    os.fsync(file.fileno())

            def store(table: Any = table) -> Any:
                number = next(numbers)
                return manager.store(table, OutputAddress("table", "", "run", number, attempt=1, token=number))

            show(f"{name}, {ROWS:,} rows, write", beside(store, alone), 1.3)
            stored = store()
            show(f"{name}, {ROWS:,} rows, read", beside(partial(manager.load, stored), partial(read, path)), 1.2)


def main() -> None:
    """Print the table."""
    print("| value | FlowStone, ms | alone, ms | ratio | aim | met |\n| --- | ---: | ---: | ---: | ---: | --- |")
    measure_json()
    measure_tables()


if __name__ == "__main__":
    main()
