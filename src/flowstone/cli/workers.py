"""Worker processes and the fleet: `worker`, `queues`, `scale`, `executors`, `workers`.

`Workers`, with which `demo` starts, watches and stops processes by their own ids, comes first.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

import typer

from flowstone.app import database
from flowstone.app.worker import left_off, serve
from flowstone.cli.dev import Concurrency, Queues
from flowstone.cli.known_names import offers
from flowstone.cli.output import Column, duration, moment, one_line
from flowstone.cli.session import Session
from flowstone.core.control import QueueStatus
from flowstone.errors import ConfigurationError, OptionsError, command

_POLL_SECONDS = 0.1


class Workers:
    """Worker processes of this machine; leaving the block stops them.

    Args:
        arguments: of `flowstone`, such as `["worker", "--app", "shop:flow"]`.
        environment: variables on top of those of this process.
        count: how many.
        grace_seconds: how long they get to end after SIGTERM: their own grace and 20 s.
        log: file for what they write; None for standard error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        count: int = 1,
        grace_seconds: float = 50.0,
        log: Path | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", "flowstone", *arguments]
        self._environment = {**os.environ, **environment}
        self._count = count
        self._grace = grace_seconds
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._processes.append(self._start())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        """Process ids of those that were started."""
        return [process.pid for process in self._processes]

    def ended(self) -> list[int]:
        """Return the exit codes of those that are over."""
        return [process.returncode for process in self._processes if process.poll() is not None]

    def wait(self) -> int:
        """Wait until one of them ends and return its exit code."""
        while not (over := self.ended()):
            time.sleep(_POLL_SECONDS)
        return over[0]

    def stop(self) -> None:
        """Ask them to stop, wait for the grace, then kill; stopping twice is no error."""
        try:
            for process in self._processes:
                if process.poll() is None:
                    process.terminate()
            deadline = time.monotonic() + self._grace
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))
        finally:  # also when a second Ctrl-C ends the patience
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # a session of its own: Ctrl-C goes to us alone, and we stop them in order
        with self._log.open("ab") if self._log else nullcontext(sys.stderr) as file:
            return subprocess.Popen(  # noqa: S603 - our own program
                self._command, env=self._environment, stdout=file, stderr=file, start_new_session=True
            )


Automation = Annotated[
    bool,
    typer.Option("--automation/--no-automation", help="Start schedules, sensors and conditions by themselves."),
]


def worker(
    session: Session,
    *,
    queues: Queues = None,
    concurrency: Concurrency = None,
    name: Annotated[str | None, typer.Option(help="Name of this worker; default: host and process.")] = None,
    grace_seconds: Annotated[
        float | None, typer.Option("--grace", min=0.0, help="Seconds that running steps get when it is stopped.")
    ] = None,
    automation: Automation = True,
    health_port: Annotated[
        int | None,
        typer.Option("--health-port", min=0, max=65535, help="Answer /live, /ready and /metrics there; 0: any."),
    ] = None,
    health_host: Annotated[str, typer.Option("--health-host", help="Address for that.")] = "127.0.0.1",
) -> int:
    """Work on queues until SIGTERM, SIGHUP or Ctrl-C; a second signal leaves at once."""
    logging.getLogger("flowstone").setLevel(logging.INFO)  # what its steps do is what a worker is there for
    requested = read_queues(queues or [], concurrency, session.flow.settings.queues)
    listed = ", ".join(f"{one}={limit}" for one, limit in (requested or session.flow.settings.queues).items())
    off = "" if automation else left_off(session.flow)
    if off:
        session.out.note(
            f"Automation is off: {off} of this app start nothing by themselves. --automation starts them; "
            f"`{command('schedules', 'run', 'NAME')}` runs one now."
        )
    code = serve(
        session.flow,
        queues=requested,
        name=name,
        grace_seconds=grace_seconds,
        ends_process=True,
        automation=automation,
        health_port=health_port,
        health_host=health_host,
        on_health=lambda address: session.out.note(f"Worker {os.getpid()} answers {address}/metrics."),
        on_ready=lambda: session.out.note(f"Worker {os.getpid()} is ready: {listed}."),
    )
    if session.out.as_json:
        session.out.json({"exit_code": code})
    return code


def read_queues(given: list[str], concurrency: int | None, configured: Mapping[str, int]) -> dict[str, int] | None:
    """Return the limit of each queue that was asked for; None for those of the settings.

    Args:
        given: `name` or `name=limit`, each.
        concurrency: limit for queues without one.
        configured: limits in the settings.

    Raises:
        ConfigurationError: a limit is no whole number above 0.

    Example:
        >>> read_queues(["assets=3", "priority"], None, {"assets": 10, "priority": 5})
        {'assets': 3, 'priority': 5}
    """
    if not given:
        return None if concurrency is None else dict.fromkeys(configured, concurrency)
    found: dict[str, int] = {}
    for text in given:
        name, equals, limit = text.partition("=")
        if equals and not (limit.isdecimal() and int(limit) > 0):
            raise ConfigurationError(f"--queue {text!r}: the limit must be a whole number above 0.")
        if not name.strip():
            raise ConfigurationError(f"--queue {text!r}: write NAME or NAME=LIMIT, such as assets=10.")
        found[name] = int(limit) if equals else (concurrency or configured.get(name, 10))
    return found


