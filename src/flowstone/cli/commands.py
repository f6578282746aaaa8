"""The list of all commands: where each is written, in which group help shows it, and what it does in a few words.

`flowstone --help` and the completion of a shell read this table alone; the module of a command is loaded, with
what it imports in turn, when that command is called. A new command is a line here.
"""

from __future__ import annotations

from dataclasses import dataclass

START = "Start here"
ASSETS = "Assets and their values"
RUNS = "Runs"
AUTOMATION = "What runs by itself"
PEOPLE = "Decisions of people"
WORK = "Workers and queues"
DATABASE = "Database"
PANELS = (START, ASSETS, RUNS, AUTOMATION, PEOPLE, WORK, DATABASE)
"""Headings of `flowstone --help`, in order."""

FAILS = {
    "materialize": "1 when the asset failed",
    "backfill": "1 when something failed",
    "runs retry": "1 when something failed again",
    "runs show": "1 with --watch when the run did not complete",
    "backfills": "1 with --watch when it did not complete",
    "retry": "1 when something failed again",
    "checks": "1 when a check that was run failed",
    "check": "1 when something declared cannot work, or with --strict when there is a warning",
    "doctor": "1 when something has to be done",
    "versions erase": "1 when a value could not be deleted",
    "db status": "1 when the tables are not current",
    "publications": "1 with --publish when something is still not visible",
    "notifications test": "1 when a message could not be sent",
    "sensors": "1 when the function of the sensor failed",
    "worker": "1 when it had to stop by itself",
    "dev": "1 when a part of it ended by itself",
}
"""What exit code 1 means for a command, where it is more than that the database failed."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A command, or a group of them.

    Args:
        name: what a user types.
        place: `module:function` below `flowstone.cli`; empty for a group.
        panel: heading of help under which it stands; empty inside of a group.
        summary: what it does in a few words, for the list; its own help says more.
        inside: commands of a group.
        bare: the command of a group that is meant when none is named.
        one: the command of a group that is meant by an argument that names none.
    """

    name: str
    place: str
    panel: str
    summary: str
    inside: tuple[Listed, ...] = ()
    bare: str = ""
    one: str = ""


