"""What both stores decide alike about versions: what is refused, what was before, what the audit log says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from flowstone.core.control import describe_target
from flowstone.core.partitions import PartitionKey
from flowstone.core.step import Target
from flowstone.core.version import (
    ActiveTarget,
    ChangeKind,
    CommittedAt,
    EraseCounts,
    OutputChange,
    PublishedVersion,
    Repointed,
    RestoreVersion,
    VersionAt,
    which_at,
)
from flowstone.errors import RestoreRefusedError, TargetActiveError, ValueErasedError, command
from flowstone.stores.audit import of_targets

MAX_REASON = 1000
_SHOWN = 20


class LockedVersion(NamedTuple):
    """A version that nothing can delete meanwhile."""

    step_id: int
    asset: str
    partition_key: PartitionKey
    erased_at: datetime | None


def check_restore(
    versions: Sequence[RestoreVersion], locked: Mapping[int, LockedVersion], current: Mapping[Target, CommittedAt]
) -> None:
    """Refuse what cannot be put in use.

    Raises:
        RestoreRefusedError: says of the first one why not.
        ValueErasedError: it was erased.
    """
    for (asset, key), step_id, expect in versions:
        now = current.get((asset, key))
        if expect is not None and (now is None or now.step_id != expect):
            is_now = "nothing is in use now" if now is None else f"version {now.step_id} is in use now"
            raise RestoreRefusedError(
                asset,
                key,
                f"{is_now}, not version {expect}: it changed meanwhile",
                f"See `{command('versions ls', asset)}` and ask again.",
            )
        if step_id is None:
            continue
        found = locked.get(step_id)
        if found is None:
            raise RestoreRefusedError(
                asset,
                key,
                f"there is no version {step_id}: no such step committed one, or it was pruned",
                f"`{command('versions ls', asset)}` lists those that are there.",
            )
        if (found.asset, found.partition_key) != (asset, key):
            other = describe_target(found.asset, found.partition_key)
            raise RestoreRefusedError(
                asset, key, f"version {step_id} is one of {other}", "A version is restored where it was made."
            )
        if found.erased_at is not None:
            raise ValueErasedError(asset, key, at=found.erased_at, version=step_id)


def refuse_active(doing: str, active: Sequence[ActiveTarget]) -> None:
    """Refuse what is under way.

    Raises:
        TargetActiveError: names targets and runs.
    """
    if active:
        targets = list(dict.fromkeys(describe_target(one.asset, one.partition_key) for one in active))
        runs = list(dict.fromkeys(one.run_id for one in active))
        forced = " With force=True the earlier version is restored now, and what commits later wins."
        raise TargetActiveError(doing, targets, runs, forced=forced if doing == "restored" else "")


def before_commits(
    versions: Sequence[PublishedVersion],
    commits: Mapping[Target, Sequence[CommittedAt]],
    changes: Mapping[Target, Sequence[OutputChange]],
    current: Mapping[Target, CommittedAt],
) -> dict[Target, VersionAt]:
    """Return which version was in use before each of some versions that are in use was committed."""
    found = {}
    for one in versions:
        target = one.asset, one.partition_key
        now = current.get(target)
        if now is None or now.step_id != one.step_id:
            continue  # it is not in use any more
        at = now.at
        if any((change.step_id, change.at) == (one.step_id, at) for change in changes[target]):
            # a person put it in use again; it was committed earlier
            at = next((commit.at for commit in commits[target] if commit.step_id == one.step_id), at)
        earlier = [change for change in changes[target] if change.at < at or change.kind is ChangeKind.PRUNED]
        # steps of a target follow each other, whatever the clocks of those who ran them say
        latest = at - timedelta(microseconds=1)
        others = [
            CommittedAt(commit.step_id, min(commit.at, latest))
            for commit in commits[target]
            if commit.step_id < one.step_id
        ]
        found[target] = which_at(at, others, earlier, None)
    return found


def restored_line(
    changed: Sequence[Repointed], reason: str | None, run_id: str | None
) -> tuple[str, str, dict[str, object]]:
    """Return what the audit log says of a restore: action, subject, details."""
    subject, details = of_targets([one.target for one in changed])
    details |= {"reason": reason[:MAX_REASON] if reason else None}
    if run_id is not None:
        return "run.undone", f"run:{run_id}", {"targets": len(changed), "of": subject} | details
    if len(changed) == 1:
        return "versions.restored", subject, details | {"before": changed[0].before, "version": changed[0].step_id}
    return "versions.restored", subject, details | {"targets": len(changed)}


def erased_line(
    targets: Sequence[Target], counts: EraseCounts, reason: str | None
) -> tuple[str, str, dict[str, object]]:
    """Return what the audit log says of an erasure: the fact and the counts, nothing of the data."""
    subject, details = of_targets(targets)
    numbers: dict[str, object] = {name: number for name, number in counts._asdict().items() if number}
    return "versions.erased", subject, details | numbers | {"reason": reason[:MAX_REASON] if reason else None}
