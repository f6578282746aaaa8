"""The machine's own unsteadiness, measured between the measurements: ratios smaller than it mean nothing."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

_LOOP_STEPS = 400_000
_QUERIES = 100


@dataclass(slots=True)
class Noise:
    """Two controls that no contestant can influence.

    Args:
        loop: seconds of a fixed loop of pure Python, each time it was measured.
        select: seconds of `SELECT 1` on an open connection, the median of 100 each time.
    """

    loop: list[float] = field(default_factory=list)
    select: list[float] = field(default_factory=list)

    def measure_loop(self) -> None:
        """Run the loop once."""
        started = time.perf_counter()
        total = 0
        for number in range(_LOOP_STEPS):
            total += number * number % 7
        self.loop.append(time.perf_counter() - started)

    def measure_select(self, dsn: str) -> None:
        """Ask the server."""
        import psycopg

        took = []
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(_QUERIES):
                started = time.perf_counter()
                connection.execute("SELECT 1")
                took.append(time.perf_counter() - started)
        self.select.append(statistics.median(took))
