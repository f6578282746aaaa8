"""`worker` and `dev` as real processes with real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.cli.conftest import CommandLine

from flowstone.cli import dev
from flowstone.cli.workers import read_queues
from flowstone.errors import ConfigurationError

_TIMEOUT_SECONDS = 60


@contextmanager
def running(*arguments: str, stdout: Path, stderr: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `flowstone` beside the test as a script's `&` does, with SIGINT ignored; killed if left behind."""
    with stdout.open("wb") as out, stderr.open("wb") as err:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "flowstone", *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
            process.wait()


def wait_for(file: Path, text: str, process: subprocess.Popen[bytes], *, times: int = 1) -> str:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (found := file.read_text()).count(text) < times:
        assert process.poll() is None, found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_a_worker_runs_what_is_placed_and_stops_in_order(
    cli: CommandLine, shop: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    out, err = tmp_path / "out", tmp_path / "err"
    with running("worker", "--queue", "assets=2", "--queue", "backfill", stdout=out, stderr=err) as process:
        assert "assets=2, backfill=20" in wait_for(err, "is ready", process)
        done = cli("materialize", "+doubled", "--json").json
        assert (done["state"], done["succeeded"]) == ("completed", 2)
        assert cli("backfill", "orders", "--partitions", "2024-01-01", "--json").json["succeeded"] == 1
        assert cli("runs", "--json").json["runs"][0]["executor"] == "oban"
        checks = {check["name"]: check["verdict"] for check in cli("doctor", "--json").json["checks"]}
        assert checks["workers"] == "ok"
        process.send_signal(signal.SIGTERM)
        assert process.wait(_TIMEOUT_SECONDS) == 0
    assert out.read_text() == "a line of user code\n"


HANGING = """
import asyncio, atexit, threading, time
from flowstone import FlowStone, asset


@asset
async def swallows():
    while True:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass


@asset
def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(600,), name="of-the-user", daemon=False).start()
    atexit.register(time.sleep, 600)


flow = FlowStone([swallows, leaves_a_thread])
"""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("culprit", ["swallows", "leaves_a_thread"])
def test_nothing_that_hangs_keeps_a_worker_alive(
    cli: CommandLine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, culprit: str
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    (tmp_path / "hanging.py").write_text(HANGING)
    monkeypatch.setenv("FLOWSTONE_APP", f"{tmp_path}/hanging.py:flow")
    out, err = tmp_path / "out", tmp_path / "err"
    with running("worker", "--grace", "0.5", stdout=out, stderr=err) as process:
        wait_for(err, "is ready", process)
        schedule = f"import hanging; print(hanging.flow.schedule({culprit!r}).id)"
        command = [sys.executable, "-c", schedule]
        job = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        requested = "running" if culprit == "swallows" else "completed"
        while cli("status", job.stdout.strip(), "--json").json["state"] != requested:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)  # as terminals do
        assert process.wait(_TIMEOUT_SECONDS) == 0
    if culprit == "leaves_a_thread":
        assert "The threads of-the-user did not end: leaving now all the same" in err.read_text()
    assert cli("workers", "--json").json["workers"] == []


@pytest.mark.faults
def test_a_command_that_is_terminated_ends_its_run(
    cli: CommandLine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    (tmp_path / "slow.py").write_text(
        "import time\nfrom flowstone import FlowStone, asset\n\n\n@asset\ndef slow():\n"
        "    print('begun', flush=True)\n    time.sleep(600)\n\n\n@asset\ndef last(slow): ...\n\n\n"
        "flow = FlowStone([slow, last])\n"
    )
    monkeypatch.setenv("FLOWSTONE_APP", f"{tmp_path}/slow.py:flow")
    out, err = tmp_path / "out", tmp_path / "err"
    with running("materialize", "+last", "--executor", "sync", stdout=out, stderr=err) as process:
        wait_for(out, "begun", process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(_TIMEOUT_SECONDS) == 129
    run = cli("runs", "--json").json["runs"][0]
    assert run["state"] != "running"
    assert cli("workers", "--json").json["workers"] == []


def test_a_worker_without_a_database_says_so(cli: CommandLine, shop: Path) -> None:
    answer = cli("worker")
    assert answer.code == 2
    assert "not available" in answer.err


def test_queues_as_they_are_written() -> None:
    known = {"assets": 10, "priority": 5}
    assert read_queues([], None, known) is None
    assert read_queues([], 3, known) == {"assets": 3, "priority": 3}
    assert read_queues(["assets", "mine", "priority=1"], None, known) == {"assets": 10, "mine": 10, "priority": 1}
    assert read_queues(["assets"], 4, known) == {"assets": 4}


@pytest.mark.parametrize("text", ["assets=", "assets=0", "assets=-1", "assets=many", "=3"])
def test_queues_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--queue"):
        read_queues([text], None, {})


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_dev_starts_everything_and_stops_everything(
    cli: CommandLine, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    with running("dev", "--json", stdout=out, stderr=err) as process:
        wait_for(err, "is ready", process)
        ready = json.loads(out.read_text())
        monkeypatch.setenv("FLOWSTONE_DATABASE_URL", ready["database_url"])
        assert cli("materialize", "numbers", "--json").json["state"] == "completed"
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, number)
        assert process.wait(_TIMEOUT_SECONDS) == code
        assert psutil.wait_procs(children, timeout=_TIMEOUT_SECONDS)[1] == []
    server = (tmp_path / ".flowstone" / "postgres" / "data" / "postmaster.pid").exists()
    assert not server


@pytest.mark.slow
def test_dev_restarts_the_worker_when_a_file_changes_and_keeps_it_when_that_file_is_broken(
    cli: CommandLine, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload with an error leaves other dev servers in a bad state (dagster#2718, #3348)."""
    out, err = tmp_path / "out", tmp_path / "err"
    text = shop.read_text()
    with running("dev", "--json", "--no-web", "--reload", stdout=out, stderr=err) as process:
        wait_for(err, "is ready", process)
        ready = json.loads(out.read_text())
        monkeypatch.setenv("FLOWSTONE_DATABASE_URL", ready["database_url"])
        shop.write_text(text + "def broken(:\n")
        place = f"{shop}:{len(text.splitlines()) + 1}"
        assert place in wait_for(err, "goes on with the code from before", process)
        old = psutil.Process(ready["workers"][0])
        shop.write_text(text.replace("return [1, 2, 3]", "return [1, 2, 3, 4]"))
        assert psutil.wait_procs([old], timeout=_TIMEOUT_SECONDS)[1] == []
        assert cli("materialize", "numbers", "--json").json["state"] == "completed"
        wait_for(err, "is ready", process, times=2)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(_TIMEOUT_SECONDS) == 130


def test_files_are_watched_until_they_stand_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(dev.time, "monotonic", lambda: now[0])
    (tmp_path / "shop.py").write_text("a")
    for place in (".venv", "node_modules", "__pycache__"):
        (tmp_path / place).mkdir()
    watched = dev.Watched(tmp_path)

    def after(*writes: str) -> Path | None:
        for name in writes:
            path = tmp_path / name
            path.write_text(f"{name}{now[0]}")
        now[0] += 1
        assert watched.changed() is None  # seen, not yet reported: the next write may follow at once
        now[0] += 1
        return watched.changed()

    assert after() is None
    assert after("shop.py") == Path("shop.py")
    assert after("new.py", "pyproject.toml") == Path("new.py")
    assert after("notes.txt", ".venv/site.py", "node_modules/a.py", "__pycache__/a.py") is None
    (tmp_path / "new.py").unlink()
    now[0] += 1
    assert watched.changed() is None
    now[0] += 1
    assert watched.changed() == Path("new.py")


def test_without_the_packages_of_the_dashboard_dev_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dev._lacks_web() == ""
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: None if name == "jinja2" else object())
    assert dev._lacks_web() == "jinja2 is not installed; `pip install 'flowstone[web]'` adds them."


def test_executors_need_no_app(cli: CommandLine) -> None:
    answer = cli("executors", "--json")
    assert answer.code == 0
    assert {"sync", "async", "serial", "oban"} <= {one["name"] for one in answer.json["executors"]}
