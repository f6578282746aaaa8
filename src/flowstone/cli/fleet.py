"""The fleet: `queues`, `scale`, `executors`, `workers`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from flowstone.app import database
from flowstone.cli.output import Column, duration, moment, one_line
from flowstone.cli.session import Session
from flowstone.core.control import QueueStatus
from flowstone.errors import OptionsError, command


def queues(session: Session) -> None:
    """List the queues that are set or have work: paused, limit per worker, available, scheduled, executing."""
    found = session.flow.queues.list()
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
    name: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue, in the whole fleet.")],
    limit: Annotated[
        int | None, typer.Argument(metavar="[LIMIT]", help="Steps at once on each worker, 1 to 1000.")
    ] = None,
    *,
    reset: Annotated[bool, typer.Option("--reset", help="As many as each worker declares again.")] = False,
) -> None:
    """Let each worker run so many steps of a queue at once; takes effect within about a second, and is kept."""
    if (limit is None) != reset:
        raise OptionsError(f"Give either the limit, `{command('scale', name, '5')}`, or --reset, one of them.")
    session.flow.queues.scale(name, limit)
    if session.out.as_json:
        session.out.json({"kind": "queue", "id": name, "limit": limit})
    elif limit is None:
        session.out.line(f"queue {one_line(name)}: each worker runs as many at once as it declares.")
    else:
        undo = command("scale", name, reset=True)
        session.out.line(f"queue {one_line(name)}: at most {limit} at once on each worker; {undo} undoes it.")


def executors(session: Session) -> None:
    """List the executors that `--executor` takes, what each declares, and whether it can be used here."""
    view = session.flow.executors
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
    found = database.workers(session.flow.settings)
    if session.out.as_json:
        listed = [
            {**one, "started_at": one["started_at"].isoformat(), "beat_at": one["beat_at"].isoformat()}
            for one in found
        ]
        session.out.json({"project": session.flow.settings.project, "workers": listed})
        return
    session.note_project(session.flow.settings)
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
