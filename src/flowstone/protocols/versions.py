"""What a store must answer and do about versions: list them, say which was when, restore, erase."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from flowstone.core.partitions import PartitionKey
from flowstone.core.step import Target
from flowstone.core.version import (
    ActiveTarget,
    ErasableValue,
    EraseCounts,
    OutputChange,
    PublishedVersion,
    Repointed,
    RestoreVersion,
    RunVersion,
    VersionAt,
    VersionRecord,
)


class VersionStore(Protocol):
    """The versions of targets; every method is one transaction.

    Items of scattered steps have no versions of their own: they are parts of the step that gathers them.
    """

    def page(self, target: Target, *, before: int | None = None, limit: int = 100) -> list[VersionRecord]:
        """Return versions of a target, newest first, only those before a step id when it is given."""

    def newest(self, asset: str, *, limit: int = 50) -> list[VersionRecord]:
        """Return the newest versions of an asset over all partitions, newest first.

        Of an asset with very many partitions those in use, by the time since when they are.
        """

    def count(self, target: Target, *, limit: int) -> int:
        """Return how many versions of a target there are, counting up to a limit."""

    def get(self, step_ids: Sequence[int]) -> list[VersionRecord]:
        """Return versions by their step ids, in that order; what is no version is left out."""

    def changes(self, targets: Sequence[Target]) -> list[OutputChange]:
        """Return what besides commits changed which version of some targets is in use, oldest first."""

    def at(self, targets: Sequence[Target], at: datetime) -> dict[Target, VersionAt]:
        """Return which version of each target was in use at a time; see `which_at`."""

    def before(self, versions: Sequence[PublishedVersion]) -> dict[Target, VersionAt]:
        """Return for versions that are in use which one was in use before each was committed."""

    def of_run(self, target: Target, run_id: str) -> RunVersion | None:
        """Return what a run has for a target; None when it has no step for it."""

    def published(self, run_id: str, *, after: int = 0, limit: int = 1000) -> list[PublishedVersion]:
        """Return versions that a run committed and that are in use, in the order of their steps."""

    def partitions(
        self, asset: str, *, after: PartitionKey | None = None, limit: int = 1000
    ) -> list[PartitionKey]:
        """Return partitions of which something is recorded for an asset, in order, those behind one."""

    def active(self, targets: Sequence[Target]) -> list[ActiveTarget]:
        """Return which of some targets are being computed or wait for that; a few of them when there are many."""

    def restore(
        self,
        versions: Sequence[RestoreVersion],
        *,
        by: str | None = None,
        reason: str | None = None,
        force: bool = False,
        run_id: str | None = None,
    ) -> list[Repointed]:
        """Put versions in use, all of them or none, and record who did it.

        Targets of which a step is not over are refused, unless `force`: the step that commits later wins.

        Args:
            versions: the targets, each once, with their versions.
            by: who does it, when they are not the actor of this context.
            reason: why.
            force: whether targets may be under way.
            run_id: the run that is undone by this, for the audit log.

        Returns:
            What was in use before each, in the same order.

        Raises:
            TargetActiveError: a target is under way.
            RestoreRefusedError: a version is not recorded (any more), was erased, is one of another target, or
                another version is in use than was expected.
        """

    def erase_counts(self, targets: Sequence[Target]) -> EraseCounts:
        """Return what is recorded of some targets, without changing anything."""

    def erase(self, targets: Sequence[Target], *, by: str | None = None, reason: str | None = None) -> list[int]:
        """Take out of use and out of every record what was written about targets; values are deleted afterwards.

        Returns:
            The steps that were not erased before.

        Raises:
            TargetActiveError: a target is under way.
        """

    def erased_values(
        self, targets: Sequence[Target], *, after: int = 0, limit: int = 1000
    ) -> list[ErasableValue]:
        """Return the steps of erased targets, in order, with where values may still lie."""

    def forget_values(self, step_ids: Sequence[int]) -> int:
        """Forget where the values of erased steps lay, once these are deleted; return how many that were."""
