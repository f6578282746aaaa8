"""`worker`: one worker node in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Annotated

import typer

from flowstone.app.worker import left_off, serve
from flowstone.cli.session import Session
from flowstone.errors import ConfigurationError, command

Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", metavar="NAME[=LIMIT]", help="A queue to work on and how many steps at once."),
]
Automation = Annotated[
    bool,
    typer.Option("--automation/--no-automation", help="Start schedules, sensors and conditions by themselves."),
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Steps at once on each queue that is given no limit.")
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
