"""The audit log: who did what to what, by which way, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flowstone.core.declaring import is_storable, shown
from flowstone.core.output import JsonValue
from flowstone.errors import OptionsError


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line of the audit log, which only grows.

    Args:
        id: position in the log.
        at: when.
        actor: who: a person, `asset NAME`, or `flowstone` for what happens by itself.
        action: what, such as `approval.approved` or `run.cancelled`.
        subject: to what, such as `approval:7` or `run:20260101-120000-abc`.
        details: more about it.
        via: by which way, such as `cli` or `web`; None for what happens by itself.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    via: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which lines of the audit log are asked for; None leaves a field open.

    Args:
        actor: who did it.
        action: what was done: one action (`run.cancelled`), or all of a kind (`run`).
        subject: to what.
        since: not before this.
        until: before this.

    Example:
        >>> AuditFilter(action="run").actions
        ('run.', 'run/')
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("actor", "action", "subject"):
            given = getattr(self, name)
            if given is not None and not (isinstance(given, str) and is_storable(given)):
                raise OptionsError(f"{name}={shown(given)}: give text, such as the {name} of another line.")
        for name in ("since", "until"):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, datetime) or given.tzinfo is None):
                raise OptionsError(f"{name}={shown(given)}: give a datetime with a time zone.")

    @property
    def actions(self) -> tuple[str | None, str | None]:
        """The first and the last action that match, in the order of their characters."""
        if self.action is None or "." in self.action:
            return self.action, self.action
        return f"{self.action}.", f"{self.action}/"

    def matches(self, line: AuditRecord) -> bool:
        """Return whether a line is asked for."""
        first, last = self.actions
        return (
            self.actor in (None, line.actor)
            and (first is None or last is None or first <= line.action <= last)
            and self.subject in (None, line.subject)
            and (self.since is None or line.at >= self.since)
            and (self.until is None or line.at < self.until)
        )
