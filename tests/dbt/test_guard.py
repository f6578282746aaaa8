"""The process between a worker and dbt: whatever happens to the worker, nothing of dbt goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import eventually, is_gone

from flowstone.dbt import guard

TALKS = """
import signal, subprocess, sys, time
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def end(*_):
    print("cancelled the query", flush=True)
    sys.exit(1)
signal.signal(signal.SIGINT, end)
if "deaf" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
print(sleeper.pid, flush=True)
time.sleep(600)
"""


def start(*command: str, grace_seconds: float = 20.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(grace_seconds), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_exit_code_passes_through() -> None:
    with start(sys.executable, "-c", "print('done'); raise SystemExit(2)") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "done\n"
        assert process.wait(30) == 2


@pytest.mark.parametrize("deaf", [[], ["deaf"]], ids=["polite", "deaf"])
def test_a_worker_that_closes_its_end_ends_the_group(deaf: list[str]) -> None:
    """astronomer-cosmos#101, #645: dbt cancels its queries at SIGINT, not at SIGTERM."""
    with start(sys.executable, "-c", TALKS, *deaf, grace_seconds=0.2 if deaf else 20.0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sleeper = int(process.stdout.readline())
        process.stdin.close()
        assert process.stdout.read() == ("" if deaf else "cancelled the query\n")
        assert process.wait(30) == guard.STOPPED
        eventually(lambda: is_gone(sleeper))


def test_a_worker_that_is_killed_takes_dbt_with_it(tmp_path: Path) -> None:
    """databricks/dbt-databricks#741: dbt went on when what had started it was killed."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-I', '-S', {guard.__file__!r}, '20', sys.executable, '-c', "
        f"{TALKS!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)\n"
        "print(p.pid, p.stdout.readline().strip(), flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pids = [int(word) for word in worker.stdout.readline().split()]
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(30)
        for pid in pids:
            eventually(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
