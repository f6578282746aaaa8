"""A test run that is interrupted, killed or careless leaves no process, no file and no server behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import is_gone

from flowstone.testing.marks import wait_until

ROOT = Path(__file__).parents[1]
INNER = """
import os, subprocess, sys, tempfile, time
from pathlib import Path

NAP = [sys.executable, "-c", "import time; time.sleep(600)"]
ORPHAN = f"import subprocess as s; print(s.Popen({NAP}, stdout=s.DEVNULL, start_new_session=True).pid)"

def test_one():
    place = Path(tempfile.mkdtemp(prefix="left-"))
    own = subprocess.Popen(NAP, stdout=subprocess.DEVNULL, start_new_session=True)
    orphan = subprocess.check_output([sys.executable, "-c", ORPHAN], text=True)
    found = Path(os.environ["FOUND"])
    found.with_suffix(".new").write_text(f"{place} {own.pid} {orphan}")
    found.with_suffix(".new").replace(found)
    time.sleep(float(os.environ["NAP"]))
"""


class Inner:
    """A test run that starts two processes, one of them orphaned, and makes a directory."""

    def __init__(self, directory: Path, *options: str, nap_seconds: float) -> None:
        self._found = directory / "found"
        (directory / "test_inner.py").write_text(INNER)
        outer = directory / "tmp"
        outer.mkdir()
        self.outer = outer
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={directory}"]
        self.process = subprocess.Popen(
            [*command, "-p", "tests.supervision", "-p", "no:cacheprovider", *options, str(directory)],
            cwd=ROOT,
            env=os.environ
            | {"FOUND": str(self._found), "NAP": str(nap_seconds), "TMPDIR": str(outer), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def found(self) -> tuple[Path, list[int]]:
        """Wait until its test has made everything; return the directory and the processes."""
        assert wait_until(lambda: self._found.exists() or self.process.poll() is not None, timeout_seconds=60)
        place, *pids = self._found.read_text().split()
        return Path(place), [int(pid) for pid in pids]

    def nothing_stays(self, place: Path, pids: list[int]) -> bool:
        left = list(self.outer.glob("fs-tests-*"))
        return not place.exists() and not left and all(is_gone(pid) for pid in pids)


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, "0"), (signal.SIGTERM, "1"), (signal.SIGKILL, "1")]
)
def test_a_run_that_is_ended_from_outside(tmp_path: Path, number: int, workers: str) -> None:
    inner = Inner(tmp_path, "-n", workers, nap_seconds=600)
    place, pids = inner.found()
    assert place.exists()
    assert place.is_relative_to(inner.outer)
    os.kill(inner.process.pid, number)
    inner.process.communicate()
    assert wait_until(lambda: inner.nothing_stays(place, pids), timeout_seconds=30)


def test_a_careless_run_fails_and_names_what_it_left(tmp_path: Path) -> None:
    inner = Inner(tmp_path, "-n", "0", nap_seconds=0)
    place, pids = inner.found()
    output, _ = inner.process.communicate()
    assert inner.process.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in output
    assert f"file {place}" in output
    assert all(f"process {pid}: " in output for pid in pids)
    assert inner.nothing_stays(place, pids)
