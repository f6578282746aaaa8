"""How long a program takes, from its start until it says that it is ready; or until its first page has come."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

from benchmarks.peers.exchange import answer, options

_STOP_SECONDS = 30.0


def main() -> None:
    """Print the seconds of each start, and the processor time of the program at that moment."""
    arguments = options()
    if arguments.get("prepare"):
        _run(arguments["prepare"], arguments)
    seconds, processor = [], []
    for number in range(arguments["repetitions"] + 1):
        took, used = _start(arguments)
        if number:  # the first one compiles and reads from the disk
            seconds.append(took)
            processor.append(used)
    answer(seconds=seconds, processor_seconds=[round(one, 3) for one in processor])


def _start(arguments: dict[str, Any]) -> tuple[float, float]:
    started = time.perf_counter()
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        _command(arguments["command"]),
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(arguments),
    )
    assert child.stdout is not None
    printed: list[str] = []
    try:
        for line in child.stdout:
            printed.append(line)
            if arguments["ready"] in line:
                break
        else:
            raise RuntimeError("".join(printed))
        if arguments.get("page"):  # at the address that was printed, which lets a person in
            found = re.search(r"http://\S+", "".join(printed))
            assert found is not None, printed
            with build_opener(HTTPCookieProcessor()).open(found[0], timeout=30) as page:
                page.read()
        took = time.perf_counter() - started
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return took, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def _run(command: list[str], arguments: dict[str, Any]) -> None:
    subprocess.run(_command(command), env=_environment(arguments), check=True, capture_output=True)


def _command(command: list[str]) -> list[str]:
    return [sys.executable, *command]


def _environment(arguments: dict[str, Any]) -> dict[str, str]:
    dsn = {"FLOWSTONE_DATABASE_URL": arguments["dsn"]} if "dsn" in arguments else {}
    return os.environ | {"PYTHONUNBUFFERED": "1"} | dsn


main()
