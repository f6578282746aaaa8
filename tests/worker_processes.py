"""Worker processes of tests, forked from one that has imported everything: importing takes most of a start."""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from flowstone.testing.marks import wait_until

ROOT = Path(__file__).parents[1]


class WorkerProcess:
    """A process that another one forked for us; the part of `subprocess.Popen` that tests need."""

    def __init__(self, source: _Source, pid: int) -> None:
        self._source = source
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, as `subprocess.Popen` does; None while it lives."""
        if self.returncode is None:
            self.returncode = self._source.request({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        if self.poll() is None:
            ended = wait_until(lambda: self.poll() is not None, timeout_seconds=timeout or 1e6)
            if not ended:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Source:
    """The process that forks workers: a child of this one, which ends with it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = f"from {__name__} import serve; serve({theirs.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._lock = threading.Lock()
        self._socket, self._answers = ours, ours.makefile("r")

    def request(self, what: Mapping[str, object]) -> int | None:
        with self._lock:
            self._socket.sendall(f"{json.dumps(what)}\n".encode())
            answer: int | None = json.loads(self._answers.readline())
            return answer

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()


@functools.cache
def _source() -> _Source:
    return _Source()


def end_source() -> None:
    """End the process that forks workers, if there is one, with the session that started it."""
    if _source.cache_info().currsize:
        _source().close()
        _source.cache_clear()


def start_worker(module: str, environment: Mapping[str, str], log: Path) -> WorkerProcess:
    """Start a process that calls `main` of a module, as `python -c` would.

    Args:
        module: name of the module.
        environment: its whole environment.
        log: file for its standard output and standard error.
    """
    source = _source()
    pid = source.request({"module": module, "environment": dict(environment), "log": str(log)})
    assert pid is not None
    return WorkerProcess(source, pid)


_NEEDED = (
    "oban",
    "psycopg_pool",
    "tests.worker_app",
    "flowstone.executors.oban.node",
    "flowstone.testing.injection",
)
"""What workers import before they do anything; nothing of it starts threads or opens connections."""


# --- the process that forks -----------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Fork workers and return exit codes, until the other end is closed. In a worker this returns with its end."""
    for name in (
        "app.worker",
        "executors.oban.executor",
        "executors.oban.node",
        "stores.postgres.store",
        "testing.injection",
    ):
        importlib.import_module(f"flowstone.{name}")
    for name in ("psycopg_pool", "oban"):
        importlib.import_module(name)
    main = _until_closed(socket.socket(fileno=descriptor))
    if main is not None:
        main()


def _until_closed(connection: socket.socket) -> Callable[[], None] | None:
    """Answer requests; return what is left to do: in a worker its work."""
    requests = connection.makefile("r")
    while line := requests.readline():
        request = json.loads(line)
        if "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif pid := os.fork():
            answer = pid
        else:
            requests.close()
            connection.close()
            return functools.partial(_work, **request)
        connection.sendall(f"{json.dumps(answer)}\n".encode())
    return None


def _work(module: str, environment: Mapping[str, str], log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module(module).main()
