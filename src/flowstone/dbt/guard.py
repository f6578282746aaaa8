"""Runs dbt for a worker, and ends it when the worker says so or is no more: a program of its own.

The worker holds the other end of this process's standard input, which the system closes however the worker ends.
So a dbt whose attempt has been given to another worker never goes on writing to the same table. dbt cancels its
queries when it is interrupted (SIGINT), and not when it is terminated; what does not end in time is killed, with
all that it has started.

Only the standard library: it is run as a file, without the package.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

STOPPED = 130
"""Exit code of what was ended from outside."""


def main(arguments: list[str]) -> int:
    """Run a command until it is over or the standard input is closed.

    Args:
        arguments: how many seconds it has to end, then the command.

    Returns:
        Its exit code.
    """
    grace_seconds, command = float(arguments[0]), arguments[1:]
    # a handler, and not SIG_IGN, which dbt would inherit: it could not be interrupted then
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - what was given
    stopped = threading.Event()
    threading.Thread(target=_end_with_the_worker, args=(child, grace_seconds, stopped), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # what it has started and left
    return STOPPED if stopped.is_set() else code if code >= 0 else 128 - code


def _end_with_the_worker(child: subprocess.Popen[bytes], grace_seconds: float, stopped: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stopped.set()
    _signal_group(child.pid, signal.SIGINT)
    try:
        child.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
