"""Checks of `doctor` that ask the database: answer, version, tables, workers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from flowstone.app.database import opened
from flowstone.cli.checks import Check, Verdict
from flowstone.config import Settings
from flowstone.core.shape import AssetShape
from flowstone.errors import FlowStoneError
from flowstone.stores.postgres import migrations, oban_tables
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.health import OLDEST_SERVER, Health, read_health
from flowstone.stores.postgres.migrations import MigrationState, MigrationStatus
from flowstone.stores.postgres.queue import shapes_at_work
from flowstone.stores.postgres.sql import fetch_column, fetch_one

CONNECTIONS_OF_A_WORKER = 26
"""Connections of one worker beside one for each queue: for transactions, Oban, notifications and the lease."""


def database_checks(given: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Check]:
    """Yield what there is to say about the configured database; nothing when the settings cannot be read."""
    try:
        settings = Settings.load(**given)
    except FlowStoneError:
        return  # reported by the checks of the environment
    if settings.database_url is None:
        yield Check(
            "database",
            Verdict.WARN,
            "none: everything stays in memory",
            "For durable runs set FLOWSTONE_DATABASE_URL to postgresql://user@host/database or to embedded.",
        )
        return
    try:
        with opened(settings) as database:
            yield from _requested(database, settings.queues)
    except FlowStoneError as error:
        yield Check("database", Verdict.FAIL, "does not work", str(error))


def _requested(database: Database, queues: Collection[str]) -> Iterator[Check]:
    health = read_health(database)
    yield Check("database", Verdict.OK, f"{database.masked_dsn} answers")
    yield _server(health)
    entries = migrations.status(database)
    yield _project(database, entries)
    upgrade = migrations.upgrade_command(database.project)
    wrong = [f"{entry.name} {entry.state.value}" for entry in entries if entry.state is not MigrationState.APPLIED]
    if not wrong:
        yield Check("migrations", Verdict.OK, f"all {len(entries)} applied")
    elif all(entry.state in (MigrationState.APPLIED, MigrationState.PENDING) for entry in entries):
        yield Check("migrations", Verdict.FAIL, ", ".join(wrong), f"Run `{upgrade}`.")
    else:
        remedy = "Install the version of FlowStone that this database was upgraded with."
        yield Check("migrations", Verdict.FAIL, ", ".join(wrong), remedy)
    yield _oban(database, upgrade)
    yield _workers(health)
    yield _connections(database, health, len(queues))
    if not wrong:
        yield from _declarations(database)


def _oban(database: Database, upgrade: str) -> Check:
    """Say whether work can be placed in Oban's tables, as `db upgrade` and a worker would say it."""
    wrong = oban_tables.problems(database)
    if wrong:
        remedy = f"`{upgrade}` adds what is missing, or says why it cannot; what a role may do, its owner grants."
        return Check("oban tables", Verdict.FAIL, "; ".join(wrong), remedy)
    with database.connection() as connection:
        slow = oban_tables.structure(connection).slow
        neighbours = fetch_column(connection, str, "queue/neighbours")
    if neighbours:
        found = f"there, but others serve queues of the same name: {', '.join(neighbours)}"
        remedy = "They take FlowStone's jobs, which they cannot run: give queues other names on one side."
        return Check("oban tables", Verdict.WARN, found, remedy)
    if slow:
        remedy = f"Run `{upgrade}` as the owner of oban_jobs."
        return Check("oban tables", Verdict.WARN, f"there, without the indexes {', '.join(slow)}", remedy)
    return Check("oban tables", Verdict.OK, "there, with all that is needed")


def _project(database: Database, entries: Sequence[MigrationStatus]) -> Check:
    project = database.project
    with database.connection() as connection:
        others = [name for name in migrations.projects(connection) if name != project.name]
    found = f"{project.name} (schema {project.schema})" + (f"; also there: {', '.join(others)}" if others else "")
    if others and not any(entry.applied_at for entry in entries):
        remedy = f"Run `{migrations.upgrade_command(project)}`, or name another one with FLOWSTONE_PROJECT."
        return Check("project", Verdict.FAIL, f"{found}; it has no tables yet", remedy)
    return Check("project", Verdict.OK, found)


def _server(health: Health) -> Check:
    if health.major >= OLDEST_SERVER:
        return Check("server", Verdict.OK, f"PostgreSQL {health.version}")
    remedy = f"FlowStone needs PostgreSQL {OLDEST_SERVER} or newer."
    return Check("server", Verdict.FAIL, f"PostgreSQL {health.version}", remedy)


def _declarations(database: Database) -> Iterator[Check]:
    """Compare what each two living workers and applications declare of their assets."""
    first: dict[str, tuple[str, AssetShape]] = {}
    for who, _kind, assets in shapes_at_work(database):
        for name, described in assets.items():
            shape = AssetShape.from_json(described)
            other, declared = first.setdefault(name, (who, shape))
            if different := shape.difference(declared):
                remedy = (
                    "Steps are run by those only that declare what they were placed with. End the ones with "
                    "the old code, or give unrelated applications projects of their own (FLOWSTONE_PROJECT)."
                )
                yield Check(
                    f"asset {name}", Verdict.WARN, f"{who} declares {different}, as {other} has it", remedy
                )


def _connections(database: Database, health: Health, queues: int) -> Check:
    """Say whether there is room for the connections of the workers that run, or of one."""
    with database.connection() as connection:
        found = fetch_one(connection, _Connections, "health/connections")
    assert found is not None
    maximum, used = found.maximum, found.used
    room = min(limit for limit in (maximum, found.of_role, found.of_database) if limit is not None and limit >= 0)
    workers = max(1, sum(worker.kind == "node" for worker in health.workers or ()))
    need = workers * (queues + CONNECTIONS_OF_A_WORKER)
    message = f"{room} for clients, {used} in use; {workers} worker{'s' * (workers > 1)} may need {need}"
    if room - used >= 3 and room >= need:
        return Check("connections", Verdict.OK, message)
    remedy = "Raise max_connections (or CONNECTION LIMIT of the role or database), or run fewer workers."
    return Check("connections", Verdict.WARN if room - used >= 3 else Verdict.FAIL, message, remedy)


class _Connections(NamedTuple):
    """How many connections clients may have in all, as this role and to this database, and how many there are."""

    maximum: int
    of_role: int | None
    of_database: int | None
    used: int


def _workers(health: Health) -> Check:
    nodes = [worker for worker in health.workers or () if worker.kind == "node"]
    if nodes:
        listed = ", ".join(f"{worker.id} ({worker.host}, pid {worker.pid})" for worker in nodes[:5])
        return Check("workers", Verdict.OK, f"{len(nodes)} alive: {listed}")
    remedy = "Durable work waits until one runs: `flowstone worker --app module:attribute`."
    return Check("workers", Verdict.WARN, "none alive", remedy)
