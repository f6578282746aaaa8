"""The lease of this process, renewed from a process of its own.

User code can hold the interpreter for minutes, and the lease must not end then.

`UnstartedAttemptsBoard` is shared memory in which a worker notes what it acquired and did not start: when the
worker dies, the other process, which outlives it by a moment, releases exactly these.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.core.step import KnownAssets
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.queue import Lease

_SLOTS = 16_384
_BYTES = 8


class UnstartedAttemptsBoard:
    """Fencing tokens in memory that is shared with the process of the heartbeat.

    Noting a token costs a fraction of a microsecond and no system call. When this process is killed, the other one
    reads what is left and records it, so that attempts which only waited for a thread are released. What
    finds no room is not noted: such an attempt counts, as if it had begun.

    Example:
        >>> board = UnstartedAttemptsBoard()
        >>> board.add([7, 8])
        >>> board.remove([7])
        >>> board.tokens()
        [8]
        >>> board.close()
    """

    def __init__(self) -> None:
        self.descriptor = _shared_file()
        os.ftruncate(self.descriptor, _SLOTS * _BYTES)
        self._memory = mmap.mmap(self.descriptor, _SLOTS * _BYTES)
        self._tokens = memoryview(self._memory).cast("q")
        # the operations of list and dict that are used here are atomic: several threads share them
        self._free = list(range(_SLOTS))
        self._slots: dict[int, int] = {}

    def add(self, tokens: Iterable[int]) -> None:
        """Note attempts that were taken."""
        for token in tokens:
            try:
                slot = self._free.pop()
            except IndexError:
                return
            self._slots[token] = slot
            self._tokens[slot] = token

    def remove(self, tokens: Iterable[int]) -> None:
        """Forget attempts that start, or were released."""
        for token in tokens:
            slot = self._slots.pop(token, None)
            if slot is not None:
                self._tokens[slot] = 0
                self._free.append(slot)

    def tokens(self) -> list[int]:
        """Return what is noted."""
        return [token for token in self._tokens if token]

    def close(self) -> None:
        """Give the memory back; nothing is noted afterwards."""
        self._free.clear()
        self._slots.clear()
        self._tokens.release()
        self._memory.close()
        os.close(self.descriptor)


def _shared_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("flowstone-unstarted")
    descriptor, path = tempfile.mkstemp(prefix="flowstone-unstarted-")
    Path(path).unlink()
    return descriptor


log = logging.getLogger(__name__)

_SCRIPT = Path(__file__).with_name("heartbeat_process.py")
_BEATS_A_LEASE = 3
_FRESH = 2 / 3
"""Part of a lease within which it must have been renewed for new work to be taken under it."""
_TIMEOUT_SECONDS = 1.0
_NEVER = float("-inf")


class Heartbeat:
    """Registers a lease and keeps it alive until `stop`.

    The beats come from a child process, which code that holds the interpreter lock here cannot starve. Until it
    has started, which takes seconds on a busy machine, a thread of this process renews the lease. When
    the lease was taken away all the same (this process was stopped for too long), a new one is registered
    under a new id; what was claimed under the old id can no longer commit.

    Args:
        database: where leases are.
        kind: `node` for a worker, `inline` for a process that drives its own runs.
        name: name of this process for people, in place of the host's.
        queues: queue name to limit, for people.
        beat_seconds: how often the lease is renewed; at least three times while it lasts.
        lease_seconds: after how long without renewal others may take over.
        on_lost: called (from a thread) when the lease was taken away, after the new one is in place.
        board: what this process has taken and not started; recorded in the database when this process dies.
        assets: returns what this process knows, for others to compare.
    """

    def __init__(
        self,
        database: Database,
        *,
        kind: str,
        name: str | None = None,
        queues: Mapping[str, int] | None = None,
        beat_seconds: float = 5.0,
        lease_seconds: float = 30.0,
        on_lost: Callable[[str], None] | None = None,
        board: UnstartedAttemptsBoard | None = None,
        assets: Callable[[], KnownAssets] | None = None,
    ) -> None:
        self._database = database
        self._kind = kind
        self._name = name or socket.gethostname()
        self._queues = dict(queues or {})
        self._beat_seconds = min(beat_seconds, lease_seconds / _BEATS_A_LEASE)
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._board = board
        self.assets = assets
        self._process: subprocess.Popen[bytes] | None = None
        self._begin()
        renew_after_fork(self, Heartbeat._begin)

    def _begin(self) -> None:
        if self._process is not None:
            # in a forked child: our copy of the pipe would hide the end of the parent from its process
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(OSError, ValueError):
                        stream.close()
            keep_of_parent(self._process)
        self._lock = threading.Lock()
        self._process = None
        self._lease: Lease | None = None
        self._over = threading.Event()
        self._beat_at = _NEVER
        self._changed = threading.Condition()

    @property
    def worker_id(self) -> str:
        """The lease's id, registered on first use (and again in a forked copy of the process)."""
        lease, process = self._lease, self._process
        if lease is not None and process is not None:
            return lease.id
        with self._lock:
            if self._lease is None:
                self._start()
            elif self._process is None:
                self._start_beating(self._lease.id)
            assert self._lease is not None
            return self._lease.id

    def wait_renewed(self, timeout_seconds: float) -> bool:
        """Wait until the child has renewed the lease lately; return whether it has.

        What is taken under a lease that is not renewed yet, or late, may be given to others while it runs here.
        """
        _ = self.worker_id  # which registers the lease on first use
        with self._changed:
            return self._changed.wait_for(self._is_fresh, timeout_seconds)

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._beat_at < _FRESH * self._lease_seconds

    def stop(self) -> None:
        """Give the lease up and end the child; stopping twice is fine."""
        with self._lock:
            self._over.set()
            process, lease, self._process, self._lease = self._process, self._lease, None, None
            with self._changed:
                self._changed.notify_all()
        if process is not None:
            _end(process)
        if lease is not None:
            # the database may be gone; the lease then runs out by itself
            with suppress(Exception):
                lease.remove()

    def _start(self) -> None:
        worker_id = f"{self._name}:{os.getpid()}:{secrets.token_hex(4)}"
        lease = Lease(self._database, worker_id)
        lease.register(
            kind=self._kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._queues,
            lease_seconds=self._lease_seconds,
            assets=self.assets() if self.assets else None,
        )
        self._lease = lease
        self._over.clear()
        # a worker waits for the first beat; a program that drives its own runs is often over before one is due
        self._start_beating(worker_id, pause_seconds=self._beat_seconds if self._kind == "inline" else 0.0)

    def _start_beating(self, worker_id: str, *, pause_seconds: float = 0.0) -> None:
        self._beat_at = _NEVER
        self._process = self._spawn(worker_id, pause_seconds)
        for act in (self._watch, self._stand_in):
            threading.Thread(
                target=act, args=(self._process, worker_id), name="flowstone-lease", daemon=True
            ).start()

    def _stand_in(self, process: subprocess.Popen[bytes], worker_id: str) -> None:
        """Renew the lease from here until the child does."""

        def is_over() -> bool:
            return self._over.is_set() or self._process is not process or self._beat_at > _NEVER

        while True:
            with self._changed:
                if self._changed.wait_for(is_over, self._beat_seconds):
                    return
            self._renew(worker_id)

    def _renew(self, worker_id: str) -> None:
        # the database may be away; whether the lease was taken away, the child says
        with suppress(Exception):
            Lease(self._database, worker_id).renew()

    def _spawn(self, worker_id: str, pause_seconds: float) -> subprocess.Popen[bytes]:
        orders = {
            "connect": self._database.connect_parameters,
            "sql": self._database.project.sql(load_sql("workers/beat")),
            "last_words": self._database.project.sql(load_sql("workers/last_words")),
            "board": self._board.descriptor if self._board else None,
            "worker_id": worker_id,
            "retry_seconds": max(_TIMEOUT_SECONDS, self._lease_seconds / 2),
        }
        # -I keeps the user's PYTHON* settings and directory out; the orders hold the password, so they
        # travel through the pipe and not through the arguments, which every user of the machine can read
        process = subprocess.Popen(  # noqa: S603 - our own interpreter on our own file
            [sys.executable, "-I", str(_SCRIPT), str(self._beat_seconds), str(pause_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # no buffer, no lock: a forked child must be able to close its copies
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[self._board.descriptor] if self._board else [],
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
        return process

    def _watch(self, process: subprocess.Popen[bytes], worker_id: str) -> None:
        """Note when the child renews the lease, until it says that the lease is lost, or ends."""
        lost = self._listen(process)
        if not lost and not self._over.is_set():
            self._renew(worker_id)
            # a child that cannot live at all is not started again in a tight circle
            self._over.wait(min(1.0, self._beat_seconds))
        with self._lock:
            if self._over.is_set() or self._process is not process:
                return
            _end(process)
            self._process = None
            try:
                self._replace(worker_id, lost=lost)
            except Exception:
                log.exception("The lease could not be renewed; the next claim tries again.")
        if lost and self._on_lost is not None:
            self._on_lost(worker_id)

    def _listen(self, process: subprocess.Popen[bytes]) -> bool:
        """Return whether the lease is lost, when that is said or the child ends."""
        assert process.stdout is not None
        with suppress(ValueError, OSError):  # closed meanwhile: the same as an end
            for message in process.stdout:
                if message == b"lost\n":
                    return True
                with self._changed:
                    if self._process is process:
                        self._beat_at = float(message)
                        self._changed.notify_all()
        return False

    def _replace(self, worker_id: str, *, lost: bool) -> None:
        if not lost:
            # only the messenger died: what runs under this lease goes on under it
            log.warning("The process that renews the lease %s ended; starting another one.", worker_id)
            self._start_beating(worker_id)
            return
        log.warning("The lease %s was taken away: this process did not answer for too long.", worker_id)
        self._lease = None
        self._start()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError, ValueError):
            process.stdin.write(b"this is no death\n")
            process.stdin.flush()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
