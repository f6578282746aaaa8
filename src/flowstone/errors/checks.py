"""Errors of asset checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from flowstone.errors.declarations import DefinitionError
from flowstone.errors.root import FlowStoneError, did_you_mean


class UnknownCheckedAssetError(DefinitionError):
    """A check is about an asset that the app does not have."""

    def __init__(self, check: str, asset: str, known: Iterable[str], *, where: str) -> None:
        self.check = check
        self.asset = asset
        super().__init__(
            f"Check {check!r} is about {asset!r}, which is not an asset of this app.{did_you_mean(asset, known)} "
            "Add the asset to FlowStone([...]), or correct the name in @check(...).",
            where=where,
        )


class DuplicateCheckError(DefinitionError):
    """Two checks of one asset carry one name."""

    def __init__(self, asset: str, check: str, first: str, second: str) -> None:
        self.asset = asset
        self.check = check
        super().__init__(
            f"Two checks of {asset!r} are named {check!r}: one at {first}, one at {second}. "
            "Rename one of them, or pass @check(..., name=...)."
        )


class FailedCheck(NamedTuple):
    """One check that kept a value from being published, as `CheckFailedError` names it."""

    name: str
    found: str

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" ({self.found})" if self.found else "")


class CheckFailedError(FlowStoneError, ValueError):
    """A blocking check found the value of an asset wanting; nothing of it was published.

    Args:
        asset: name of the asset.
        partition: the partition as people write it; empty without partitions.
        failed: the checks, with what each one found.
    """

    def __init__(self, asset: str, partition: str, failed: Sequence[FailedCheck]) -> None:
        self.asset = asset
        self.partition = partition
        self.failed = tuple(failed)
        target = f"{asset!r}" + (f" [{partition}]" if partition else "")
        several = "the blocking check" if len(failed) == 1 else f"{len(failed)} blocking checks:"
        super().__init__(
            f"The value of {target} did not pass {several} {', '.join(map(str, failed))}. It was not "
            "published; what was committed before stays readable. Correct the data or the asset and materialize "
            "it again."
        )

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.asset, self.partition, self.failed)


class CheckTimeoutError(FlowStoneError, TimeoutError):
    """A check ran longer than its timeout."""

    def __init__(self, asset: str, check: str, seconds: float) -> None:
        self.asset = asset
        self.check = check
        self.seconds = seconds
        super().__init__(
            f"Check {check!r} of {asset!r} did not finish within its timeout of {seconds:g} s. "
            "Raise @check(..., timeout=...) or look at less."
        )

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.asset, self.check, self.seconds)
