"""Keys of dynamic partitions: which there are, who added or removed them when; adding and removing."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.core.paging import Page
from flowstone.core.partitions import Partition
from flowstone.engine.insights.decisions import KeyChangeLine, KeyLine
from flowstone.web.fields import number, text
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url


@dataclass(frozen=True, slots=True)
class KeysQuery:
    """Which definition is shown.

    Args:
        name: of the definition; without it, the definitions are listed.
        text: only keys with this in them.
        next: where the page begins.
        limit: how many keys.
    """

    name: str | None = None
    text: str | None = None
    next: str | None = None
    limit: int = number(100, minimum=1, maximum=200)


@dataclass(frozen=True, slots=True)
class KeysModel:
    """The keys of a definition.

    Args:
        names: all definitions.
        name: the one that is shown.
        page: its keys in the order of their addition.
        history: its newest changes.
    """

    names: tuple[str, ...]
    name: str | None
    page: Page[KeyLine] | None
    history: tuple[KeyChangeLine, ...] = ()


@page("/keys", template="keys.html", query=KeysQuery, role=Role.VIEWER, title="Partition keys", rail="Assets")
def keys(request: PageRequest[KeysQuery]) -> KeysModel:
    """Return the keys of dynamic partitions with their history."""
    query, names = request.query, request.flow.partitions.names()
    name = query.name or (names[0] if len(names) == 1 else None)
    if name is None:
        return KeysModel(names, None, None)
    found = request.insights.partition_keys(name, text=query.text, cursor=query.next, limit=query.limit)
    return KeysModel(names, name, found, tuple(request.insights.partition_key_changes(name, limit=30)))


@dataclass(frozen=True, slots=True)
class ChangedKeys:
    """Keys to add or to remove.

    Args:
        name: of the definition.
        keys: one on each line.
        reason: why, for the history.
    """

    name: str
    keys: str = text(maximum=60_000)
    reason: str | None = text(None, maximum=1_000)


def _lines(form: ChangedKeys) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in form.keys.splitlines() if line.strip()))


def _shown(lines: list[str]) -> str:
    more = f" and {len(lines) - 10:,} more" if len(lines) > 10 else ""
    return ", ".join(lines[:10]) + more


def _adding(call: ActionCall[ChangedKeys]) -> Confirm:
    lines = _lines(call.form)
    details = (f"Keys: {_shown(lines)}.", "Assets with these partitions can be computed for them on every worker.")
    return Confirm(f"Add {len(lines):,} keys to {call.form.name}?", "Add", details)


def _removing(call: ActionCall[ChangedKeys]) -> Confirm:
    lines = _lines(call.form)
    details = (f"Keys: {_shown(lines)}.", "Nothing more is computed for them; what is committed stays.")
    return Confirm(f"Remove {len(lines):,} keys of {call.form.name}?", "Remove", details, danger=True)


@action("/keys/add", title="Add partition keys", form=ChangedKeys, role=Role.OPERATOR, confirm=_adding)
def add(call: ActionCall[ChangedKeys]) -> Done:
    """Add keys, one on each line; those that are there are left as they are."""
    form = call.form
    added = call.flow.partitions.add(form.name, _lines(form), by=call.person.name, reason=form.reason)
    return Done(f"Added {len(added):,} keys to {form.name}.", url("keys", name=form.name))


@action("/keys/remove", title="Remove partition keys", form=ChangedKeys, role=Role.OPERATOR, confirm=_removing)
def remove(call: ActionCall[ChangedKeys]) -> Done:
    """Remove keys, one on each line as the page shows them; what is committed stays."""
    form = call.form
    definition = call.flow.partitions.definition(form.name)
    removed: list[Partition] = [definition.parse(line) for line in _lines(form)]
    gone = call.flow.partitions.remove(form.name, removed, by=call.person.name, reason=form.reason)
    return Done(f"Removed {len(gone):,} keys of {form.name}.", url("keys", name=form.name))
