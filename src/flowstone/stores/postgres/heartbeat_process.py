"""The process that renews a lease: started by `Heartbeat`, run as a file, so that it loads nothing of FlowStone.

It lives apart from the process that it speaks for, because user code can hold that one's interpreter lock for
minutes. It falls silent when the other is stopped (SIGSTOP), and ends when the other ends: its standard input
is a pipe that nobody else holds.

A worker takes nothing before the first beat. A program that drives its own runs does not wait for it: it has just
registered the lease, so the first beat comes after a pause. Most programs are over before; until then this process
loads next to nothing, which is why modules are imported where they are used.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # that of `typing`, which takes as long to load as all the rest
if TYPE_CHECKING:
    from typing import Any

_LOADING_SECONDS = 1.0
"""How long before the first beat is due the driver is loaded, on a busy machine too."""
_LAST_TRIES = 3
_LAST_PAUSE_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_PRIORITY = -5


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal or a debugger; False where that cannot be known."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as stat:  # noqa: PTH123 - pathlib takes long to load
            state = stat.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")


class HungError(Exception):
    """The database did not answer for so long that another connection is worth a try."""


class RetryFor:
    """Raises HungError in its block when it takes longer: a network may swallow a connection without a word."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _hung(*_: object) -> None:
    raise HungError


def say(what: object) -> None:
    """Send a line to the other process; never waits for it, which may not listen for hours, and be gone."""
    try:  # noqa: SIM105 - contextlib takes long to load
        os.write(sys.stdout.fileno(), f"{what}\n".encode())
    except OSError:
        pass


def beat(connection: Any, orders: dict[str, Any]) -> Any:
    """Renew the lease once and return the connection for the next time, or None when it is broken.

    The other process learns since when the lease lasts, by the clock that both share, or that it is lost.
    """
    import psycopg

    began = time.monotonic()
    try:
        with RetryFor(orders["retry_seconds"]):
            if connection is None or connection.closed:
                connection = psycopg.connect(**orders["connect"], autocommit=True)
            renewed = connection.execute(orders["sql"], {"id": orders["worker_id"]}).fetchone()
        say(began if renewed else "lost")
    except (psycopg.Error, HungError):
        if connection is not None:
            connection.close()
        return None
    return connection


def last_words(connection: Any, orders: dict[str, Any]) -> None:
    """Record that the other process has died, and which attempts it had not started.

    When the database does not answer, the lease runs out instead.
    """
    import mmap
    import struct

    import psycopg

    unstarted: list[int] = []
    if orders["board"] is not None:
        with mmap.mmap(orders["board"], 0, prot=mmap.PROT_READ) as board:
            unstarted = [token for (token,) in struct.iter_unpack("=q", board[:]) if token]
    for _ in range(_LAST_TRIES):
        try:
            with RetryFor(orders["retry_seconds"]):
                if connection is None or connection.closed:
                    connection = psycopg.connect(**orders["connect"], autocommit=True)
                connection.execute(orders["last_words"], {"id": orders["worker_id"], "unstarted": unstarted})
            return
        except (psycopg.Error, HungError):
            connection = None
            time.sleep(_LAST_PAUSE_SECONDS)


def main(beat_seconds: float, pause_seconds: float) -> None:
    """Read orders from the first line of standard input, then beat until it closes.

    An orderly end is announced by a word on standard input before it closes; without it, the other process died.

    Args:
        beat_seconds: how often the lease is renewed.
        pause_seconds: when the first time is due.
    """
    # a Ctrl-C or a stop is meant for the worker, which needs its lease until it is done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _hung)
    # it does little, but in time, whatever its worker keeps the machine busy with
    try:  # noqa: SIM105 - contextlib takes long to load
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    except OSError:  # most users may not
        pass
    os.set_blocking(sys.stdout.fileno(), False)
    line = sys.stdin.buffer.readline()
    connection: Any = None
    parent = os.getppid()
    due = time.monotonic() + max(0.0, pause_seconds - _LOADING_SECONDS)
    while True:
        readable, _, _ = select.select([sys.stdin.buffer], [], [], max(0.0, due - time.monotonic()))
        if readable or os.getppid() != parent:
            if not (readable and sys.stdin.buffer.readline()):
                last_words(connection, parsed(line))
            return
        due = time.monotonic() + beat_seconds
        if not is_stopped(parent):
            connection = beat(connection, parsed(line))
            if connection is None:
                due = min(due, time.monotonic() + _RETRY_SECONDS)


def parsed(line: bytes) -> dict[str, Any]:
    """Return what the other process wrote."""
    import json

    orders: dict[str, Any] = json.loads(line)
    return orders


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
