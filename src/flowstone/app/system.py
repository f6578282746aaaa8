"""The installation as data: checks, migrations, tables, settings, and what watching it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from flowstone.app.build import Parts
from flowstone.app.diagnostics import (
    Verdict,
    checks_of_open_database,
    environment_checks,
    publication_checks,
)
from flowstone.core.insights.overview import PoolUse, TableSize
from flowstone.errors import FlowStoneError
from flowstone.stores.postgres import migrations
from flowstone.stores.postgres.store import PostgresStore


@dataclass(frozen=True, slots=True)
class SystemCheck:
    """A part of the installation.

    Args:
        name: what was checked.
        state: `ok`, `warn` or `fail`.
        detail: what was found.
        remedy: what to do; empty when it is fine.
    """

    name: str
    state: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True)
class MigrationLine:
    """A migration.

    Args:
        name: its name.
        state: whether it is applied.
        applied_at: when.
    """

    name: str
    state: str
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class System:
    """The installation.

    Args:
        checks: its parts, what is wrong first.
        settings: what is set, with secrets masked, and where each comes from.
        migrations: the migrations of the tables, the newest first.
        tables: the tables with their sizes, the largest first.
        connections: connections of this process.
        pulse_ms: how long the question takes that is asked once a second while people watch.
        store: what kind of store it is.
        project: whose tables these are.
    """

    checks: tuple[SystemCheck, ...]
    settings: tuple[SystemCheck, ...]
    migrations: tuple[MigrationLine, ...]
    tables: tuple[TableSize, ...]
    connections: tuple[PoolUse, ...]
    pulse_ms: float
    store: str
    project: str


def system(parts: Parts, *, main: Parts | None = None) -> System:
    """Return the installation of an app.

    Args:
        parts: of the app, or of whoever only reads.
        main: of the app, when `parts` only read.
    """
    store, settings = parts.store, parts.settings
    found = list(environment_checks(settings=settings))
    lines: tuple[MigrationLine, ...] = ()
    if isinstance(store, PostgresStore):
        found += checks_of_open_database(store.database, settings.queues)
        entries = migrations.status(store.database)
        lines = tuple(MigrationLine(one.name, one.state.value, one.applied_at) for one in reversed(entries))
    found += publication_checks(store.publications)
    checks = [SystemCheck(one.name, one.verdict.value, one.detail, one.remedy) for one in found]
    worst = {Verdict.FAIL.value: 0, Verdict.WARN.value: 1, Verdict.OK.value: 2}
    pools = [*(main.store.insights.connections() if main is not None else []), *store.insights.connections()]
    return System(
        checks=tuple(sorted((one for one in checks if not _is_setting(one)), key=lambda one: worst[one.state])),
        settings=tuple(one for one in checks if _is_setting(one)),
        migrations=lines,
        tables=tuple(store.insights.tables()),
        connections=tuple(pools),
        pulse_ms=_pulse_ms(parts),
        store=store.name,
        project=settings.project,
    )


def _is_setting(check: SystemCheck) -> bool:
    return check.name.startswith("setting ")


def _pulse_ms(parts: Parts) -> float:
    started = time.perf_counter()
    try:
        parts.store.insights.pulse()
    except FlowStoneError:
        return -1.0
    return round((time.perf_counter() - started) * 1000, 2)
