"""Worker processes of a fault test, what they did, and how to harm them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.faults import fault_app
from tests.worker_app import DIRECTORY
from tests.worker_processes import ROOT, WorkerProcess, start_worker

from flowstone import FlowStone
from flowstone.stores.postgres.database import Database
from flowstone.testing.injection import DIRECTORY as KILL_DIRECTORY
from flowstone.testing.injection import KillPoints
from flowstone.testing.marks import wait_until

MAX_WAIT_SECONDS = 90.0
QUEUES = {"assets": 4, "backfill": 4}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the side-effect log; `at` is a clock that all processes of the machine share."""

    event: str
    asset: str
    key: str
    attempt: int
    token: int
    pid: int
    at: float


class Worker:
    """A worker process."""

    def __init__(self, process: WorkerProcess, log: Path, ready: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log = log
        self._ready = ready

    @property
    def message(self) -> str:
        """Its log so far."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_ready(self) -> None:
        check(lambda: self._ready.exists() or not self.alive, lambda: f"worker not ready:\n{self.message}")
        assert self.alive, self.message

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait_stopped(self) -> None:
        """Wait until the kernel says that it is stopped."""
        stat = Path(f"/proc/{self.pid}/stat")
        check(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", lambda: "not stopped")

    def wait_exit(self, timeout_seconds: float = MAX_WAIT_SECONDS) -> int:
        try:
            return self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end:\n{self.message}") from None


class Fleet:
    """Workers on one database, their client, and the log of what their assets did.

    Args:
        directory: where everything lies.
        database_url: for the client, and for workers that are given no other.
    """

    app = "tests.faults.fault_app"
    """Module whose `main` a worker runs."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.directory = directory / "fleet"
        self.directory.mkdir()
        self.database_url = database_url
        self.storage = str(directory / "storage")
        self.workers: list[Worker] = []
        self.kill_points = KillPoints(self.directory / "kills")
        self.flow = self.client()

    def client(self) -> FlowStone:
        """Return another client."""
        return fault_app.make_flow(self.database_url, self.storage)

    def spawn(self, *, queues: Mapping[str, int] | None = None, url: str | None = None, **more: str) -> Worker:
        """Start a worker without waiting for it."""
        environment = self.environment(url) | {"FAULTS_QUEUES": json.dumps(queues or QUEUES)} | more
        log = self.directory / f"worker-{len(self.workers)}.log"
        process = start_worker(self.app, environment, log)
        worker = Worker(process, log, self.directory / f"ready-{process.pid}")
        self.workers.append(worker)
        return worker

    def start(self, number: int = 1, **options: Any) -> list[Worker]:
        """Start workers and wait until they take work."""
        started = [self.spawn(**options) for _ in range(number)]
        for worker in started:
            worker.wait_ready()
        return started

    def environment(self, url: str | None = None) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "FLOWSTONE_DATABASE_URL": url or self.database_url,
            "FLOWSTONE_STORAGE": self.storage,
            DIRECTORY: str(self.directory),
            KILL_DIRECTORY: str(self.directory / "kills"),
        }

    def close(self) -> None:
        """End every worker that is left, then the client."""
        for worker in self.workers:
            if worker.alive:
                worker.signal(signal.SIGCONT)
                worker.kill()
        self.flow.close()

    # --- work and harm ------------------------------------------------------------------------------------

    def place(self, selection: str, partition: str | None = None, **how: Any) -> str:
        """Place a run of an asset and what is missing upstream of it without waiting; return its id."""
        how.setdefault("executor_opts", {"wait_timeout": 0.001})
        return self.flow.materialize_all(selection, partition=partition, **how).run_id

    def place_many(self, selection: str, number: int, **how: Any) -> str:
        """Place a backfill of the first so many partitions without waiting; return its run's id."""
        how.setdefault("executor_opts", {"wait_timeout": 0.001})
        return self.flow.backfill(selection, partitions=fault_app.ITEMS[:number], **how).run_id

    @contextmanager
    def holding_lock(self, key: int) -> Iterator[None]:
        """Hold an advisory lock, on which the test lets a transaction wait."""
        with Database(self.database_url).dedicated() as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [key])
            yield

    def waiting_for_lock(self) -> bool:
        """Whether a transaction waits for an advisory lock."""
        return bool(self.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))

    def heartbeats(self, worker: Worker) -> list[int]:
        """Return the processes that renew the lease of a worker."""
        found = []
        for child in psutil.Process(worker.pid).children():
            with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                if any("heartbeat_process" in part for part in child.cmdline()):
                    found.append(child.pid)
        return found

    def supervise(self, number: int, *, until: Callable[[], bool], **options: Any) -> None:
        """Keep so many workers alive until a condition holds."""

        def poll() -> bool:
            living = sum(worker.alive for worker in self.workers)
            for _ in range(number - living):
                self.spawn(**options)
            return until()

        self.wait(poll, "the end of supervision")

    # --- what happened ------------------------------------------------------------------------------------

    def events(self, event: str | None = None, asset: str | None = None, key: str | None = None) -> list[Event]:
        """Return the side effects so far."""
        file = self.directory / "events"
        # the last line may be being written: it is read in pieces where it goes over the end of a page
        lines = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
        found = [Event(**json.loads(line)) for line in lines]
        return [
            one
            for one in found
            if (event is None or one.event == event)
            and (asset is None or one.asset == asset)
            and (key is None or one.key == key)
        ]

    def wait_event(self, event: str, asset: str, *, count: int = 1) -> list[Event]:
        """Wait until something happened that often."""
        check(lambda: len(self.events(event, asset)) >= count, lambda: self.report(f"{count} {event} of {asset}"))
        return self.events(event, asset)

    def open_gate(self, *names: str) -> None:
        for name in names:
            (self.directory / f"open-{name}").touch()

    def wait(
        self, condition: Callable[[], object], what: str, *, timeout_seconds: float = MAX_WAIT_SECONDS
    ) -> None:
        check(condition, lambda: self.report(what), timeout_seconds=timeout_seconds)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the database behind the workers' back."""
        with Database(self.database_url).dedicated() as connection:
            return connection.execute(sql, parameters).fetchall()  # type: ignore[arg-type]

    def execute(self, sql: str, *parameters: object) -> None:
        with Database(self.database_url).dedicated() as connection:
            connection.execute(sql, parameters)  # type: ignore[arg-type]

    def states(self, asset: str) -> list[str]:
        return [
            row[0] for row in self.rows("SELECT state FROM flowstone.steps WHERE asset = %s ORDER BY id", asset)
        ]

    def attempts(self, asset: str) -> list[tuple[Any, ...]]:
        """Return number, state and kind of error of each attempt of an asset's steps that is over."""
        return self.rows(
            """SELECT a.attempt, a.state, a.error_type FROM flowstone.attempts AS a
            JOIN flowstone.steps AS s ON s.id = a.step_id WHERE s.asset = %s ORDER BY s.id, a.attempt""",
            asset,
        )

    def wait_over(self, run_ids: Sequence[str] = (), *, timeout_seconds: float = MAX_WAIT_SECONDS) -> None:
        """Wait until these runs, or all of them, are over."""
        sql = "SELECT count(*) FROM flowstone.runs WHERE state = 'running' AND (%s OR id = ANY(%s))"
        self.wait(
            lambda: self.rows(sql, not run_ids, list(run_ids))[0][0] == 0,
            "the runs to be over",
            timeout_seconds=timeout_seconds,
        )

    def report(self, what: str) -> str:
        """Say what is there instead of what was waited for."""
        steps = self.rows("SELECT state, count(*) FROM flowstone.steps GROUP BY 1")
        logs = "\n".join(f"--- worker {worker.pid}\n{worker.message[-3000:]}" for worker in self.workers)
        return f"waited for {what}; steps: {steps}; last events: {self.events()[-5:]}\n{logs}"


def check(
    condition: Callable[[], object], why: Callable[[], str], *, timeout_seconds: float = MAX_WAIT_SECONDS
) -> None:
    """Wait for a condition; fail with a reason that is made only then."""
    if not wait_until(lambda: bool(condition()), timeout_seconds=timeout_seconds):
        raise AssertionError(why())


@contextmanager
def fleet_of(directory: Path, database_url: str) -> Iterator[Fleet]:
    """A fleet that is gone afterwards."""
    fleet = Fleet(directory, database_url)
    try:
        yield fleet
    finally:
        fleet.close()
