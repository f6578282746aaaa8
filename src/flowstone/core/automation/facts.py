"""The facts that conditions judge: one target, its inputs, and what changed since it was computed.

First what a store says of a target (what is committed, which step was requested last, what that had read), then
`TargetFacts`, which compares it with the inputs. No store and no clock in here: facts are values that tests write
down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from flowstone.core.control import describe_target
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.core.zones import utc_text

_SHOWN = 8


class DataVersion(NamedTuple):
    """Which data a committed step wrote.

    Args:
        step_id: the step.
        content_hash: hash of the stored bytes; None when nothing was encoded, or the step is no longer recorded.

    Example:
        >>> DataVersion(1, "ab").is_same(DataVersion(2, "ab")), DataVersion(1, None).is_same(DataVersion(2, None))
        (True, False)
    """

    step_id: int
    content_hash: str | None = None

    def is_same(self, other: DataVersion) -> bool:
        """Whether both are the same data: one step, or equal hashes. Without a hash the step decides."""
        if self.step_id == other.step_id:
            return True
        return self.content_hash is not None and self.content_hash == other.content_hash

    def change_to(self, newer: DataVersion) -> str:
        """Say for people how this version became another one.

        Example:
            >>> DataVersion(1, "ab" * 32).change_to(DataVersion(2, "cd" * 32))
            'data version abababab → cdcdcdcd'
            >>> DataVersion(1).change_to(DataVersion(2, "cd" * 32))
            'step 1 → step 2'
        """
        if self.content_hash is None or newer.content_hash is None:
            return f"step {self.step_id} → step {newer.step_id}"
        return f"data version {self.content_hash[:_SHOWN]} → {newer.content_hash[:_SHOWN]}"


class Restored(NamedTuple):
    """That a person put a version in use again; see `flow.versions.restore`.

    Args:
        at: when.
        by: who.
        replaced_code: version of the code that made the version which was in use before.
    """

    at: datetime
    by: str | None = None
    replaced_code: str | None = None

    def __str__(self) -> str:
        return f"restored{f' by {self.by}' if self.by else ''}, at {utc_text(self.at)}"


class CommittedVersion(NamedTuple):
    """The version of a target that is in use.

    Args:
        data: which data it is.
        committed_at: when it was committed, by the store's clock.
        code_version: version of the code that made it, when it was declared.
        started_at: when computing it started, as far as that is known.
        restored: that a person put it in use again; then `committed_at` is when that was.
    """

    data: DataVersion
    committed_at: datetime
    code_version: str | None = None
    started_at: datetime | None = None
    restored: Restored | None = None


class NewestStep(NamedTuple):
    """The newest step of a target that was not served by an earlier version.

    Args:
        step_id: the step.
        state: its state.
        code_version: version of the code it was placed with.
        requested_at: when it was asked for.
        started_at: when its last attempt started; None when it never did.
        finished_at: when it was over; None while it is active.
        run_id: its run.
    """

    step_id: int
    state: State
    code_version: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_id: str

    @property
    def is_active(self) -> bool:
        """Whether it is not over."""
        return self.finished_at is None

    @property
    def is_without_result(self) -> bool:
        """Whether it is over and committed nothing: failed, skipped or cancelled."""
        return self.finished_at is not None and not self.state.is_success


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How one target stands.

    Args:
        committed: the version in use; None when there is none, or it was invalidated.
        newest: the newest step; None when none was ever asked for, or all were pruned.
    """

    committed: CommittedVersion | None = None
    newest: NewestStep | None = None

    @property
    def active(self) -> NewestStep | None:
        """The step that is not over, if there is one."""
        return self.newest if self.newest is not None and self.newest.is_active else None

    @property
    def without_result(self) -> NewestStep | None:
        """The newest step, if it is over and committed nothing."""
        return self.newest if self.newest is not None and self.newest.is_without_result else None


NOTHING = TargetStatus()
"""A target that nobody ever asked for."""

type Reads = dict[Target, DataVersion]
"""What a step had read."""


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
        partition_key: encoded partition.
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
        >>> facts = TargetFacts(asset="orders", partition_key=PartitionKey(""))
        >>> facts.is_missing, facts.changes, facts.unready
        (True, [], [])
    """

    asset: str
    partition_key: PartitionKey
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
        return self.shown or describe_target(self.asset, self.partition_key)

    @property
    def is_missing(self) -> bool:
        """Whether nothing is committed."""
        return self.status.committed is None

    @property
    def changes(self) -> list[str]:
        """Which inputs are other data than the committed version had read, for people; empty when it is missing.

        An input that was computed again to the same bytes did not change. Whoever restored a version has decided
        with the inputs of that time in view: only what changes after it counts.
        """
        committed = self.status.committed
        if committed is None:
            return []
        return self._changes_since(self.read, after=committed.restored.at if committed.restored else None)

    @property
    def restored_inputs(self) -> list[str]:
        """Those of `changes` that a restore made."""
        restored = {one.name for one in self.inputs if one.committed is not None and one.committed.restored}
        return [change for change in self.changes if any(change.startswith(f"input {name} ") for name in restored)]

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
        if committed.restored is not None and committed.restored.replaced_code == self.declared_code:
            return None  # what this code had made was replaced on purpose
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

    def _changes_since(self, read: Reads, *, after: datetime | None = None) -> list[str]:
        found = []
        for one in self.inputs:
            now = one.committed
            if now is not None and (after is None or now.committed_at > after):
                change = _change(read.get(one.target), now.data)
                if change and now.restored is not None:
                    found.append(f"input {one.name} {_restored(now, now.restored)}")
                elif change:
                    at = now.committed_at.isoformat(sep=" ", timespec="seconds")
                    found.append(f"input {one.name} {change}, committed at {at}")
        current = {one.target for one in self.inputs}
        found += [
            f"input {describe_target(*target)} was read and no longer is"
            for target in read
            if target not in current
        ]
        return found


def _restored(version: CommittedVersion, restored: Restored) -> str:
    by = f" by {restored.by}" if restored.by else ""
    return f"was restored to version {version.data.step_id}{by}, at {utc_text(restored.at)}"


def _change(before: DataVersion | None, now: DataVersion) -> str | None:
    if before is None:
        return "is new: it was not read before"
    return None if before.is_same(now) else f"changed: {before.change_to(now)}"
