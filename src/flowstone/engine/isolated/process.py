"""A child process as its parent sees it: started, watched, stopped for real."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flowstone.engine.isolated.reference import Reference
from flowstone.engine.isolated.wire import CANCEL, Channel

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from flowstone.engine.isolated.child import main; main({call}, {control})"
)
_REASON_BYTES = 1000
_STDERR_TAIL_BYTES = 4096
_MAX_READS = 16


class ChildEndedError(Exception):
    """The child is gone; internal, turned into an error that says what that means."""


class ChildProcess:
    """A warm child process, in a session of its own so that Ctrl-C and signals to our group do not reach it.

    One thread at a time talks to it; `kill` may be called by any thread.

    Attributes:
        pid: process id, which is also its process group.
        path: the `sys.path` that it got last.
        calls: how many calls it was given.
        loaded: references that it has imported.
        stopped: whether it was killed because the pool closed.
        on_output: called with `stdout` or `stderr` and what was written there, while a call runs.
    """

    def __init__(self) -> None:
        self.path = search_path()
        self.calls = 0
        self.loaded: set[Reference] = set()
        self.stopped = False
        ours, theirs = socket.socketpair()
        control, self._control = os.pipe()
        ours.setblocking(False)
        self.channel = Channel(ours)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with a program of ours
                [
                    sys.executable,
                    "-c",
                    _PROGRAM.format(path=self.path, call=theirs.fileno(), control=control),
                    *_arguments(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(theirs.fileno(), control),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(self._control)
            raise
        finally:
            theirs.close()
            os.close(control)
        self.pid = self._process.pid
        self._owner = os.getpid()
        self._ending = threading.Lock()
        self._exit_code: int | None = None
        self._stderr_tail = b""
        self.on_output: Callable[[str, bytes], object] | None = None
        self._watch()

    def _watch(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._outputs = {1: self._process.stdout.fileno(), 2: self._process.stderr.fileno()}
        self._socket = self.channel.connection.fileno()
        self._exit_watch = _open_pidfd(self.pid)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        for descriptor in self._outputs.values():
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)
        if self._exit_watch is not None:
            self._poll.register(self._exit_watch, select.POLLIN)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        if self._exit_watch is None:
            return self._process.poll() is None
        watch = select.poll()
        watch.register(self._exit_watch, select.POLLIN)
        return not watch.poll(0)

    def wait(self, events: int, timeout_seconds: float) -> bool:
        """Wait until the socket is ready for `events`, and pass on what the child writes to stdout and stderr.

        Returns:
            Whether it is ready; False when the time is over.

        Raises:
            ChildEndedError: the process has ended and the socket is empty.
        """
        self._poll.modify(self._socket, events)
        ready = dict(self._poll.poll(max(0.0, timeout_seconds) * 1000))
        for number, descriptor in self._outputs.items():
            if descriptor in ready:
                self._pass_on(number)
        if self._socket in ready:
            return True
        # the socket alone does not show it: a grandchild may hold its other end open
        if self._exit_watch in ready or (self._exit_watch is None and self._process.poll() is not None):
            raise ChildEndedError
        return False

    def cancel(self, call: int, reason: str) -> None:
        """Set the cancellation token of a call."""
        encoded = reason.encode("utf-8", "replace")[:_REASON_BYTES]
        with suppress(OSError):  # it has just ended: there is nothing to cancel
            os.write(self._control, CANCEL.pack(call, len(encoded)) + encoded)

    def kill(self, *, retry_seconds: float = 0.0) -> int:
        """End the process and all of its process group.

        Args:
            retry_seconds: how long it may take to end by itself.

        Returns:
            Its exit code, negative for a signal.
        """
        with self._ending:
            if self._exit_code is None and os.getpid() == self._owner:
                self._await_exit(retry_seconds)
                # before it is reaped, so that its id cannot belong to another process yet
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._exit_code = self._process.wait()
            return self._exit_code or 0

    def dismiss(self) -> None:
        """Ask the idle process to end by itself; `kill` and `release` must follow."""
        self.channel.close()

    def release(self) -> None:
        """Close all that belongs to a process that has ended."""
        self.channel.close()
        os.close(self._control)
        self.pass_output_on()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        if self._exit_watch is not None:
            os.close(self._exit_watch)

    def leave_to_parent(self) -> None:
        """In a forked copy of this process: close its copies of the descriptors, so that it notices our end."""
        self.channel.close()
        for descriptor in (self._control, self._exit_watch):
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def stderr_tail(self) -> str:
        """Return the last that the process wrote to stderr."""
        return self._stderr_tail.decode("utf-8", "replace")

    def pass_output_on(self) -> None:
        """Pass on what the process has written to stdout and stderr until now."""
        for number in self._outputs:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        descriptor = self._outputs[number]
        try:
            for _ in range(_MAX_READS):  # who writes without end must not keep us from watching the time
                written = os.read(descriptor, 65536)
                if not written:
                    break
                if number == 2:
                    self._stderr_tail = (self._stderr_tail + written)[-_STDERR_TAIL_BYTES:]
                with suppress(OSError):  # we may have no such stream
                    os.write(number, written)
                if self.on_output is not None:
                    self.on_output("stdout" if number == 1 else "stderr", written)
            else:
                return
        except BlockingIOError:
            return
        with suppress(KeyError):  # it was closed, and would be reported ready for ever
            self._poll.unregister(descriptor)

    def _await_exit(self, seconds: float) -> None:
        if self._exit_watch is not None:
            watch = select.poll()
            watch.register(self._exit_watch, select.POLLIN)
            watch.poll(seconds * 1000)
        elif seconds:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)


def _arguments() -> list[str]:
    """Return what follows the name in `sys.argv`: a main script that is imported again may read it."""
    given: list[object] = [*getattr(sys, "argv", [])[1:]]
    return [one for one in given if isinstance(one, str) and "\0" not in one]


def search_path() -> list[str]:
    """Return `sys.path` as another process can use it."""
    return [entry or current_directory() or "" for entry in sys.path]


def current_directory() -> str | None:
    """Return the working directory; None when it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _open_pidfd(pid: int) -> int | None:
    if sys.platform == "linux":
        with suppress(OSError):  # an old kernel or a sandbox
            return os.pidfd_open(pid)
    return None
