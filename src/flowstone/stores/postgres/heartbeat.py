"""The lease of this process, renewed from a process of its own."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.core.queueing import KnownAssets
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.not_begun import NotBegunBoard
from flowstone.stores.postgres.queue import Lease
from flowstone.stores.postgres.sql import load_sql

log = logging.getLogger(__name__)

_SCRIPT = Path(__file__).with_name("heartbeat_process.py")


class Heartbeat:
    """Registers a lease and keeps it alive until `stop`.

    The beats come from a child process, which code that holds the interpreter lock here cannot starve. When
    the lease was taken away all the same (this process was stopped for too long), a new one is registered
    under a new id; what was claimed under the old id can no longer commit.

    Args:
        database: where leases are.
        kind: `node` for a worker, `inline` for a process that drives its own runs.
        name: name of this process for people, in place of the host's.
        queues: queue name to limit, for people.
        beat_seconds: how often the lease is renewed.
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
        board: NotBegunBoard | None = None,
        assets: Callable[[], KnownAssets] | None = None,
    ) -> None:
        self._database = database
        self._kind = kind
        self._name = name or socket.gethostname()
        self._queues = dict(queues or {})
        self._beat_seconds = beat_seconds
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

    def stop(self) -> None:
        """Give the lease up and end the child; stopping twice is fine."""
        with self._lock:
            self._over.set()
            process, lease, self._process, self._lease = self._process, self._lease, None, None
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
        self._start_beating(worker_id)

    def _start_beating(self, worker_id: str) -> None:
        self._process = self._spawn(worker_id)
        threading.Thread(
            target=self._watch, args=(self._process, worker_id), name="flowstone-lease", daemon=True
        ).start()

    def _spawn(self, worker_id: str) -> subprocess.Popen[bytes]:
        orders = {
            "connect": self._database.connect_parameters,
            "sql": self._database.project.sql(load_sql("workers/beat")),
            "last_words": self._database.project.sql(load_sql("workers/last_words")),
            "board": self._board.descriptor if self._board else None,
            "worker_id": worker_id,
            "patience_seconds": self._lease_seconds / 2,
        }
        # -I keeps the user's PYTHON* settings and directory out; the orders hold the password, so they
        # travel through the pipe and not through the arguments, which every user of the machine can read
        process = subprocess.Popen(  # noqa: S603 - our own interpreter on our own file
            [sys.executable, "-I", str(_SCRIPT), str(self._beat_seconds)],
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
        """Wait until the child says that the lease is lost, or ends."""
        assert process.stdout is not None
        told = b""
        with suppress(ValueError, OSError):  # closed meanwhile: the same as an end
            told = process.stdout.readline()
        if not told:
            # a child that cannot live at all is not started again in a tight circle
            self._over.wait(min(1.0, self._beat_seconds))
        with self._lock:
            if self._over.is_set() or self._process is not process:
                return
            _end(process)
            self._process = None
            try:
                self._replace(worker_id, lost=bool(told))
            except Exception:
                log.exception("The lease could not be renewed; the next claim tries again.")
        if told and self._on_lost is not None:
            self._on_lost(worker_id)

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
