from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from tests.waiting import eventually, is_gone

from flowstone.core.asset import Asset, asset
from flowstone.core.context import AssetContext, CancellationToken, Resources
from flowstone.core.outcome import Fatal, RetryLater, Skip
from flowstone.engine.failures import failure
from flowstone.engine.isolated.exceptions import carry, restore
from flowstone.engine.isolated.wire import Given
from flowstone.engine.isolation import IsolatedCalls
from flowstone.errors import (
    DefinitionError,
    IsolatedFailureError,
    MaterializationTimeoutError,
    ResourceError,
    SerializationError,
    StepCancelledError,
    StorageError,
    WorkerCrashedError,
)

STARTED_AT = datetime(2026, 1, 2, tzinfo=UTC)


def load_functions() -> ModuleType:
    file = Path(__file__).with_name("isolated_functions.py")
    spec = importlib.util.spec_from_file_location("isolated_functions", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["isolated_functions"] = module
    spec.loader.exec_module(module)
    return module


functions: Any = load_functions()


def context_of(target: Asset, **changes: Any) -> AssetContext:
    given: dict[str, Any] = {
        "asset": target,
        "partition": None,
        "key": "",
        "run_id": "run",
        "step_id": 1,
        "attempt": 1,
        "token": 1,
        "started_at": STARTED_AT,
        "cancellation": CancellationToken(),
        "resources": Resources({}, target.name),
    }
    return AssetContext(**(given | changes))


@contextmanager
def pool() -> Iterator[IsolatedCalls]:
    """A pool that leaves neither children nor descriptors."""
    bystanders, before = children(), descriptors()
    opened = IsolatedCalls(max_idle=2, grace_seconds=0.3)
    yield opened
    opened.close()
    assert children() == bystanders
    assert descriptors() == before


@pytest.fixture(scope="module")
def calls() -> Iterator[IsolatedCalls]:
    """One pool for all tests that call: a child takes longer to start than they take."""
    with pool() as opened:
        yield opened


@pytest.fixture
def own_calls() -> Iterator[IsolatedCalls]:
    """A pool of this test's own, for what counts or closes."""
    with pool() as opened:
        yield opened


def children() -> set[int]:
    """The processes that pools have started."""
    return {child.pid for child in psutil.Process().children() if "isolated" in "".join(child.cmdline())}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def call(calls: IsolatedCalls, target: Asset, *, timeout: float | None = None, **arguments: Any) -> Any:
    return calls.call(context_of(target), Given(arguments), timeout_seconds=timeout)


# --- calling ------------------------------------------------------------------------------------------------


def test_runs_in_one_warm_process(calls: IsolatedCalls) -> None:
    first = call(calls, functions.pid)
    assert first != os.getpid()
    assert call(calls, functions.pid) == first
    assert os.getsid(first) == first


def test_gives_and_returns_large_arrays(calls: IsolatedCalls) -> None:
    array = np.arange(3_000_000, dtype=np.int64)
    result = call(calls, functions.doubled, numbers=array)
    assert np.array_equal(result, array * 2)
    result[0] = 1  # what arrives is the caller's own and can be written


def test_gives_many_buffers(calls: IsolatedCalls) -> None:
    arrays = [np.full(3, n) for n in range(1500)]
    result = call(calls, functions.doubled, numbers=arrays)
    assert len(result) == 3000
    assert result[1500 + 42].tolist() == [42, 42, 42]


def test_context_arrives_and_metadata_come_back(calls: IsolatedCalls) -> None:
    context = context_of(
        functions.facts, partition=(date(2026, 1, 2), "eu"), key="k", attempt=3, token=9, run_id="r", step_id=1
    )
    context.metadata["before"] = 1
    assert calls.call(context, Given({}), timeout_seconds=None) == {
        "asset": "facts",
        "partition": (date(2026, 1, 2), "eu"),
        "key": "k",
        "run_id": "r",
        "step_id": 1,
        "attempt": 3,
        "token": 9,
        "started_at": STARTED_AT,
        "inputs": {},
        "metadata": {"before": 1, "rows": 3},
        "cancelled": False,
    }
    assert context.metadata == {"before": 1, "rows": 3}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wrapped_inside", ["traced", 2]),
        ("renamed", 3),
        ("times_three", 6),
    ],
)
def test_finds_functions(calls: IsolatedCalls, name: str, expected: object) -> None:
    assert call(calls, getattr(functions, name), n=2) == expected


