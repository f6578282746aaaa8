"""`flow.retention`: forgetting what nothing needs any more."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.wiring import Parts, discard_values
from flowstone.core.declaring import view
from flowstone.core.output import StoredOutput
from flowstone.engine.gathered import GatheredIO
from flowstone.errors import OptionsError, UnknownAssetError
from flowstone.protocols import IOManager, SweepableIO

log = logging.getLogger("flowstone")

_OLDEST = timedelta(days=365 * 1000)
"""More than any run is old, and still a time that PostgreSQL can subtract."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be.

    Args:
        steps: number of steps, with their attempts, lineage, checks, approvals and values.
        runs: number of runs of which nothing was left.
        values: number of stored values.
        size_bytes: size of these values, as far as it is known.
        ticks: number of ticks of schedules, sensors and conditions.
        dry_run: whether nothing was deleted.
        leftovers: number of files and rows that attempts left which died between storing and committing.
        out_of_reach: for each name of an IO manager, the number of values that could not be deleted: this app does
            not declare the manager, or the manager failed. Their records are gone.
        not_swept: names of IO managers that do not look for leftovers.
    """

    steps: int
    runs: int
    values: int = 0
    size_bytes: int = 0
    ticks: int = 0
    dry_run: bool = False
    leftovers: int = 0
    out_of_reach: Mapping[str, int] = field(default_factory=dict)
    not_swept: tuple[str, ...] = ()


@view("flow.retention")
class RetentionView:
    """Deletes old history; what `load` returns and what it was made from is always kept."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def prune(self, *, older_than: timedelta | None = None, dry_run: bool = False) -> Pruned:
        """Delete steps of runs that ended long ago, with their stored values, and old ticks.

        An app in memory does so by itself when more than `memory_steps` (a setting) are over and of no use.
        Kept are current versions, everything they were made from, and what reused steps stand on.

        Args:
            older_than: age of the end of a run; the setting `retention_days` by default.
            dry_run: only say what would be deleted.

        Raises:
            OptionsError: `older_than` is negative.
        """
        age = timedelta(days=self._parts.settings.retention_days) if older_than is None else older_than
        given: object = age
        if not isinstance(given, timedelta) or given < timedelta(0):
            raise OptionsError(f"older_than={given!r}: give a timedelta from 0 on, such as timedelta(days=30).")
        retention = self._parts.store.retention
        seconds = min(age, _OLDEST).total_seconds()
        out_of_reach: Counter[str] = Counter()
        leftovers = 0
        if dry_run:
            counts = retention.prunable(older_than_seconds=seconds)
        else:
            counts = retention.prune(older_than_seconds=seconds, discard=partial(self._discard, out_of_reach))
            leftovers = self.sweep()
        ticks = self._parts.store.automations.prune_ticks(older_than_seconds=seconds, dry_run=dry_run)
        managers = self._parts.managers.items()
        return Pruned(
            *counts,
            ticks=ticks,
            dry_run=dry_run,
            leftovers=leftovers,
            out_of_reach=dict(out_of_reach),
            not_swept=tuple(sorted(name for name, one in managers if one.shared and not _sweeps(one))),
        )

    def prune_asset(self, asset: str, *, dry_run: bool = False) -> Pruned:
        """Delete everything that is recorded of an asset that is declared no more, with all its values.

        Args:
            asset: its name.
            dry_run: only say what would be deleted.

        Raises:
            OptionsError: the asset is declared, or a step of it is not over.
            UnknownAssetError: nothing is recorded under this name.
        """
        graph, retention = self._parts.graph, self._parts.store.retention
        if asset in graph:
            raise OptionsError(
                f"The asset {asset!r} is declared: its current versions are needed. Take them out of use with "
                "flow.invalidate, or remove the asset from the app first."
            )
        counts, unfinished = retention.recorded_of(asset)
        if not counts.steps:
            raise UnknownAssetError(asset, graph.assets)
        if unfinished:
            raise OptionsError(
                f"{unfinished} steps of {asset!r} are not over. Cancel their runs first: "
                "`flowstone runs --state running` lists them."
            )
        out_of_reach: Counter[str] = Counter()
        if not dry_run:
            counts = retention.prune_asset(asset, discard=partial(self._discard, out_of_reach))
        return Pruned(*counts, dry_run=dry_run, out_of_reach=dict(out_of_reach))

    def sweep(self) -> int:
        """Delete what attempts left that died between storing and committing; workers do so by themselves.

        Nothing of an attempt that may still commit is touched, and nothing of steps that this database does not
        know, because another one may share the storage.

        Returns:
            How many files and rows were deleted; 0 for an app in memory, which shares no storage by its steps.
        """
        if not self._parts.store.shared:
            return 0
        keep = self._parts.store.retention.needed_versions
        age = 2 * self._parts.settings.lease_seconds
        deleted = 0
        for name, manager in self._parts.managers.items():
            if isinstance(manager, SweepableIO):
                try:
                    deleted += manager.sweep(older_than_seconds=age, keep=keep)
                except Exception as error:  # noqa: BLE001 - a storage that is away is swept the next time
                    log.warning("The leftovers of the IO manager %r cannot be deleted for now: %s", name, error)
        return deleted

    def _discard(self, out_of_reach: Counter[str], outputs: Sequence[StoredOutput]) -> None:
        for name, number in discard_values(self._parts.managers, outputs).items():
            out_of_reach[name] += number


class AsyncRetentionView(AsyncFlowStone):
    """`flow.aio.retention`: the verbs of `flow.retention`, awaitable."""

    prune = awaitable(RetentionView.prune)
    prune_asset = awaitable(RetentionView.prune_asset)
    sweep = awaitable(RetentionView.sweep)


def _sweeps(manager: IOManager) -> bool:
    return isinstance(manager, SweepableIO | GatheredIO)
