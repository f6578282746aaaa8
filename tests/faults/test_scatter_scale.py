"""The benchmark of fan-out, smaller: many items on real workers, some fail, memory stays flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.faults.fleet import ROOT

_MAX_BYTES = 40 * 2**20


@pytest.mark.slow
def test_two_thousand_items() -> None:
    command = [sys.executable, "-m", "benchmarks.scatter", "--items", "2000", "--json"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLOWSTONE_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["items"], found["failed"], found["allowed"]) == (2000, 40, 100)
    for before, after in (*found["worker_bytes"], found["client_bytes"]):
        assert after - before < _MAX_BYTES
