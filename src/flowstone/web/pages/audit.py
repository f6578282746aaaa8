"""The audit log: who did what to what, when, and by which way; filtered and in pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowstone.core.paging import Page
from flowstone.engine.insights.decisions import AuditLine
from flowstone.web.fields import number
from flowstone.web.registry import PageRequest, Role, page, url


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which lines are shown.

    Args:
        actor: only what this person or program did.
        action: only this action, such as `run.cancelled`, or all of a kind, such as `run`.
        subject: only those about this, such as `run:r1`.
        since: not before this time.
        until: before this time.
        next: where the page begins.
        limit: how many.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    next: str | None = None
    limit: int = number(50, minimum=1, maximum=200)


@dataclass(frozen=True, slots=True)
class AuditModel:
    """Lines of the audit log.

    Args:
        page: the lines, newest first.
        places: where the page about the subject of each line is; empty where there is none.
    """

    page: Page[AuditLine]
    places: tuple[str, ...]


@page("/audit", template="audit.html", query=AuditQuery, role=Role.VIEWER, title="Audit", rail="Audit")
def audit(request: PageRequest[AuditQuery]) -> AuditModel:
    """Return who did what to what, the newest first."""
    query = request.query
    found = request.insights.audit(
        actor=query.actor,
        action=query.action,
        subject=query.subject,
        since=query.since,
        until=query.until,
        cursor=query.next,
        limit=query.limit,
    )
    return AuditModel(found, tuple(_place(one) for one in found.items))


def _place(line: AuditLine) -> str:
    """Return the page about the subject of a line."""
    name = line.name
    if line.kind in ("run", "backfill"):
        return url("run", id=name)
    if line.kind in ("step", "approval"):
        return url(line.kind, id=name) if name.isascii() and name.isdecimal() and len(name) < 18 else ""
    if line.kind in ("asset", "queue"):
        return url(line.kind, name=name)
    if line.kind in ("schedule", "sensor", "condition"):
        return url("automation/details", kind=line.kind, name=name)
    return url("keys", name=name) if line.kind == "partitions" else ""
