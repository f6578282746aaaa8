"""A real Dask cluster for tests: a scheduler and workers as processes of their own, known by their ids."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from flowstone.compute import DaskCompute
from flowstone.testing.marks import wait_until

ROOT = Path(__file__).parents[2]


class Cluster:
    """A scheduler and its workers on this machine."""

    def __init__(
        self, directory: Path, *, allowed_failures: int = 0, environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.environment = dict(environment or {})
        self.allowed_failures = allowed_failures
        self.port = _free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int = 2) -> None:
        """Start everything, and wait until it answers."""
        self.start_scheduler()
        for _ in range(workers):
            self.start_worker()

    def start_scheduler(self) -> None:
        """Start the scheduler, at the same address each time."""
        self.scheduler = self._spawn(
            "distributed.cli.dask_scheduler",
            ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"],
        )

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start another worker: one process, without a nanny that would start it again."""
        options = ["--no-nanny", "--nthreads", "4", "--no-dashboard", "--host", "127.0.0.1"]
        options += ["--local-directory", str(self.directory / "dask"), "--death-timeout", "60"]
        worker = self._spawn("distributed.cli.dask_worker", [self.address, *options])
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """End every process that was started here."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            if process.poll() is None:
                kill_group(process.pid)
            process.wait()

    def _spawn(
        self, program: str | Path, options: Sequence[str], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        environment = (
            os.environ
            | self.environment
            | {
                "PYTHONPATH": str(ROOT),
                "DASK_TEMPORARY_DIRECTORY": str(self.directory / "dask"),  # the scheduler has files too
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(self.allowed_failures),
            }
        )
        with (self.directory / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *(["-m", program] if isinstance(program, str) else [program]), *options],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
                start_new_session=True,
            )

    def wait_ready(self, compute: DaskCompute, workers: int) -> None:
        """Wait until the scheduler knows so many workers."""

        def there() -> bool:
            found = [found for verdict, found, _ in compute.diagnose() if verdict == "ok"]
            return any(f"with {workers} worker" in one for one in found)

        assert wait_until(there, timeout_seconds=90), (self.directory / "dask.log").read_text()


class OneProgram(Cluster):
    """A `LocalCluster` with two worker processes, as a program of its own: nannies start workers again."""

    program = (
        "import sys\nfrom distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    options = dict(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None)\n"
        "    with LocalCluster(host='127.0.0.1', scheduler_port=int(sys.argv[1]), **options):\n"
        "        sys.stdin.read()\n"
    )

    def start(self, workers: int = 2) -> None:
        """Start the program, which has the scheduler in its own process."""
        file = self.directory / "local_cluster.py"
        file.write_text(self.program)
        self.scheduler = self._spawn(file, [str(self.port)], stdin=subprocess.PIPE)


def kill_group(group: int) -> None:
    """Kill every process of a group but the one that removes what they leave, such as their semaphores."""
    while members := list(_members(group)):
        for one in members:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        time.sleep(0.01)


def _members(group: int) -> Iterator[psutil.Process]:
    for one in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            alive = os.getpgid(one.pid) == group and one.status() != psutil.STATUS_ZOMBIE
            if alive and "multiprocessing.resource_tracker" not in " ".join(one.cmdline()):
                yield one


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def cluster_of(
    directory: Path,
    *,
    workers: int = 2,
    allowed_failures: int = 0,
    environment: Mapping[str, str] | None = None,
    kind: type[Cluster] = Cluster,
) -> Iterator[Cluster]:
    """A cluster that is gone afterwards."""
    directory.mkdir(exist_ok=True)
    cluster = kind(directory, allowed_failures=allowed_failures, environment=environment)
    try:
        cluster.start(workers)
        compute = DaskCompute(cluster.address)
        cluster.wait_ready(compute, workers)
        compute.close()
        yield cluster
    finally:
        cluster.close()
