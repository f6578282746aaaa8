"""Whatever the command line can do has its place in the pages, or a reason why it has none."""

from __future__ import annotations

from flowstone.cli.commands import COMMANDS
from flowstone.web.registry import actions, pages

PLACES = {
    "ls": "/assets",
    "graph": "/graph",
    "plan": "/launch",
    "materialize": "/launch/place",
    "backfill": "/launch/place",
    "history": "/asset",
    "versions": "/partition",
    "versions ls": "/partition",
    "versions show": "/partition",
    "versions restore": "/partition/restore",
    "versions undo": "/run/undo",
    "versions erase": "/asset/erase",
    "lineage": "/partition",
    "partitions": "/keys",
    "checks": "/checks",
    "why": "/step",
    "runs": "/runs",
    "runs ls": "/runs",
    "runs show": "/run",
    "runs logs": "/run/log",
    "runs cancel": "/run/cancel",
    "runs retry": "/run/retry",
    "runs priority": "/run/priority",
    "runs window": "/run/window",
    "runs pause": "/run/pause",
    "runs resume": "/run/resume",
    "backfills": "/backfill",
    "logs": "/step/log",
    "status": "/step",
    "cancel": "/steps/cancel",
    "retry": "/steps/retry",
    "pause": "/queues/pause",
    "resume": "/queues/resume",
    "schedules": "/automation",
    "sensors": "/automation/details",
    "automation": "/automation/details",
    "approvals": "/approvals",
    "approve": "/approvals/approve",
    "reject": "/approvals/reject",
    "audit": "/audit",
    "notifications": "/notifications",
    "notifications ls": "/notifications",
    "notifications show": "/notifications",
    "notifications retry": "/notifications/retry",
    "workers": "/workers",
    "queues": "/queues",
    "scale": "/queues/scale",
    "doctor": "/system",
    "publications": "/system",
    "db": "/system",
    "db status": "/system",
}
"""The page or the action for a command."""

EXEMPT = {
    "demo": "makes a project of its own on the machine of whoever types it",
    "init": "writes files",
    "dev": "starts the dashboard",
    "check": "reads source files before there is an app to show",
    "worker": "is a process of its own",
    "web": "starts the dashboard",
    "web serve": "starts the dashboard",
    "web passwd": "whoever may steer the app is decided where the file lies, not in a browser",
    "web token": "a token is shown once, to whoever may write the file",
    "executors": "concerns the process that runs assets, which a dashboard is not",
    "notifications test": "sends as the process that types it would, with its network and its secrets",
    "prune": "deletes records for good and reads every storage; it belongs to whoever operates the database",
    "db upgrade": "migrations belong to a deployment; the pages are older than the tables until then",
    "db projects": "a dashboard shows one project, by its settings",
}
"""Why a command has no place."""


def commands() -> set[str]:
    """Return every command as it is typed."""
    found = set()
    for listed in COMMANDS:
        found.add(listed.name)
        found |= {f"{listed.name} {inner.name}" for inner in listed.inside}
    return found


def test_every_command_has_a_place_in_the_pages_or_a_reason() -> None:
    known = {**pages(), **actions()}
    assert commands() - set(PLACES) - set(EXEMPT) == set(), "give it a place, or say why it has none"
    assert (set(PLACES) | set(EXEMPT)) - commands() == set(), "no such command"
    assert set(PLACES) & set(EXEMPT) == set()
    assert {command: path for command, path in PLACES.items() if path not in known} == {}