def queues(session: Session) -> None:
    """List the queues that are set or have work: paused, limit per worker, available, scheduled, executing."""
    found = session.records.queues.list()
    if session.out.as_json:
        listed = [
            {
                "name": queue.name,
                "paused": queue.paused,
                "limit": queue.node_limit,
                "declared_limits": list(queue.declared_limits),
                "scaled": queue.is_scaled,
                "available": queue.available,
                "scheduled": queue.scheduled,
                "executing": queue.executing,
                "paused_nodes": queue.paused_nodes,
            }
            for queue in found
        ]
        session.out.json({"queues": listed})
        return
    columns = [
        Column("QUEUE"),
        Column("PAUSED"),
        Column("PER WORKER", rank=1, right=True),
        Column("AVAILABLE", right=True),
        Column("SCHEDULED", rank=2, right=True),
        Column("EXECUTING", right=True),
    ]
    rows = [
        [
            queue.name,
            _paused(queue),
            _limit(queue),
            f"{queue.available:,}",
            f"{queue.scheduled:,}",
            f"{queue.executing:,}",
        ]
        for queue in found
    ]
    session.out.table(columns, rows)


def _paused(queue: QueueStatus) -> str:
    if queue.paused_nodes:
        return "by Oban" if queue.paused else f"by Oban on {queue.paused_nodes}"
    return "yes" if queue.paused else ""


def _limit(queue: QueueStatus) -> str:
    """Return how many steps run at once on each worker, and what they declare when that was changed."""
    declared = " or ".join(map(str, queue.declared_limits))
    if queue.node_limit is None:
        return declared
    return f"{queue.node_limit} (set; {f'workers declare {declared}' if declared else 'no worker serves it'})"


def scale(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="QUEUE", help="A queue, in the whole fleet.", autocompletion=offers("queues"))
    ],
    limit: Annotated[
        int | None, typer.Argument(metavar="[LIMIT]", help="Steps at once on each worker, 1 to 1000.")
    ] = None,
    *,
    reset: Annotated[bool, typer.Option("--reset", help="As many as each worker declares again.")] = False,
) -> None:
    """Let each worker run so many steps of a queue at once; takes effect within about a second, and is kept."""
    if (limit is None) != reset:
        raise OptionsError(f"Give either the limit, `{command('scale', name, '5')}`, or --reset, one of them.")
    session.records.queues.scale(name, limit)
    if session.out.as_json:
        session.out.json({"kind": "queue", "id": name, "limit": limit})
    elif limit is None:
        session.out.line(f"queue {one_line(name)}: each worker runs as many at once as it declares.")
    else:
        undo = command("scale", name, reset=True)
        session.out.line(f"queue {one_line(name)}: at most {limit} at once on each worker; {undo} undoes it.")


def executors(session: Session) -> None:
    """List the executors that `--executor` takes, what each declares, and whether it can be used here."""
    # without an app, those that every app has
    view = (session.flow if session.names_an_app else session.without_app()).executors
    default = view.default()
    problems = {name: view.problem(name) for name in view.names()}
    declared = {
        name: sorted(view.capabilities(name))
        for name, problem in problems.items()
        if not problem or name == "oban"
    }
    if session.out.as_json:
        listed = [
            {
                "name": name,
                "capabilities": [str(one) for one in declared.get(name, ())],
                "default": name == default,
                "available": problem is None,
                "problem": problem,
            }
            for name, problem in problems.items()
        ]
        session.out.json({"executors": listed})
        return
    columns = [Column("EXECUTOR"), Column("DEFAULT"), Column("HERE"), Column("CAPABILITIES", rank=1)]
    rows = [
        [name, "yes" if name == default else "", "no" if problem else "yes", ", ".join(declared.get(name, ()))]
        for name, problem in problems.items()
    ]
    session.out.table(columns, rows)
    for problem in problems.values():
        if problem:
            session.out.note(problem)


def workers(session: Session) -> None:
    """List the living workers, and the applications that run steps themselves: queues, since when, last beat."""
    flow = session.records
    found = database.workers(flow.settings)
    if session.out.as_json:
        listed = [
            {**one, "started_at": one["started_at"].isoformat(), "beat_at": one["beat_at"].isoformat()}
            for one in found
        ]
        session.out.json({"project": flow.settings.project, "workers": listed})
        return
    session.note_project(flow.settings)
    columns = [
        Column("WORKER"),
        Column("KIND", rank=3),
        Column("HOST", rank=2),
        Column("PID", right=True),
        Column("QUEUES", rank=1),
        Column("SINCE", rank=4),
        Column("LAST BEAT", right=True),
    ]
    now = datetime.now(UTC)
    rows = [
        [
            one["id"],
            one["kind"],
            one["host"],
            str(one["pid"]),
            ", ".join(f"{name}={limit}" for name, limit in sorted(one["queues"].items())),
            moment(one["started_at"]),
            f"{duration(max(0.0, (now - one['beat_at']).total_seconds()))} ago",
        ]
        for one in found
    ]
    session.out.table(columns, rows)
