"""What an action writes into the audit log, in either store."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from flowstone.core.actor import Actor, current_actor
from flowstone.core.clean import clean_metadata, clean_text
from flowstone.core.notification import Notification
from flowstone.core.output import JsonValue
from flowstone.core.step import NewRun, Target

_MAX_NAME = 200
_MAX_SUBJECT = 1000
_SHOWN = 20
"""Names and partitions that a line shows of many."""


class NewLine(NamedTuple):
    """A line that is about to be written; see `AuditRecord`."""

    actor: str
    via: str
    action: str
    subject: str
    details: dict[str, JsonValue]


def current_user() -> str:
    """Return the name of the user of the operating system, or their number when they have no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"


def new_line(
    action: str, subject: str, details: Mapping[str, object] | None = None, *, by: str | None = None
) -> NewLine:
    """Return the line of an action that happens now.

    Args:
        action: what, such as `run.cancelled`: a kind of subject, a dot, what happened to it.
        subject: to what, such as `run:ID`.
        details: counts, the filter, and the like; what is None is left out.
        by: who, when the action names them itself; else who acts (`flowstone.core.actor`), else the user of the
            operating system.

    Example:
        >>> from flowstone.core.actor import acting
        >>> with acting(Actor("ann", "web")):
        ...     new_line("queue.paused", "queue:reports")
        NewLine(actor='ann', via='web', action='queue.paused', subject='queue:reports', details={})
    """
    actor = current_actor() or Actor(by or current_user())
    kept = {name: value for name, value in (details or {}).items() if value is not None}
    return NewLine(
        actor=clean_text(by or actor.name, limit=_MAX_NAME),
        via=actor.via,
        action=action,
        subject=clean_text(subject, limit=_MAX_SUBJECT),
        details=clean_metadata(kept),
    )


def of_targets(targets: Sequence[Target]) -> tuple[str, dict[str, object]]:
    """Return what an action on targets is about, and more about it: bounded, however many there are.

    Example:
        >>> of_targets([("orders", "s:eu"), ("orders", "s:us")])
        ('asset:orders', {'partitions': ['s:eu', 's:us']})
    """
    assets = list(dict.fromkeys(asset for asset, _ in targets))
    partitions = list(dict.fromkeys(key for _, key in targets if key))
    details: dict[str, object] = {"partitions": partitions[:_SHOWN] or None}
    if len(partitions) > _SHOWN:
        details["more_partitions"] = len(partitions) - _SHOWN
    if len(assets) == 1:
        return f"asset:{assets[0]}", details
    return f"assets:{len(assets)}", {"assets": assets[:_SHOWN]} | details


def of_keys(keys: Sequence[str], reason: str | None) -> dict[str, object]:
    """Return what the log says of keys that were added or removed."""
    return {"number": len(keys), "keys": list(keys[:_SHOWN]), "reason": reason}


def of_given_up(one: Notification, error: str) -> tuple[str, str, dict[str, object]]:
    """Return what the log says of a notification that was not sent."""
    details: dict[str, object] = {"rule": one.rule, "attempts": one.attempts, "error": error}
    return "notification.given_up", f"notification:{one.id}", details


def shown_cursor(cursor: str | None) -> str:
    """Return a cursor as the log has it: bounded."""
    return "none" if cursor is None else cursor[:_MAX_NAME]


def of_run(run: NewRun, steps: int) -> dict[str, object]:
    """Return what the log says of a run that was placed."""
    return {
        "kind": run.kind,
        "selection": run.selection[:_MAX_NAME],
        "steps": steps,
        "retry_of": run.retry_of,
        "tags": list(run.details.tags)[:_SHOWN] or None,
    }
