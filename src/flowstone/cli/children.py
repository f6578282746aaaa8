"""Worker processes started by `dev` and `demo`: started, watched and stopped by their own ids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Self

_POLL_SECONDS = 0.1


class Workers:
    """Worker processes of this machine; leaving the block stops them.

    Args:
        arguments: of `flowstone`, such as `["worker", "--app", "shop:flow"]`.
        environment: variables on top of those of this process.
        count: how many.
        grace_seconds: how long they get to end after SIGTERM: their own grace and 20 s.
        log: file for what they write; None for standard error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        count: int = 1,
        grace_seconds: float = 50.0,
        log: Path | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", "flowstone", *arguments]
        self._environment = {**os.environ, **environment}
        self._count = count
        self._grace = grace_seconds
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._processes.append(self._start())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        """Process ids of those that were started."""
        return [process.pid for process in self._processes]

    def ended(self) -> list[int]:
        """Return the exit codes of those that are over."""
        return [process.returncode for process in self._processes if process.poll() is not None]

    def wait(self) -> int:
        """Wait until one of them ends and return its exit code."""
        while not (over := self.ended()):
            time.sleep(_POLL_SECONDS)
        return over[0]

    def stop(self) -> None:
        """Ask them to stop, wait for the grace, then kill; stopping twice is no error."""
        try:
            for process in self._processes:
                if process.poll() is None:
                    process.terminate()
            deadline = time.monotonic() + self._grace
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))
        finally:  # also when a second Ctrl-C ends the patience
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # a session of its own: Ctrl-C goes to us alone, and we stop them in order
        with self._log.open("ab") if self._log else nullcontext(sys.stderr) as file:
            return subprocess.Popen(  # noqa: S603 - our own program
                self._command, env=self._environment, stdout=file, stderr=file, start_new_session=True
            )


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT end the block: shells start background commands of scripts with SIGINT ignored.

    Whoever sends it to us means it all the same.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
