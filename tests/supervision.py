"""Whatever happens to a test run, nothing of it goes on or stays: a pytest plugin, and a program of its own.

Every process that a test starts inherits a mark in its environment, and writes its temporary files into a
directory of this run. A process beside pytest waits for pytest's end, however that comes (Ctrl-C, SIGTERM,
SIGKILL), ends what bears the mark, and removes the directories. A run that went well and left something behind
fails, with its name.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

MARK = "FLOWSTONE_TEST_RUN"
"""Environment variable with the directory of the run."""

LEFT_ELSEWHERE = "left-elsewhere"
"""Name of a file beside a server that lists, line by line, what it leaves elsewhere when it is killed."""

_GRACE_SECONDS = 10.0
"""How long processes may take that end by themselves with the run, such as resource trackers."""
_SHARED = "shared-"
"""What the name of a file begins with whose rest is the pid of a process that ends with the run."""
_REMOVED_LATER = "flowstone-pytest-"
"""What the name of a directory begins with that our pytest plugin removes when it is unconfigured, after this."""
_ROOT = Path(__file__).parents[1]
_run = pytest.StashKey["Run"]()


class Run:
    """A test run: its directories, and the process that clears up after it.

    Args:
        outer: the directory of temporary files that pytest was started with.
        fast: where to put databases; None: beside the temporary files.
    """

    def __init__(self, outer: str, fast: str | None) -> None:
        self.outer = Path(outer)
        self.temporary = Path(tempfile.mkdtemp(prefix="fs-tests-", dir=outer))
        self.temporary.chmod(0o1777)  # as any such directory: tests of servers write as other users
        self.servers = Path(tempfile.mkdtemp(prefix="fs-tests-", dir=fast)) if fast else self.temporary / "servers"
        self.servers.mkdir(exist_ok=True)
        self.servers.chmod(0o711)  # servers run as other users
        # pytest keeps the directories of its last runs on purpose, where people find them
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", outer)
        self._supervisor = subprocess.Popen(
            [sys.executable, __file__, str(os.getpid()), str(self.temporary), str(self.servers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            start_new_session=True,  # what Ctrl-C interrupts is the run, not what clears up after it
        )
        self._left: list[str] | None = None
        self._previous = {name: os.environ.get(name) for name in (MARK, "TMPDIR")}
        os.environ[MARK] = os.environ["TMPDIR"] = str(self.temporary)
        tempfile.tempdir = None

    def end(self, *, in_order: bool) -> list[str]:
        """Have everything cleared up, and return what should not have been there any more."""
        if self._left is not None:
            return self._left
        for name, value in self._previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        found, _ = self._supervisor.communicate("\n" if in_order else None)
        self._left = found.splitlines()
        return self._left


def in_memory() -> str | None:
    """Return a directory without a disk behind it, if there is one with room.

    A clone of the template takes a tenth of the time there.
    """
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 4 << 30
    return str(shared) if roomy else None


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; tests interrupt processes
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.stash[_run] = Run(tempfile.gettempdir(), in_memory())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    node.workerinput["flowstone_servers"] = str(servers_of(node.config))  # type: ignore[attr-defined]


def servers_of(config: pytest.Config) -> Path:
    """Return the directory in which all workers of pytest-xdist find the servers of this run."""
    worker = getattr(config, "workerinput", None)
    return Path(worker["flowstone_servers"]) if worker else config.stash[_run].servers


def outer_of(config: pytest.Config) -> Path | None:
    """Return the directory of temporary files that pytest was started with; None in a worker of pytest-xdist."""
    run = config.stash.get(_run, None)
    return run.outer if run else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail a run that left something, once the workers of pytest-xdist are through."""
    yield
    run = session.config.stash.get(_run, None)
    if run is None:
        return
    in_order = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if left := run.end(in_order=in_order):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.section("left behind by the tests", red=True)
            for one in left:
                reporter.line(one)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End a run that never came to a session, such as one with a wrong option."""
    run = config.stash.get(_run, None)
    if run is not None:
        run.end(in_order=False)


def may_outlive_its_worker(pid: int) -> None:
    """Let a process that several workers of pytest-xdist share go on until the end of the run, which ends it."""
    (Path(os.environ[MARK]) / f"{_SHARED}{pid}").touch()


# --- the process beside pytest ------------------------------------------------------------------------------


def wait_for_end(parent: int) -> bool:
    """Wait for the end of the run; return whether it said so itself."""
    while os.getppid() == parent:
        ready, _, _ = select.select([sys.stdin], [], [], 0.5)  # a fork without exec may hold the other end
        if ready:
            return os.read(sys.stdin.fileno(), 1) != b""
    return False


def processes_of(mark: str) -> list[psutil.Process]:
    """Return all processes that inherited the mark, work in its directory, or descend from such."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == mark or Path(mark) in Path(process.cwd()).parents:
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return list(found.values())


def end_all(mark: str) -> None:
    """End all processes of a run, those that they start meanwhile too."""
    deadline = time.monotonic() + 20
    while (found := processes_of(mark)) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.Error):
                # a server that is killed leaves its shared memory
                at_once = process.name() == "postgres" and deadline - time.monotonic() > 10
                process.send_signal(signal.SIGQUIT if at_once else signal.SIGKILL)
        time.sleep(0.05)


def main(parent: int, temporary: Path, servers: Path) -> None:
    """Wait for the end of a run, report what it left, and clear up."""
    in_order, left = wait_for_end(parent), list[str]()
    mark = str(temporary)
    deadline = time.monotonic() + _GRACE_SECONDS
    shared = {path.name: path for path in temporary.glob(f"{_SHARED}*")}

    def others() -> list[psutil.Process]:
        return [one for one in processes_of(mark) if f"{_SHARED}{one.pid}" not in shared]

    while in_order and others() and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in others():
        with suppress(psutil.Error):
            left.append(f"process {process.pid}: {' '.join(process.cmdline())[:300]!r}\n")
    end_all(mark)
    for listed in servers.glob(f"*/{LEFT_ELSEWHERE}"):
        for left_there in listed.read_text().splitlines():
            Path(left_there).unlink(missing_ok=True)
    for path in shared.values():
        path.unlink()
    if servers.parent == temporary:
        shutil.rmtree(servers, ignore_errors=True)
    left += [f"file {path}\n" for path in sorted(temporary.glob("*")) if not path.name.startswith(_REMOVED_LATER)]
    for directory in (temporary, servers):
        shutil.rmtree(directory, ignore_errors=True)
    if in_order:
        sys.stdout.writelines(left)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
