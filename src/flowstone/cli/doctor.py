"""`flowstone doctor`: what is wrong with an installation, and what to do about it."""

from __future__ import annotations

from flowstone.app.diagnostics import Verdict, database_checks, environment_checks
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.output import Column
from flowstone.cli.session import Session


def doctor(session: Session) -> int:
    """Check Python, optional packages, settings, storage, database and workers; 1 when something fails."""
    given = {"database_url": session.given.database, "project": session.given.project}
    checks = [*environment_checks(given), *database_checks(given)]
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
