"""Errors of versions: which cannot be loaded, and which cannot be restored or erased."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from flowstone.errors.root import FlowStoneError, command, join_names
from flowstone.errors.running import NotMaterializedError


class VersionNotFoundError(FlowStoneError, LookupError):
    """No such version is recorded for an asset's partition.

    Args:
        asset: the asset.
        partition: its encoded partition.
        what: the version that was asked for, such as `version 17`.
        why: why there is none.
        label: its partition as people write it.
    """

    def __init__(self, asset: str, partition: str, what: str, why: str, *, label: str | None = None) -> None:
        self.asset = asset
        self.partition = partition
        text = (label if label is not None else partition) if partition else None
        listed = command("versions ls", asset, partition=text)
        super().__init__(
            f"{what} of {_target(asset, text)} cannot be had: {why}. `{listed}` lists those there are."
        )


class ValueErasedError(NotMaterializedError):
    """A value was erased: it is gone everywhere, and only the fact is recorded.

    Args:
        asset: the asset.
        partition: its encoded partition.
        at: when.
        by: who did it; None when nobody said so.
        version: the version that was asked for; None for the one in use.
        label: writes an encoded partition of an asset as people type it.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        *,
        at: datetime,
        by: str | None = None,
        version: int | None = None,
        label: Callable[[str, str], str] = lambda asset, key: key,
    ) -> None:
        super().__init__(asset, partition, label=label)
        self.at = at
        self.by = by
        self.version = version
        target = _target(asset, label(asset, partition) if partition else None)
        what = f"Version {version} of {target}" if version is not None else target
        who = f" by {by}" if by else ""
        self.args = (
            f"{what} was erased at {at:%Y-%m-%d %H:%M} UTC{who}: the value is gone for good, and nothing brings "
            "it back. Computing it anew is a new version: flow.materialize(...).",
        )


class RestoreRefusedError(FlowStoneError, RuntimeError):
    """A version cannot be put in use again, and nothing was changed.

    Args:
        asset: the asset.
        partition: its encoded partition.
        why: what is in the way.
        remedy: what to do about it.
        label: its partition as people write it.
    """

    def __init__(self, asset: str, partition: str, why: str, remedy: str, *, label: str | None = None) -> None:
        self.asset = asset
        self.partition = partition
        text = (label if label is not None else partition) if partition else None
        super().__init__(f"Nothing was restored. {_target(asset, text)}: {why}. {remedy}")


class TargetActiveError(FlowStoneError, RuntimeError):
    """Steps of what is to be restored or erased are not over.

    Args:
        doing: what was asked for: `restored` or `erased`.
        active: the targets, as people read them.
        runs: the runs that compute them.
        forced: what can be said to go on all the same, if anything.
    """

    def __init__(self, doing: str, active: Sequence[str], runs: Sequence[str], *, forced: str = "") -> None:
        self.active = tuple(active)
        self.runs = tuple(runs)
        cancel = f"`{command('cancel', runs[0])}`" if runs else "cancel the run"
        are = "is" if len(active) == 1 else "are"
        super().__init__(
            f"Nothing was {doing}: {join_names(active)} {are} being computed, by {join_names(runs)}, and would be "
            f"committed afterwards. Wait for the end, or cancel it first: {cancel}.{forced}"
        )


def _target(asset: str, text: str | None) -> str:
    return f"{asset!r} [{text}]" if text is not None else repr(asset)
