"""`flowstone doctor`: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from flowstone.app.diagnostics import Check, Verdict, compute_checks, database_checks, environment_checks
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.output import Column
from flowstone.cli.session import Session
from flowstone.errors import FlowStoneError


def doctor(session: Session) -> int:
    """Check Python, packages, settings, storage, database, workers, and with --app the clusters that it uses."""
    given = {"database_url": session.given.database, "project": session.given.project}
    checks = [*environment_checks(given), *database_checks(given), *_computes(session)]
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    if session.out.as_json:
        listed = [
            {"name": check.name, "verdict": check.verdict.value, "detail": check.detail, "remedy": check.remedy}
            for check in checks
        ]
        session.out.json({"ok": not failed, "checks": listed})
        return FAILED if failed else DONE
    session.out.table(
        [Column("CHECK"), Column("STATE"), Column("FOUND")],
        [[check.name, check.verdict.value, check.detail] for check in checks],
    )
    for check in checks:
        if check.remedy:
            session.out.line(f"{check.name}: {check.remedy}")
    return FAILED if failed else DONE


def _computes(session: Session) -> Iterator[Check]:
    """Yield what the computes of the app say; only of one that is named, because importing it may take long."""
    if session.given.app is None:
        return
    try:
        flow = session.flow
    except FlowStoneError as error:
        yield Check("app", Verdict.FAIL, "cannot be loaded", str(error))
        return
    yield Check("app", Verdict.OK, f"{session.target} is there")
    yield from compute_checks(flow.parts.remote.computes.made())
