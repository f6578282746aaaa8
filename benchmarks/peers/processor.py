"""Processor time of processes of this machine: workers, PostgreSQL, and whoever measures."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from flowstone.stores.postgres.database import Database


def times(children: list[subprocess.Popen[str]], servers: list[int]) -> tuple[float, float, float]:
    """Return the processor time so far of the workers, of PostgreSQL and of this process, in seconds."""
    return cpu_seconds(child.pid for child in children), cpu_seconds(servers), time.process_time()


def server_process(dsn: str) -> int:
    """Return the first process of the server, which runs on this machine."""
    with Database(dsn) as database, database.connection() as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        postmaster = psutil.Process(row[0]).parent()
    assert postmaster is not None
    return postmaster.pid


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time so far of some processes and their children, those that ended included."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # its time is its parent's now
                total += sum(one.cpu_times()[:4])
    return total
