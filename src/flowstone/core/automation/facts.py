"""The facts that conditions judge: one target, its inputs, and what changed since it was computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from flowstone.core.automation.standing import (
    NOTHING,
    CommittedVersion,
    DataVersion,
    NewestStep,
    Reads,
    TargetStatus,
)
from flowstone.core.control import describe_target
from flowstone.core.state import State
from flowstone.core.step import Target


class InputFacts(NamedTuple):
    """One (asset, partition) that a target reads, and its status.

    Args:
        target: asset and encoded partition.
        status: its status.
        optional: whether the target is computed without it when it was skipped.
        unfinished: why it is not to be read now, when its partition is not over, for people.
        shown: the input as people read it; made of `target` when empty.
    """

    target: Target
    status: TargetStatus
    optional: bool = False
    unfinished: str | None = None
    shown: str = ""

    @property
    def is_skipped(self) -> bool:
        """Whether the target would be computed without it, because it was skipped."""
        without_result = self.status.without_result
        return self.optional and without_result is not None and without_result.state is State.SKIPPED

    @property
    def committed(self) -> CommittedVersion | None:
        """The version that the target would read."""
        return None if self.is_skipped else self.status.committed

    @property
    def name(self) -> str:
        """The input as people read it."""
        return self.shown or describe_target(*self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """Everything that a condition may look at.

    Args:
        asset: asset name.
        partition: encoded partition.
        status: what is committed and what was asked for last.
        inputs: what it would read now.
        read: what its committed version had read.
        tried: what its newest step had read, if that is over and committed nothing.
        declared_code: `code_version` of the asset now; None when it declares none.
        is_newest: whether this is the newest complete partition of an asset that is partitioned by time; True
            for all others.
        since: when the condition was first declared; cron ticks before that were not missed.
        problem: why its inputs cannot be determined, when a partition mapping says so.
        unfinished: why it is not to be computed now, when its partition is not over, for people.
        shown: the target as people read it; made of `asset` and `partition` when empty.
        early: whether a version is committed that was begun before the partition was over; it counts as none.

    Example:
        >>> facts = TargetFacts(asset="orders", partition="")
        >>> facts.is_missing, facts.changes, facts.unready
        (True, [], [])
    """

    asset: str
    partition: str
    status: TargetStatus = NOTHING
    inputs: tuple[InputFacts, ...] = ()
    read: Reads = field(default_factory=dict)
    tried: Reads = field(default_factory=dict)
    declared_code: str | None = None
    is_newest: bool = True
    since: datetime | None = None
    problem: str | None = None
    unfinished: str | None = None
    early: bool = False
    shown: str = ""

    @property
    def name(self) -> str:
        """The target as people read it."""
        return self.shown or describe_target(self.asset, self.partition)

    @property
    def is_missing(self) -> bool:
        """Whether nothing is committed."""
        return self.status.committed is None

    @property
    def changes(self) -> list[str]:
        """Which inputs are other data than the committed version had read, for people; empty when it is missing.

        An input that was computed again to the same bytes did not change.
        """
        if self.status.committed is None:
            return []
        return self._changes_since(self.read)

    @property
    def gone(self) -> list[str]:
        """Inputs of the committed version that were taken out of use since, for people."""
        return [
            f"input {one.name} was {'skipped' if one.is_skipped else 'invalidated'}"
            for one in self.inputs
            if one.committed is None and one.target in self.read
        ]

    @property
    def code_change(self) -> str | None:
        """How the declared code version differs from that of the committed version; None when it does not."""
        committed = self.status.committed
        if committed is None or self.declared_code is None or committed.code_version == self.declared_code:
            return None
        return f"code version {committed.code_version or 'undeclared'} → {self.declared_code}"

    @property
    def staleness(self) -> list[str]:
        """Why the committed version would come out differently now, for people; empty when it is missing too."""
        code = self.code_change
        return [*self.changes, *self.gone, *([code] if code else [])]

    @property
    def unready(self) -> list[str]:
        """Why it could not be computed now, for people; empty when all inputs are committed."""
        if self.problem is not None:
            return [self.problem]
        return [
            f"input {one.name} is {one.unfinished or 'missing'}"
            for one in self.inputs
            if (one.committed is None or one.unfinished) and not one.is_skipped
        ]

    @property
    def unchanged_try(self) -> NewestStep | None:
        """The newest step, if it committed nothing and would meet the same inputs and code again."""
        ended = self.status.without_result
        if ended is None or (self.declared_code is not None and ended.code_version != self.declared_code):
            return None
        if self.tried:
            return None if self._changes_since(self.tried) else ended
        # it never came to read anything: what was committed since is a change
        reference = ended.started_at or ended.finished_at
        later = (one.committed for one in self.inputs)
        return None if any(c is not None and reference and c.committed_at > reference for c in later) else ended

    @property
    def last_requested_at(self) -> datetime | None:
        """When this was last asked for or committed; None for never."""
        committed, newest = self.status.committed, self.status.newest
        moments = [committed.committed_at] if committed else []
        return max([*moments, newest.requested_at] if newest else moments, default=None)

    def _changes_since(self, read: Reads) -> list[str]:
        found = []
        for one in self.inputs:
            now = one.committed
            if now is not None:
                change = _change(read.get(one.target), now.data)
                if change:
                    at = now.committed_at.isoformat(sep=" ", timespec="seconds")
                    found.append(f"input {one.name} {change}, committed at {at}")
        current = {one.target for one in self.inputs}
        found += [
            f"input {describe_target(*target)} was read and no longer is"
            for target in read
            if target not in current
        ]
        return found


def _change(before: DataVersion | None, now: DataVersion) -> str | None:
    if before is None:
        return "is new: it was not read before"
    return None if before.is_same(now) else f"changed: {before.change_to(now)}"
