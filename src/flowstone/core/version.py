"""Versions of a target: what was committed for it, which one was in use when, and what people did to them.

A version is what one step committed. Commits move the pointer of a target to their own version and leave their
step behind, which says when. What else moves the pointer leaves an `OutputChange`: a restore, an invalidation, an
erasure, and pruning, after which not everything can be known of the time before. So commits write nothing for
this, and `which_at` puts both together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from flowstone.core.output import StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import Target


class ChangeKind(StrEnum):
    """How the version of a target that is in use was changed without computing one.

    Example:
        >>> ChangeKind("restored") is ChangeKind.RESTORED
        True
    """

    RESTORED = "restored"
    INVALIDATED = "invalidated"
    ERASED = "erased"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputChange:
    """A change of the version in use that no commit made.

    Args:
        asset: asset name.
        partition_key: encoded partition.
        kind: what was done.
        step_id: the version in use afterwards; None for none.
        before: the version in use before; None for none.
        before_since: since when that one had been in use.
        at: when, by the store's clock; for pruning, the end of the newest version that was pruned.
        actor: who did it.
        reason: why, as they said.
        id: position among all changes.
    """

    asset: str
    partition_key: PartitionKey
    kind: ChangeKind
    at: datetime
    step_id: int | None = None
    before: int | None = None
    before_since: datetime | None = None
    actor: str | None = None
    reason: str | None = None
    id: int = 0

    @property
    def by(self) -> str:
        """Who did it, for a sentence; empty when nobody said so."""
        return f" by {self.actor}" if self.actor else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """One version of a target, as it is recorded.

    Args:
        step_id: the step that made it, which is its number.
        asset: asset name.
        partition_key: encoded partition.
        run_id: run of that step.
        attempt: attempt that made it.
        created_at: when it was asked for.
        started_at: when computing it started.
        finished_at: when that ended.
        code_version: declared version of the code that made it.
        stored: where its value lies; None once that was erased.
        invalidated_at: when it was taken out of use; None when that is not so.
        erased_at: when it was erased.
        since: since when it is in use; None when another one is, or none.
        kind: kind of its run; None when that is not recorded.
        requested_by: who asked for it.
    """

    step_id: int
    asset: str
    partition_key: PartitionKey
    run_id: str
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    code_version: str | None
    stored: StoredOutput | None
    invalidated_at: datetime | None = None
    erased_at: datetime | None = None
    since: datetime | None = None
    kind: str | None = None
    requested_by: str | None = None

    @property
    def is_current(self) -> bool:
        """Whether it is what `load` returns."""
        return self.since is not None


class CommittedAt(NamedTuple):
    """A version and when it was committed, for `which_at`.

    Args:
        step_id: the version.
        at: when its attempt ended, by the clock of whoever ran it.
    """

    step_id: int
    at: datetime


class VersionAt(NamedTuple):
    """Which version was in use at a time.

    Args:
        step_id: the version; None for none.
        since: since when that was so; None when nothing had ever been committed.
        change: what had led to it; None for a commit, or nothing.
        is_unknown: whether another version, which was pruned since, may have been in use instead.
    """

    step_id: int | None
    since: datetime | None
    change: OutputChange | None = None
    is_unknown: bool = False


def which_at(
    at: datetime,
    commits: Iterable[CommittedAt],
    changes: Sequence[OutputChange],
    current: CommittedAt | None,
) -> VersionAt:
    """Return which version of a target was in use at a time.

    Commits are known by the clock of the process that ran them, changes by that of the store. A version that is,
    or at a change was, in use is known by the store's clock as well, which then counts: so clocks that differ
    never turn a commit and a restore around.

    Args:
        at: the time.
        commits: the versions that are recorded.
        changes: what else changed which one is in use.
        current: the one in use now, since when.

    Example:
        >>> from datetime import UTC
        >>> def noon(minute):
        ...     return datetime(2026, 1, 1, 12, minute, tzinfo=UTC)
        >>> commits = [CommittedAt(1, noon(0)), CommittedAt(2, noon(10))]
        >>> restored = OutputChange(asset="a", partition_key=PartitionKey(""), kind=ChangeKind.RESTORED,
        ...     at=noon(20), step_id=1, before=2, before_since=noon(10))
        >>> [which_at(noon(m), commits, [restored], CommittedAt(1, noon(20))).step_id for m in (5, 15, 25)]
        [1, 2, 1]
    """
    moved = [change for change in changes if change.kind is not ChangeKind.PRUNED]
    newest = max((change for change in moved), key=lambda one: (one.at, one.id), default=None)
    if current is not None and at >= current.at and (newest is None or at >= newest.at):
        made_by = newest if newest is not None and newest.step_id == current.step_id else None
        return VersionAt(current.step_id, current.at, made_by)
    pruned_until = max((one.at for one in changes if one.kind is ChangeKind.PRUNED), default=None)
    by_change = {(change.step_id, change.at) for change in moved}
    in_use = [(change.before, change.before_since) for change in moved]
    if current is not None:
        in_use.append((current.step_id, current.at))
    # since a change, or since their commit: only the latter says when that was
    by_store = {step_id: since for step_id, since in in_use if since and (step_id, since) not in by_change}
    events: list[tuple[datetime, int, int, int | None, OutputChange | None]] = [
        (by_store.get(one.step_id) or one.at, 0, one.step_id, one.step_id, None) for one in commits
    ]
    events += [(change.at, 1, change.id, change.step_id, change) for change in moved]
    past = [one for one in events if one[0] <= at]
    if not past:
        return VersionAt(None, None, is_unknown=pruned_until is not None)
    since, _, _, step_id, made_by = max(past, key=lambda one: one[:3])
    unknown = pruned_until is not None and since < pruned_until
    return VersionAt(step_id, since, made_by, is_unknown=unknown)


class RestoreVersion(NamedTuple):
    """A target and the version that is to be in use.

    Args:
        target: asset and encoded partition.
        step_id: the version; None for none.
        expect: refuse unless this version is in use now; None for whichever.
    """

    target: Target
    step_id: int | None
    expect: int | None = None


class Repointed(NamedTuple):
    """The answer to a `RestoreVersion`.

    Args:
        target: asset and encoded partition.
        before: the version that was in use; None for none.
        step_id: the one that is.
    """

    target: Target
    before: int | None
    step_id: int | None

    @property
    def changed(self) -> bool:
        """Whether that is another one."""
        return self.before != self.step_id


class ActiveTarget(NamedTuple):
    """A target with a step that is not over, or that waits in a range.

    Args:
        asset: asset name.
        partition_key: encoded partition.
        run_id: the run that computes it.
        step_id: the step; None while it waits in a range.
        state: its state.
    """

    asset: str
    partition_key: PartitionKey
    run_id: str
    step_id: int | None
    state: State


class RunVersion(NamedTuple):
    """What a run has for a target.

    Args:
        step_id: the step that stands for it there; one of another run when it was joined.
        state: its state.
        version: the version that it produced or reused; None without a result.
    """

    step_id: int
    state: State
    version: int | None


class PublishedVersion(NamedTuple):
    """A version that a run committed and that is in use.

    Args:
        asset: asset name.
        partition_key: encoded partition.
        step_id: the version.
    """

    asset: str
    partition_key: PartitionKey
    step_id: int


class ErasableValue(NamedTuple):
    """What a step of an erased target has stored.

    Args:
        step_id: the step.
        asset: asset name; that of an item for a step that computed one.
        partition_key: encoded partition.
        attempts: how many attempts may have stored something.
        stored: what was committed; None when nothing was.
    """

    step_id: int
    asset: str
    partition_key: PartitionKey
    attempts: int
    stored: StoredOutput | None

    @property
    def versions(self) -> list[str]:
        """Names under which its attempts may have stored values; see `OutputAddress.version`.

        Example:
            >>> ErasableValue(7, "a", PartitionKey(""), 2, None).versions
            ['7-1', '7-2']
        """
        return [f"{self.step_id}-{attempt}" for attempt in range(1, max(1, self.attempts) + 1)]


class EraseCounts(NamedTuple):
    """What is recorded of targets that are erased.

    Args:
        steps: number of steps, items included.
        values: number of values that are stored.
        size_bytes: their size, as far as it is known.
        attempts: number of attempts, whose errors go.
        checks: number of results of checks, whose texts and metadata go.
        approvals: number of requests for approval, whose texts and data go.
        items: number of items of scattered steps.
        logs: number of lines that its attempts logged.
        erased: number of those steps that were erased before.
    """

    steps: int = 0
    values: int = 0
    size_bytes: int = 0
    attempts: int = 0
    checks: int = 0
    approvals: int = 0
    items: int = 0
    logs: int = 0
    erased: int = 0
