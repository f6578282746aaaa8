"""Errors about things that do not exist."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from flowstone.errors.root import FlowStoneError, did_you_mean, join_names


class UnknownAssetError(FlowStoneError, LookupError):
    """No asset of the app carries this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no asset named {name!r}.{did_you_mean(name, known)} "
            f"Known assets: {join_names(known) or 'none'}."
        )


class SelectionError(FlowStoneError, ValueError):
    """A selection expression cannot be understood or selects nothing."""

    def __init__(self, expression: str, problem: str) -> None:
        self.expression = expression
        super().__init__(f"The selection {expression!r} cannot be used: {problem}")


class PartitionError(FlowStoneError, ValueError):
    """A partition value or definition cannot be used."""


class UnknownPartitionError(PartitionError, LookupError):
    """The asset has no such partition."""

    def __init__(self, partition: object, *, asset: str | None = None, hint: str = "") -> None:
        self.partition = partition
        self.asset = asset
        of = f" of asset {asset!r}" if asset else ""
        super().__init__(f"{_shown(partition)} is not a partition{of}.{' ' + hint if hint else ''}")


def _shown(partition: object) -> str:
    """Write dates and times as people type them; text and everything else as it is in code."""
    if type(partition) is datetime and partition.tzinfo is not None:
        return partition.isoformat(timespec="auto" if partition.second or partition.microsecond else "minutes")
    if type(partition) is date:
        return partition.isoformat()
    if type(partition) is tuple and len(partition) > 1:
        return f"({', '.join(map(_shown, partition))})"
    return repr(partition)


class IncompletePartitionError(PartitionError):
    """A partition is asked for that is not over, or that reads one that is not over.

    Args:
        target: the partition that was asked for, as people read it.
        unfinished: what is not over: the same, or an input of it.
        until: when it is over; None when that is no moment.
    """

    def __init__(self, target: str, unfinished: str, until: datetime | None) -> None:
        self.target = target
        self.unfinished = unfinished
        self.until = until
        when = f" until {until:%Y-%m-%d %H:%M %Z}".rstrip() if until is not None else ""
        reads = "" if target == unfinished else f" {target} reads it."
        super().__init__(
            f"{unfinished} is not over{when}, so its data is not complete.{reads} Wait, or say "
            "allow_incomplete=True (--allow-incomplete): then it is computed from what is there so far, and again "
            "when it is over. "
            "@asset(allow_incomplete=True) allows it once and for all."
        )


class UnknownExecutorError(FlowStoneError, LookupError):
    """No executor carries this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no executor named {name!r}.{did_you_mean(name, known)} Known: {join_names(known)}. "
            "Others register under the entry point group 'flowstone.executors'."
        )


class RunNotFoundError(FlowStoneError, LookupError):
    """No run or step carries this id."""

    def __init__(self, kind: str, identifier: str) -> None:
        self.identifier = identifier
        super().__init__(f"There is no {kind} with id {identifier!r}. `flowstone runs` lists the latest ones.")


class UnknownAutomationError(FlowStoneError, LookupError):
    """No schedule or sensor of the app carries this name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no {kind} named {name!r}.{did_you_mean(name, known)} "
            f"Declared: {join_names(known) or f'none; pass FlowStone(..., {kind}s=[...])'}."
        )
