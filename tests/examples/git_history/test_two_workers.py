"""The demo's assets over a hostile repository, on two workers of which one is asked to stop half way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowstone import FlowStone
from flowstone.testing.marks import wait_until
from git_history.flow import MONTHLY, OVERALL, REPOSITORY_VARIABLE, STORAGE_VARIABLE, build

EXAMPLES = Path(__file__).parents[3] / "examples"


def hashes(flow: FlowStone) -> dict[tuple[str, str], str | None]:
    """Return the hash of every committed value."""
    return {(one.asset, one.key): one.data_version for asset in flow.graph for one in flow.history(asset.name)}


@pytest.mark.slow
def test_a_stopping_worker_changes_nothing(
    hostile_path: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("FLOWSTONE_"):
            monkeypatch.delenv(name)
    with build(hostile_path, tmp_path / "inline") as flow:
        for selection in (MONTHLY, OVERALL):
            flow.backfill(selection, executor="sync").raise_for_failures()
        expected = hashes(flow)
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv(REPOSITORY_VARIABLE, str(hostile_path))
    monkeypatch.setenv(STORAGE_VARIABLE, str(tmp_path / "durable"))
    command = [sys.executable, "-m", "flowstone", "worker", "--app", "git_history.flow:from_environment"]
    command += ["--app-dir", str(EXAMPLES), "--queue", "backfill=1", "--queue", "assets=1"]
    with build(hostile_path, tmp_path / "durable") as flow, ThreadPoolExecutor(1) as thread:
        workers = [subprocess.Popen(command) for _ in range(2)]
        try:
            monthly = thread.submit(flow.backfill, MONTHLY, executor="oban", run_id="monthly")
            assert wait_until(lambda: "monthly" in [r.id for r in flow.runs.latest()], timeout_seconds=90)
            assert wait_until(lambda: flow.runs.get("monthly").done >= 3, timeout_seconds=60)
            workers[0].send_signal(signal.SIGTERM)
            assert flow.runs.get("monthly").done < flow.runs.get("monthly").total, "it was not half way"
            assert monthly.result(90).ok
            assert flow.backfill(OVERALL, executor="oban", executor_opts={"wait_timeout": 90}).ok
            assert workers[0].wait(90) == 0
            assert hashes(flow) == expected
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                try:
                    worker.wait(60)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()
