"""Worker processes of a measurement: started, awaited until ready, stopped by their own process id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_STOP_SECONDS = 30.0


@contextmanager
def workers(module: str, number: int, **options: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """Run worker processes of this environment, all of them ready when the body begins.

    Args:
        module: of this package; prints `ready` as its first line and ends on SIGTERM.
        number: how many.
        **options: given to each as JSON.
    """
    with ExitStack() as stack:
        children = [stack.enter_context(_worker(module, options)) for _ in range(number)]
        for child in children:
            _await_ready(child, module)
        yield children


def drain(children: list[subprocess.Popen[str]]) -> float:
    """Let workers that wait for it drain their queue; return the seconds from the first start to the last end.

    Each prints when it began and ended, on the clock that all processes of a machine share.
    """
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    spans = [child.stdout.readline().split() for child in children if child.stdout is not None]
    return max(float(end) for _, end in spans) - min(float(start) for start, _ in spans)


@contextmanager
def _worker(module: str, options: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", json.dumps(options)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for end in (child.stdin, child.stdout):
            if end is not None:
                end.close()


def _await_ready(child: subprocess.Popen[str], module: str) -> None:
    assert child.stdout is not None
    line = child.stdout.readline()
    if line.strip() != "ready":
        raise RuntimeError(f"{module} did not start; it said {line!r}")
