"""Errors of fan-out at run time."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.errors.root import FlowStoneError, command


class ItemError(FlowStoneError, ValueError):
    """A discovered item cannot be used; nothing is gained by discovering it again.

    Args:
        asset: the asset that discovered it.
        position: its position in the order of discovery, from 0.
        problem: what is wrong and what to do.
    """

    def __init__(self, asset: str, position: int, problem: str) -> None:
        self.asset = asset
        self.position = position
        super().__init__(f"Asset {asset!r} discovered an item that cannot be used, number {position}: {problem}")


class ScatterFailedError(FlowStoneError, RuntimeError):
    """More items of an asset have no result than its threshold allows.

    Args:
        asset: the asset.
        run_id: the run of its items.
        total: number of items.
        failed: number of items that failed.
        cancelled: number of items that were cancelled, because of the failures or by a person.
        allowed: how many may be without a result.
        first: key and error of the first failures.
    """

    def __init__(
        self,
        asset: str,
        run_id: str,
        *,
        total: int,
        failed: int,
        cancelled: int,
        allowed: int,
        first: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.asset = asset
        self.run_id = run_id
        self.total, self.failed, self.cancelled, self.allowed = total, failed, cancelled, allowed
        self.first = tuple(first)
        ended = f"{failed:,} of {total:,} items failed" + (f", {cancelled:,} cancelled" if cancelled else "")
        shown = "; ".join(f"{key}: {text}" for key, text in first)
        super().__init__(
            f"Asset {asset!r} was not gathered: {ended}, and {allowed:,} may fail (max_failures). "
            f"{'First failures: ' + shown + '. ' if shown else ''}What succeeded is kept: repair the cause and "
            f"retry the run, which runs only the others again. `{command('status', run_id)}` lists them."
        )
