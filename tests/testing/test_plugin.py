"""The pytest plugin, in suites of its users: processes of their own, in which nothing is imported by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flowstone.testing.postgres import TemporaryServer


def run_suite(place: Path, suite: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a suite as its author would: in its directory, with the installed plugin."""
    (place / "test_suite.py").write_text(textwrap.dedent(suite))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWSTONE_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    # a root of its own: a new session takes rights away from the root that it shares with ours
    places = {"PYTEST_DEBUG_TEMPROOT": str(place)}
    return subprocess.run(
        command, cwd=place, env=clean | places | environment, capture_output=True, text=True, check=False
    )


ASSETS = """
from datetime import date
import pytest
from flowstone import DailyPartitions, RetryPolicy, Schedule, asset
from flowstone.testing import run_to_completion

@asset(retry=RetryPolicy(max_attempts=3, backoff_seconds=0))
def numbers():
    return [1, 2, 3]

@asset
def doubled(numbers):
    return [2 * n for n in numbers]

@asset(partitions=DailyPartitions("2024-01-01"))
def sales(context):
    return context.partition.day
"""


def test_fixtures_for_apps_in_memory(tmp_path: Path) -> None:
    done = run_suite(
        tmp_path,
        ASSETS
        + """
def test_an_app(flow):
    assert flow([numbers, doubled]).materialize_all("doubled").value == [2, 4, 6]

def test_apps_share_nothing(flow):
    flow([numbers]).materialize("numbers")
    assert not flow([numbers]).exists("numbers")

def test_a_clock(flow, flowstone_clock):
    flowstone_clock.move_to("2024-02-01")
    app = flow([sales], schedules=[Schedule("sales", "0 6 * * *")])
    assert len(flowstone_clock.advance(days=2)) == 2
    assert app.load("sales", partition=date(2024, 1, 31)) == 31

def test_faults(flow, flowstone_faults):
    flowstone_faults.fail(numbers, ConnectionError("reset"), at="after_store", times=2)
    done = flow([numbers]).materialize("numbers", executor_opts={"retry": True})
    assert (done.attempt, flowstone_faults.left) == (3, 0)

def test_a_fault_of_one_partition(flow, flowstone_faults):
    flowstone_faults.fail("sales", partition="2024-01-02")
    result = flow([sales]).backfill("sales", partitions=[date(2024, 1, 1), date(2024, 1, 2)])
    assert (result.succeeded, result.failed) == (1, 1)

def test_what_is_no_fault(flowstone_faults):
    with pytest.raises(TypeError, match="give an exception"):
        flowstone_faults.fail("numbers", "reset")
    with pytest.raises(TypeError, match="before_run"):
        flowstone_faults.fail("numbers", at="during")

def test_a_context(build_context):
    assert sales(build_context(sales, partition=date(2024, 1, 9))) == 9

class Hooked:
    def call(self, context, step):
        return step(context)

def test_hooks_by_name_stay(flow, flowstone_faults):
    app = flow([numbers], hooks={"mine": Hooked()})
    flowstone_faults.fail("numbers")
    with pytest.raises(RuntimeError):
        app.materialize("numbers", hooks=["mine"])
""",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_fixtures_for_apps_on_postgresql(tmp_path: Path, server: TemporaryServer) -> None:
    suite = (
        ASSETS
        + """
def test_inline(flow_postgres):
    app = flow_postgres([numbers, doubled])
    assert app.materialize_all("doubled").value == [2, 4, 6]

def test_each_has_its_own(flow_postgres):
    assert not flow_postgres([numbers]).exists("numbers")

def test_to_completion(flow_postgres, flowstone_faults):
    app = flow_postgres([numbers, doubled, sales])
    flowstone_faults.fail("numbers", ConnectionError("reset"))
    app.materialize_all("doubled", executor="oban", wait=False)
    job = app.schedule("sales", partition=date(2024, 1, 3), executor="oban")
    assert run_to_completion(app) is None
    assert app.load("doubled") == [2, 4, 6]
    assert app.job_status(job) == "completed"
    assert flowstone_faults.left == 0
    assert run_to_completion(app, app.schedule("numbers", force=True, executor="oban")).ok

def test_a_worker_for_a_while(flow_postgres, flowstone_worker):
    app = flow_postgres([numbers])
    flowstone_worker(app)
    assert app.materialize("numbers", executor="oban").value == [1, 2, 3]

def test_too_late(flow_postgres):
    @asset(requires=["gate"])
    def slow(context):
        context.resources.gate.wait(20)
    import threading
    gate = threading.Event()
    app = flow_postgres([slow], resources={"gate": gate})
    app.schedule("slow", executor="oban")
    threading.Timer(1.5, gate.set).start()
    with pytest.raises(TimeoutError, match="not over within 0.2 s"):
        run_to_completion(app, timeout_seconds=0.2)

def test_a_schedule_places_its_runs(flow_postgres, flowstone_clock):
    flowstone_clock.move_to("2024-02-01")
    app = flow_postgres([sales], schedules=[Schedule("sales", "0 6 * * *")])
    (tick,) = flowstone_clock.advance(days=1)
    assert tick.at.day == 1
    run_to_completion(app)
    assert app.load("sales", partition=date(2024, 1, 31)) == 31
"""
    )
    with server.empty_database() as url:
        done = run_suite(tmp_path, suite, FLOWSTONE_TEST_DATABASE_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.slow
def test_processes_of_xdist_share_one_embedded_server_that_is_gone_afterwards(tmp_path: Path) -> None:
    suite = (
        ASSETS
        + """
@pytest.mark.parametrize("n", range(4))
def test_inline(flow_postgres, flowstone_database_url, n):
    assert flow_postgres([numbers]).materialize("numbers").value == [1, 2, 3]
"""
    )
    place, temporary = tmp_path / "suite", tmp_path / "t"
    place.mkdir()
    temporary.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    done = run_suite(place, suite, "-n", "2", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [one for one in temporary.iterdir() if one.name.startswith("flowstone")]


def test_a_suite_that_uses_nothing_of_it_pays_nothing(tmp_path: Path) -> None:
    """pytest-cov#635, hypothesis#3140: nothing heavy is imported, also with warnings as errors and strict markers.

    A fixture `flow` of the suite itself counts.
    """
    done = run_suite(
        tmp_path,
        """
        import sys
        import pytest

        @pytest.fixture
        def flow():
            return "mine"

        def test_mine(flow):
            assert flow == "mine"

        def test_light():
            ours = sorted(name for name in sys.modules if name.startswith("flowstone"))
            assert ours == ["flowstone", "flowstone.testing", "flowstone.testing.plugin"]
            assert not {"psycopg", "oban", "typer", "rich", "pyarrow"} & set(sys.modules)
        """,
        "-W",
        "error",
        "--strict-markers",
        "--strict-config",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    off = run_suite(tmp_path, "def test_off(flow): ...", "-p", "no:flowstone")
    assert "fixture 'flow' not found" in off.stdout
