"""What a store says of the partitions of an asset, and of all assets at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowstone.core.partitions import PartitionKey


@dataclass(frozen=True, slots=True)
class AssetTargets:
    """Which partitions of an asset are in which state; encoded, in no order. One may be in several.

    Args:
        committed: those with a version in use.
        failed: those whose last attempt to compute them failed, and that no later version replaced.
        active: those with a step that is not over.
        unstarted: those that wait in a large backfill.
    """

    committed: frozenset[PartitionKey] = frozenset()
    failed: frozenset[PartitionKey] = frozenset()
    active: frozenset[PartitionKey] = frozenset()
    unstarted: frozenset[PartitionKey] = frozenset()


@dataclass(frozen=True, slots=True)
class AssetCounts:
    """How many partitions of an asset are in which state; 1 of an asset without partitions.

    Args:
        asset: its name.
        committed: with a version in use; some of them may have failed or be active since.
        failed: whose last attempt failed, and that no later version replaced.
        active: with a step that is not over.
        unstarted: that wait in a large backfill.
        committed_at: when the newest version was committed.
    """

    asset: str
    committed: int = 0
    failed: int = 0
    active: int = 0
    unstarted: int = 0
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StaleVersion:
    """A version in use that would come out differently now.

    Args:
        partition_key: its partition, encoded.
        upstream: an input of it that has another version in use by now; None when its code has changed.
        upstream_key: the partition of that input.
    """

    partition_key: PartitionKey
    upstream: str | None = None
    upstream_key: PartitionKey | None = None


@dataclass(frozen=True, slots=True)
class FailedTarget:
    """A partition whose last attempt failed.

    Args:
        asset: the asset.
        partition_key: the partition, encoded.
        step_id: the step.
        run_id: its run.
        state: `failed`, or `upstream_failed` when an input failed.
        error: what was raised, with its traceback.
        error_type: name of its class.
        reason: why it ended, without an error of its own.
        finished_at: when.
    """

    asset: str
    partition_key: PartitionKey
    step_id: int
    run_id: str
    state: str
    error: str | None
    error_type: str | None
    reason: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class AssetHealth:
    """What is asked of the assets of one page of a list.

    Args:
        asset: its name.
        usual_seconds: how long its last versions took, their median; None when there is none.
        failed_checks: how many checks of a partition found something, in their newest results; counted up to 20.
    """

    asset: str
    usual_seconds: float | None = None
    failed_checks: int = 0
