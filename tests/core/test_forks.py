"""Forked copies of a process that uses an app: nothing of the parent's is used, ended or waited for."""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.core import forks
from flowstone.stores.memory import MemoryStore

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


@asset
def number() -> int:
    return 7


@asset(partitions=StaticPartitions([str(n) for n in range(20)]))
def parts(context) -> str:
    return context.partition * 50


@asset
async def later(number: int) -> int:
    return number + 1


def in_child(call: Callable[[], object]) -> str:
    """Fork; return what the child says, or how it ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            message = f"ok {call()}"
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(writer, message.encode()[:4000])
        os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], 60)[0]:
            return "hung"
        return os.read(reader, 4000).decode()
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def read_all(flow: FlowStone) -> int:
    keys = [str(at % 20) for at in range(200)]
    assert [flow.load("parts", partition=key) for key in keys] == [key * 50 for key in keys]
    return len(keys)


@pytest.mark.parametrize("executor", ["sync", "async"])
def test_children_and_parent_work_side_by_side(database_url: str, executor: str) -> None:
    with FlowStone([number, parts, later], database_url=database_url) as flow:
        flow.materialize_all("*", executor=executor)
        lease = flow.parts.store.heartbeat.worker_id  # type: ignore[attr-defined]
        children = [multiprocessing.get_context("fork").Process(target=read_all, args=(flow,)) for _ in range(3)]
        for child in children:
            child.start()
        assert read_all(flow) == 200
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        assert in_child(lambda: flow.materialize_all("later", force=True, executor=executor).value) == "ok 8"
        assert in_child(lambda: flow.parts.store.heartbeat.worker_id == lease) == "ok False"  # type: ignore[attr-defined]
        assert flow.parts.store.heartbeat.worker_id == lease  # type: ignore[attr-defined]
        assert flow.materialize("number", force=True, executor=executor).value == 7


def test_the_sockets_of_the_parent_are_closed_in_the_child(database_url: str) -> None:
    """A child that lives on must not keep a session of its dead parent, and its locks, alive."""
    with FlowStone([number], database_url=database_url) as flow:
        flow.materialize("number", executor="sync")

        def open_sockets() -> int:
            return sum(name.is_socket() for name in Path("/proc/self/fd").iterdir())

        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc")
        with psycopg.connect(database_url) as other:  # not ours: it stays
            assert other.execute("SELECT 1").fetchone() == (1,)
            ours = len(flow.parts.store.database._open)  # type: ignore[attr-defined]
            assert ours
            there = int(in_child(open_sockets).removeprefix("ok "))
            assert there <= open_sockets() - ours


def test_a_fork_while_locks_are_held_and_steps_run() -> None:
    go_on, running = threading.Event(), threading.Event()

    @asset
    def slow() -> int:
        running.set()
        go_on.wait(60)
        return 1

    flow = FlowStone.for_testing([number, slow])
    other = threading.Thread(target=lambda: flow.materialize("slow", executor="async"))
    other.start()
    assert running.wait(60)
    tables = flow.parts.store.ledger._tables  # type: ignore[attr-defined]
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            with tables.changed:
                time.sleep(0.001)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        go_on_in_child = go_on.set  # what runs in the parent is not waited for, it is run anew
        for executor in ("sync", "async"):
            run = partial(flow.materialize_all, executor=executor)
            assert in_child(lambda run=run: (go_on_in_child(), run("slow").value)[1]) == "ok 1"
            assert in_child(lambda run=run: run("number").value) == "ok 7"
        assert not go_on.is_set()
    finally:
        go_on.set()
        stop.set()
        busy.join(60)
        other.join(60)
    assert flow.load("slow") == 1


def test_a_resource_is_opened_anew_and_the_parents_is_not_closed() -> None:
    events: list[str] = []

    @contextmanager
    def opened() -> Iterator[int]:
        events.append("open")
        yield os.getpid()
        events.append("close")

    @asset(requires=["session"])
    def uses(context) -> int:
        return context.resources["session"]

    with FlowStone.for_testing([uses], resources={"session": opened}) as flow:
        assert flow.materialize("uses").value == os.getpid()
        value = in_child(lambda: (flow.materialize("uses", force=True).value == os.getpid(), events))
        assert value == "ok (True, ['open', 'open'])"
        assert events == ["open"]
    assert events == ["open", "close"]


def test_a_copy_that_returns_from_an_asset_ends(tmp_path: Path) -> None:
    """User code that forks and forgets `os._exit` must not commit twice, nor go on with the run."""
    script = tmp_path / "silent.py"
    script.write_text(
        textwrap.dedent("""
        import os
        from flowstone import FlowStone, asset

        @asset
        def forks():
            pid = os.fork()
            return os.waitpid(pid, 0)[1] if pid else 5

        @asset
        def last(forks):
            print("last", forks)

        FlowStone.for_testing([forks, last]).materialize_all("last")
    """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"last {1 << 8}\n"  # the copy ended with code 1
    assert "forked this process, and the copy returned" in done.stderr


def test_stores_are_not_kept_alive() -> None:
    store = MemoryStore()
    gone = weakref.ref(store.ledger._tables)
    del store
    gc.collect()
    assert gone() is None
    assert forks.copies == 0


FORGETS = """
import sys
from flowstone import FlowStone, asset

@asset
def number():
    return 7

@asset
async def later(number):
    return number + 1

@asset(isolation="process")
def apart(later):
    return later + 1

if __name__ == "__main__":
    flow = FlowStone([number, later, apart], database_url=sys.argv[1])
    print(flow.materialize_all("apart", executor=sys.argv[2], force=True).value)
    flow.schedule("number", executor="oban", force=True)
    try:
        flow.materialize("number", executor="oban", executor_opts={"wait_timeout": 0.01}, force=True)
    except Exception as error:
        print(type(error).__name__)
    if sys.argv[2] == "async":
        raise ValueError("of the user")
"""


@pytest.mark.parametrize("executor", ["sync", "async"])
def test_a_program_that_forgets_to_close_ends_at_once_and_in_order(
    database_url: str, tmp_path: Path, executor: str
) -> None:
    script = tmp_path / "forgets.py"
    script.write_text(FORGETS)
    command = [sys.executable, str(script), database_url, executor]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["9", "WaitTimeoutError"]
    assert "couldn't stop" not in done.stderr
    if executor == "sync":
        assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM flowstone.workers").fetchone() == (0,)