COMMANDS: tuple[Listed, ...] = (
    Listed("demo", "demo:demo", START, "Analyse a git repository: all of FlowStone in one command"),
    Listed("init", "project:init", START, "Make a project that runs at once"),
    Listed("dev", "dev:dev", START, "Database, pages and worker, in one terminal"),
    Listed("check", "project:check", START, "Check the app's declarations, for CI"),
    Listed("doctor", "doctor:doctor", START, "Check this installation and say what to do"),
    Listed("ls", "assets:ls", ASSETS, "List assets, and how much of them is committed"),
    Listed("graph", "assets:graph", ASSETS, "Draw assets and their dependencies"),
    Listed("plan", "assets:plan", ASSETS, "Show what would run, without running it"),
    Listed("materialize", "materialize:materialize", ASSETS, "Compute an asset, or what is missing for it"),
    Listed("backfill", "materialize:backfill", ASSETS, "Compute many partitions"),
    Listed("history", "assets:history", ASSETS, "List the committed versions of an asset"),
    Listed(
        "versions",
        "",
        ASSETS,
        "Versions of an asset: list, restore, undo, erase",
        inside=(
            Listed("ls", "versions:ls", "", "List versions, newest first"),
            Listed("show", "versions:show", "", "Show one version"),
            Listed("restore", "versions:restore", "", "Put an earlier version in use again"),
            Listed("undo", "versions:undo", "", "Undo what a run published"),
            Listed("erase", "versions:erase", "", "Erase a partition for good"),
        ),
    ),
    Listed("lineage", "lineage:lineage", ASSETS, "What a value was made from, and what from it"),
    Listed("partitions", "partitions:partitions", ASSETS, "Keys of dynamic partitions"),
    Listed("checks", "checks:checks", ASSETS, "What checks found; run them again"),
    Listed("why", "assets:why", ASSETS, "Why an asset does not run, or what it is doing"),
    Listed(
        "runs",
        "",
        RUNS,
        "List runs, show one, steer them",
        inside=(
            Listed("ls", "runs:ls", "", "List runs by a filter; what `runs` alone means"),
            Listed("show", "runs:show", "", "Show a run: what broke first, its assets, its steps"),
            Listed("logs", "logs:logs", "", "What the steps of a run log"),
            Listed("cancel", "steering:cancel", "", "End runs: one, or all that match a filter"),
            Listed("retry", "steering:retry", "", "Run again what a run did not get done"),
            Listed("priority", "steering:priority", "", "Give runs another priority"),
            Listed("window", "steering:window", "", "Change how many steps of a run are placed at once"),
            Listed("pause", "steering:pause", "", "Start nothing more of a run"),
            Listed("resume", "steering:resume", "", "Go on with a run"),
        ),
        bare="ls",
        one="show",
    ),
    Listed("backfills", "runs:backfills", RUNS, "List backfills, how far and how fast they are"),
    Listed("logs", "logs:logs", RUNS, "Show what a step, or a run, logs"),
    Listed("status", "runs:status", RUNS, "Show a step with its attempts, or a run"),
    Listed("cancel", "steering:cancel", RUNS, "End a step or a run"),
    Listed("retry", "steering:retry", RUNS, "Run again what a run did not get done"),
    Listed("pause", "steering:pause", RUNS, "Start nothing more of a run or a queue"),
    Listed("resume", "steering:resume", RUNS, "Go on with a run or a queue"),
    Listed("schedules", "automation:schedules", AUTOMATION, "List, pause, resume or run schedules"),
    Listed("sensors", "automation:sensors", AUTOMATION, "List, preview, pause, resume or run sensors"),
    Listed("automation", "automation:automation", AUTOMATION, "Conditions of assets, and what they came to"),
    Listed("approvals", "approvals:approvals", PEOPLE, "List what waits for a decision"),
    Listed("approve", "approvals:approve", PEOPLE, "Let a step go on"),
    Listed("reject", "approvals:reject", PEOPLE, "Fail a step for good"),
    Listed("audit", "approvals:audit", PEOPLE, "List who did what"),
    Listed(
        "notifications",
        "",
        PEOPLE,
        "What people are notified of, and what could not be sent",
        inside=(
            Listed("ls", "notifications:ls", "", "List notifications; what `notifications` alone means"),
            Listed("show", "notifications:show", "", "Show a notification with its message"),
            Listed("test", "notifications:send_test", "", "Send a test message"),
            Listed("retry", "notifications:retry", "", "Send again what could not be sent"),
        ),
        bare="ls",
        one="show",
    ),
    Listed("worker", "workers:worker", WORK, "Work on queues until it is stopped"),
    Listed("workers", "workers:workers", WORK, "List living workers"),
    Listed("queues", "workers:queues", WORK, "List queues and what they hold"),
    Listed("scale", "workers:scale", WORK, "Change how much of a queue runs at once"),
    Listed("executors", "workers:executors", WORK, "List what --executor takes"),
    Listed(
        "web",
        "",
        WORK,
        "Serve the dashboard, and say who may use it",
        inside=(
            Listed("serve", "web:serve", "", "Serve the dashboard; what `web` alone means"),
            Listed("passwd", "web:passwd", "", "Give a person a password and a role"),
            Listed("token", "web:token", "", "Make a token of the JSON API"),
        ),
        bare="serve",
    ),
    Listed(
        "db",
        "",
        DATABASE,
        "The tables of FlowStone in PostgreSQL",
        inside=(
            Listed("upgrade", "database:upgrade", "", "Bring the tables to this version"),
            Listed("status", "database:status", "", "Show which migrations are applied"),
            Listed("projects", "database:projects", "", "List the projects of a database"),
        ),
    ),
    Listed("prune", "retention:prune", DATABASE, "Delete history that nothing needs"),
    Listed("publications", "retention:publications", DATABASE, "List what other readers do not see yet"),
)
