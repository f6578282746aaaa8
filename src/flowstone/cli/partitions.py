"""Partitions on the command line: how people write them, and `partitions` for the keys of dynamic ones."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.partition_keys import dynamic_in
from flowstone.cli.known_names import offers
from flowstone.cli.output import Column, moment, one_line
from flowstone.cli.session import Session
from flowstone.core.asset import Asset
from flowstone.core.definition import write_partition
from flowstone.core.partitions import KeyChange, Partition, decode_partition
from flowstone.core.partitions_by_key import DynamicPartitions
from flowstone.errors import OptionsError, command

One = Annotated[str | None, typer.Option("--partition", metavar="P", help="One partition, such as 2024-01-31.")]
Several = Annotated[
    list[str] | None,
    typer.Option("--partitions", metavar="A,B", help="Several partitions; may be given more than once."),
]
First = Annotated[str | None, typer.Option("--from", metavar="A", help="First partition of a range.")]
Last = Annotated[str | None, typer.Option("--to", metavar="B", help="Last partition of a range, included.")]


def label(key: str, asset: Asset | None = None) -> str:
    """Return an encoded partition for people, in the asset's own way where it has one.

    Example:
        >>> label(""), label("d:2024-01-31")
        ('', '2024-01-31')
    """
    return write_partition(None if asset is None else asset.partitions, key)


class Action(StrEnum):
    """What to do with the keys of a definition."""

    LIST = "list"
    ADD = "add"
    REMOVE = "remove"
    HISTORY = "history"


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]", help="Name of dynamic partitions; none lists them.", autocompletion=offers("partitions")
    ),
]
What = Annotated[Action, typer.Argument(metavar="[ACTION]", help="list, add, remove or history.")]
Keys = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys to add or remove; one for history.")
]


def partitions(
    session: Session,
    name: Name = None,
    action: What = Action.LIST,
    keys: Keys = None,
    *,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the history.")] = None,
    encoded: Annotated[
        bool, typer.Option("--encoded", help="Keys to add are written with their type: i:42, d:2024-01-31.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many entries of the history, newest first.")] = 50,
) -> None:
    """List, add or remove keys of dynamic partitions, or show who did that when."""
    session.warn_of_memory_store()
    flow = session.flow
    if name is None:
        _show_definitions(session, flow)
        return
    definition = flow.partitions.definition(name)
    given = keys or []
    _check(name, action, given)
    if action is Action.LIST:
        _show_keys(session, flow, definition)
    elif action is Action.HISTORY:
        key = definition.with_removed().parse(given[0]) if given else None
        _show_history(session, definition, flow.partitions.history(name, key, limit=limit))
    elif action is Action.ADD:
        new: list[Partition] = [decode_partition(text) if encoded else text for text in given]
        _show_changed(session, definition, action, flow.partitions.add(name, new, by=who(), reason=reason), given)
    else:
        old = [definition.with_removed().parse(text) for text in given]
        _show_changed(
            session, definition, action, flow.partitions.remove(name, old, by=who(), reason=reason), given
        )


def who() -> str:
    """Return who calls the command line, for histories: user and host.

    Example:
        >>> "@" in who()
        True
    """
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _check(name: str, action: Action, keys: Sequence[str]) -> None:
    changes = action in (Action.ADD, Action.REMOVE)
    if changes and not keys:
        raise OptionsError(f"Which keys? `{command('partitions', name, action, 'KEY')}`")
    if (action is Action.LIST and keys) or (action is Action.HISTORY and len(keys) > 1):
        raise OptionsError(f"`{command('partitions', name, action)}` takes no more keys: {' '.join(keys)!r}.")


def _names(asset: Asset) -> list[str]:
    return [definition.name for definition in dynamic_in(asset.partitions)]


def _show_definitions(session: Session, flow: FlowStone) -> None:
    found = [
        (name, len(flow.partitions.list(name)), [asset.name for asset in flow.graph if name in _names(asset)])
        for name in flow.partitions.names()
    ]
    if session.out.as_json:
        listed = [{"name": name, "keys": number, "assets": assets} for name, number, assets in found]
        session.out.json({"definitions": listed})
        return
    rows = [[name, f"{number:,}", ", ".join(assets)] for name, number, assets in found]
    session.out.table([Column("PARTITIONS"), Column("KEYS", right=True), Column("ASSETS", rank=1)], rows)


def _show_keys(session: Session, flow: FlowStone, definition: DynamicPartitions) -> None:
    labels = [definition.with_removed().label(key) for key in flow.partitions.list(definition)]
    if session.out.as_json:
        session.out.json({"name": definition.name, "keys": labels})
        return
    if labels:
        session.out.line("\n".join(map(one_line, labels)))
    else:
        session.out.note(
            f"{definition.name} has no keys. Add some: {command('partitions', definition.name, 'add', 'KEY')}"
        )


def _show_changed(
    session: Session,
    definition: DynamicPartitions,
    action: Action,
    changed: Sequence[Partition],
    given: Sequence[str],
) -> None:
    done = "added" if action is Action.ADD else "removed"
    labels = [definition.with_removed().label(key) for key in changed]
    if session.out.as_json:
        session.out.json({"name": definition.name, done: labels})
        return
    rest = len(set(given)) - len(changed)
    was = "there already" if action is Action.ADD else "not there"
    unchanged = f"; {rest:,} {'was' if rest == 1 else 'were'} {was}" if rest > 0 else ""
    session.out.line(f"{done} {len(changed):,} of {one_line(definition.name)}{unchanged}")


def _show_history(session: Session, definition: DynamicPartitions, changes: Sequence[KeyChange]) -> None:
    labels = [definition.with_removed().label(change.partition) for change in changes]
    if session.out.as_json:
        listed = [
            {
                "key": label,
                "action": "removed" if change.removed else "added",
                "at": change.at,
                "by": change.by,
                "reason": change.reason,
            }
            for change, label in zip(changes, labels, strict=True)
        ]
        session.out.json({"name": definition.name, "history": listed})
        return
    columns = [
        Column("KEY"),
        Column("WHAT"),
        Column("WHEN", rank=2),
        Column("BY", rank=1),
        Column("REASON", rank=3),
    ]
    rows = [
        [label, "removed" if change.removed else "added", moment(change.at), change.by or "", change.reason or ""]
        for change, label in zip(changes, labels, strict=True)
    ]
    session.out.table(columns, rows)