def test_finds_an_asset_under_a_decorator_and_in_a_class(calls: IsolatedCalls) -> None:
    assert call(calls, functions.wrapped_outside.__wrapped__, n=2) == 2
    assert call(calls, functions.Methods.static, n=2) == -2


def test_finds_modules_on_a_changed_search_path(
    calls: IsolatedCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(calls, functions.pid)  # the child knew the old path
    (tmp_path / "my_later_assets.py").write_text(
        "from flowstone.core.asset import asset\n@asset\ndef here():\n    return __name__\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("my_later_assets")
    monkeypatch.delitem(sys.modules, "my_later_assets", raising=False)
    monkeypatch.setitem(sys.modules, "my_later_assets", module)
    assert call(calls, module.here) == "my_later_assets"


def test_follows_the_working_directory(
    calls: IsolatedCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(calls, functions.directory)
    monkeypatch.chdir(tmp_path)
    assert call(calls, functions.directory) == str(tmp_path)


def test_async_function(calls: IsolatedCalls) -> None:
    assert call(calls, functions.awaited, numbers=[1, 2]) == 3


def test_threads_get_children_of_their_own(own_calls: IsolatedCalls) -> None:
    before = children()
    barrier = threading.Barrier(3)

    def one(_: int) -> Any:
        barrier.wait()
        return call(own_calls, functions.spins, seconds=0.2)

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(one, range(3)))
    assert len(children() - before) == 2  # max_idle


def test_stdout_and_stderr_are_passed_on(own_calls: IsolatedCalls, capfd: pytest.CaptureFixture[str]) -> None:
    call(own_calls, functions.talks)
    own_calls.close()
    captured = capfd.readouterr()
    assert captured.out == "said on stdout\n"
    assert captured.err == "said on stderr\n"


def test_can_be_used_again_after_close(own_calls: IsolatedCalls) -> None:
    first = call(own_calls, functions.pid)
    own_calls.close()
    assert call(own_calls, functions.pid) != first


def test_child_that_died_while_idle_is_replaced(calls: IsolatedCalls) -> None:
    first = call(calls, functions.pid)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)  # all of its threads have ended
    assert call(calls, functions.pid) != first


def test_children_are_recycled(own_calls: IsolatedCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstone.engine.isolated.pool._CALLS_PER_CHILD", 2)
    assert len({call(own_calls, functions.pid) for _ in range(4)}) == 2


# --- what cannot work ---------------------------------------------------------------------------------------


def test_closure_is_refused(calls: IsolatedCalls) -> None:
    @asset
    def local() -> int:
        return 1

    with pytest.raises(DefinitionError, match=r"'local' .*top level of a module.*test_isolation\.py:\d+"):
        call(calls, local)


def test_module_that_cannot_be_imported_again(calls: IsolatedCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("only_in_memory")
    exec(  # a module that no file holds
        "from flowstone.core.asset import asset\n@asset\ndef ghost(): ...", module.__dict__
    )
    monkeypatch.setitem(sys.modules, "only_in_memory", module)
    with pytest.raises(DefinitionError, match=r"'ghost'.*ModuleNotFoundError.*only_in_memory"):
        call(calls, module.ghost)


def test_unpicklable_argument(calls: IsolatedCalls) -> None:
    with pytest.raises(SerializationError, match=r"'doubled'.*pickle.*argument 'numbers'.*lock"):
        call(calls, functions.doubled, numbers=threading.Lock())


def test_unpicklable_result(calls: IsolatedCalls) -> None:
    with pytest.raises(SerializationError, match=r"'unpicklable' returned.*lock"):
        call(calls, functions.unpicklable)


def test_unpicklable_metadata(calls: IsolatedCalls) -> None:
    with pytest.raises(SerializationError, match=r"'bad_metadata'.*context\.metadata\['lock'\]"):
        call(calls, functions.bad_metadata)


def test_resources(calls: IsolatedCalls) -> None:
    opened = Resources({"good": [1, 2], "bad": threading.Lock()}, "uses_resources")
    context = context_of(functions.uses_resources, resources=opened)
    assert calls.call(context, Given({"which": "good"}), timeout_seconds=None) == (["bad", "good"], [1, 2])
    with pytest.raises(ResourceError, match=r"'bad' cannot be brought.*'uses_resources'.*cannot pickle"):
        calls.call(context, Given({"which": "bad"}), timeout_seconds=None)
    with pytest.raises(ResourceError, match=r"did not ask for a resource 'goood'"):
        calls.call(context, Given({"which": "goood"}), timeout_seconds=None)


# --- errors and outcomes ------------------------------------------------------------------------------------


def test_error_arrives_with_its_traceback(calls: IsolatedCalls) -> None:
    with pytest.raises(ValueError, match=r"^boom\n") as caught:
        call(calls, functions.raises, kind="boom")
    recorded = failure(caught.value, None)
    assert recorded.error_type == "builtins.ValueError"
    assert "isolated_functions.py" in recorded.error
    assert "raise ValueError(kind)" in recorded.error


def test_chained_error_reports_its_cause(calls: IsolatedCalls) -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        call(calls, functions.raises, kind="chained")
    assert "KeyError: 'missing'" in caught.value.__notes__[0]


def test_errors_that_plain_pickle_cannot_rebuild(calls: IsolatedCalls) -> None:
    with pytest.raises(functions.OddError, match="code 7, rewind") as odd:
        call(calls, functions.raises, kind="odd")
    assert (odd.value.code, odd.value.hint) == (7, "rewind")
    with pytest.raises(functions.OddOSError) as missing:
        call(calls, functions.raises, kind="os")
    assert (missing.value.errno, missing.value.filename, missing.value.path) == (2, "x.csv", "x.csv")
    with pytest.raises(ExceptionGroup) as group:
        call(calls, functions.raises, kind="group")
    assert [type(error).__name__ for error in group.value.exceptions] == ["OddError", "ValueError"]


def test_unpicklable_error(calls: IsolatedCalls) -> None:
    with pytest.raises(IsolatedFailureError, match=r"LockedError: held") as caught:
        call(calls, functions.raises, kind="locked")
    assert caught.value.type_name == "isolated_functions.LockedError"
    assert "raise LockedError" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        MaterializationTimeoutError("numbers", 2.5),
        StorageError("store", "numbers", "", "disk full", kind="full"),
        SerializationError("a lock", path="$", type_name="lock", remedy="Do not."),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ImportError("no", name="x", path="y"),
        RetryLater(90),
        Fatal("the end"),
    ],
)
def test_errors_survive_the_way(error: BaseException) -> None:
    arrived = restore(carry(error), "numbers", pid=1)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert arrived.args == error.args
    kept = {name: value for name, value in vars(arrived).items() if name != "__notes__"}
    assert kept == vars(error)


def test_errors_survive_where_tblib_took_them_over() -> None:
    """As importing `distributed` has it do, for the whole process."""
    program = (
        "import tblib.pickling_support; tblib.pickling_support.install();"
        "from flowstone.engine.isolated.exceptions import carry, restore;"
        "print(restore(carry(UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'invalid')), 'numbers', pid=1))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "'utf-8' codec can't decode byte 0xff in position 0: invalid\n"


def test_exit_and_interrupt_are_answers(calls: IsolatedCalls) -> None:
    first = call(calls, functions.pid)
    with pytest.raises(SystemExit) as left:
        call(calls, functions.raises, kind="exit")
    assert left.value.code == 3
    with pytest.raises(KeyboardInterrupt):
        call(calls, functions.raises, kind="interrupt")
    assert call(calls, functions.pid) == first


def test_outcomes(calls: IsolatedCalls) -> None:
    with pytest.raises(Skip, match="nothing new"):
        call(calls, functions.raises, kind="skip")
    later = call(calls, functions.later)
    assert isinstance(later, RetryLater)
    assert (later.after_seconds, later.reason) == (5.0, "not there yet")


def test_logs_arrive_with_their_step(calls: IsolatedCalls, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        calls.call(context_of(functions.logs, key="2026-01-02"), Given({}), timeout_seconds=None)
    rows, broke = caplog.records
    assert (rows.name, rows.getMessage(), rows.levelno) == ("flowstone.asset.logs", "rows: 7", logging.INFO)
    fields = [getattr(rows, name) for name in ("asset", "partition", "run_id", "attempt")]
    assert fields == ["logs", "2026-01-02", "run", 1]
    assert rows.process != os.getpid()
    assert broke.exc_text is not None
    assert "ValueError: inner" in broke.exc_text


# --- crashes, hangs, cancels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("segfault", r"SIGSEGV.*bug in C code.*stderr.*Segmentation fault.*crashes"),
        ("SIGKILL", r"killed by SIGKILL.*out of memory"),
        ("exit", r"exit code 9.*os\._exit.*the library gave up"),
    ],
)
def test_crash(calls: IsolatedCalls, how: str, text: str) -> None:
    first = call(calls, functions.pid)
    with pytest.raises(WorkerCrashedError, match=rf"(?s)'crashes' died.*{text}") as caught:
        call(calls, functions.crashes, how=how)
    assert caught.value.asset == "crashes"
    assert call(calls, functions.pid) != first


def test_hang_in_c_is_stopped_at_the_timeout(calls: IsolatedCalls) -> None:
    first = call(calls, functions.pid)
    with pytest.raises(MaterializationTimeoutError, match=r"'hangs_in_c'.*0\.2 s"):
        call(calls, functions.hangs_in_c, timeout=0.2)
    eventually(lambda: is_gone(first))


def test_timeout_does_not_count_the_first_import(calls: IsolatedCalls, tmp_path: Path) -> None:
    file = tmp_path / "slow_to_import.py"
    file.write_text(
        "import os, time\nfrom flowstone.core.asset import asset\n"
        f"if os.getpid() != {os.getpid()}: time.sleep(3)\n@asset\ndef quick(): return 1\n"
    )
    spec = importlib.util.spec_from_file_location("slow_to_import", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["slow_to_import"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        assert call(calls, module.quick, timeout=2.0) == 1
    finally:
        del sys.modules["slow_to_import"]


@pytest.mark.parametrize("crash", [True, False])
def test_grandchildren_end_with_the_child(calls: IsolatedCalls, tmp_path: Path, crash: bool) -> None:
    call(calls, functions.pid)
    path = tmp_path / "pid"
    with pytest.raises(WorkerCrashedError if crash else MaterializationTimeoutError):
        call(calls, functions.leaves_grandchild, timeout=2.0, path=str(path), crash=crash)
    eventually(lambda: is_gone(int(path.read_text())))


def test_only_the_first_process_answers(calls: IsolatedCalls) -> None:
    assert call(calls, functions.forks) == 1
    assert call(calls, functions.doubled, numbers=2) == 4


def cancelled(calls: IsolatedCalls, target: Asset, tmp_path: Path, stop: Callable[[AssetContext], None]) -> Any:
    context = context_of(target)
    started = tmp_path / "started"
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(calls.call, context, Given({"started": str(started)}), timeout_seconds=60)
        eventually(started.exists)
        stop(context)
        return future.result(30)


def test_cancel_sets_the_token(calls: IsolatedCalls, tmp_path: Path) -> None:
    def stop(context: AssetContext) -> None:
        context.cancellation.cancel("by a person")

    assert cancelled(calls, functions.stops_politely, tmp_path, stop) == "by a person"


def test_cancel_stops_for_real_after_the_grace(calls: IsolatedCalls, tmp_path: Path) -> None:
    with pytest.raises(StepCancelledError):
        cancelled(calls, functions.stops_never, tmp_path, lambda context: context.cancellation.cancel())


def test_close_stops_running_calls(own_calls: IsolatedCalls, tmp_path: Path) -> None:
    with pytest.raises(StepCancelledError):
        cancelled(own_calls, functions.stops_never, tmp_path, lambda _: own_calls.close())


def test_cancelled_before_it_began(calls: IsolatedCalls) -> None:
    context = context_of(functions.pid)
    context.cancellation.cancel()
    with pytest.raises(StepCancelledError):
        calls.call(context, Given({}), timeout_seconds=None)


# --- whole programs -----------------------------------------------------------------------------------------

SCRIPT = """
from __future__ import annotations
import os, pickle, sys, time
from dataclasses import dataclass
from datetime import UTC, datetime
from flowstone.core.asset import asset
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.engine.isolated.wire import Given
from flowstone.engine.isolation import IsolatedCalls

@dataclass
class Point:
    x: int

@asset
def moved(point):
    assert __name__ == "__mp_main__"
    return Point(point.x + 1)

@asset
def waits():
    time.sleep(600)

calls = IsolatedCalls()

def call(asset, **arguments):
    context = AssetContext(
        asset=asset, partition=None, key="", run_id="r", step_id=1, attempt=1, token=1,
        started_at=datetime.now(UTC), cancellation=CancellationToken(), resources={},
    )
    return calls.call(context, Given(arguments), timeout_seconds=None)

def child():
    return next(iter(calls._children._all)).pid
"""


def run_script(tmp_path: Path, rest: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + rest)
    command = [sys.executable, str(script), "--moved-by", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_main_script(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        # what it reads of its command line before the guard is there when it is imported again
        "import sys\nassert int(sys.argv[2]) == 1\n"
        "if __name__ == '__main__':\n    moved_point = call(moved, point=Point(1))\n"
        "    print(moved_point, type(moved_point) is Point, child())\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Point(x=2) True ")
    assert done.stderr == ""
    eventually(lambda: is_gone(int(done.stdout.split()[-1])))  # not closed: ended at interpreter exit


def test_main_script_without_guard(tmp_path: Path) -> None:
    done = run_script(tmp_path, "call(moved, point=Point(1))\n")
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr


def test_interactive_function_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + "call(moved, point=Point(1))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "DefinitionError: Asset 'moved'" in done.stderr
    assert "interactively or in a notebook" in done.stderr


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT
        + "if __name__ == '__main__':\n    import threading\n"
        + "    call(moved, point=Point(1))\n    threading.Thread(target=call, args=[waits], daemon=True).start()\n"
        + "    print(child(), flush=True)\n    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
    finally:
        parent.kill()
        parent.communicate()
    eventually(lambda: is_gone(child))


def test_child_imports_only_what_it_needs() -> None:
    program = (
        "import sys, flowstone.engine.isolated.child; "
        "print(sorted({'typer', 'rich', 'psycopg', 'oban', 'multiprocessing', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_errors_of_the_pool_can_be_pickled() -> None:
    error = WorkerCrashedError("numbers", -9)
    assert error.signal_name == "SIGKILL"
    assert pickle.loads(carry(error).pickled or b"").exit_code == -9
