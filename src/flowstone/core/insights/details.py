"""What a page says of one asset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowstone.core.insights.versions import VersionLine


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourAsset:
    """An asset beside another one.

    Args:
        name: the asset.
        mapping: which of its partitions belong to which, as it is declared.
        optional: whether it can be done without when it was skipped.
        declared: whether the app has it.
    """

    name: str
    mapping: str
    optional: bool = False
    declared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetDetail:
    """One asset: what it is declared as, and how it stands.

    Args:
        name: asset name.
        declared: whether the app declares it; else only its history is there.
        state: `current`, `stale`, `failed`, `active`, `missing` or `erased`; the worst over its partitions.
        says: that in a sentence.
        why: reasons, the most important first.
        description: what its function says of itself.
        group: its group.
        tags: its tags.
        where: file and line of its function.
        partitioned: whether it has partitions.
        partitions: their definition, as it is declared.
        options: what else it declares: name and value.
        automation: its condition; empty without one.
        upstream: what it reads.
        downstream: what reads it.
        counts: number of partitions in each state, the overlapping ones included; empty without partitions.
        total: how many partitions it has; None when they cannot be listed.
        committed_at: when its newest version was committed.
        usual_seconds: how long it usually takes: the median of its last versions.
        checks: number of declared checks.
        failed_checks: how many of them found something, in their newest results.
    """

    name: str
    declared: bool
    state: str
    says: str
    why: tuple[str, ...]
    description: str
    group: str | None
    tags: tuple[str, ...]
    where: str
    partitioned: bool
    partitions: str
    options: tuple[tuple[str, str], ...]
    automation: str
    upstream: tuple[NeighbourAsset, ...]
    downstream: tuple[NeighbourAsset, ...]
    counts: tuple[tuple[str, int], ...]
    total: int | None
    committed_at: datetime | None
    usual_seconds: float | None
    checks: int
    failed_checks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNumber:
    """A number that a version recorded in its metadata.

    Args:
        version: its number.
        partition: as people write it.
        at: when it was committed.
        value: the number.
    """

    version: int
    partition: str
    at: datetime
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSeries:
    """A number over time.

    Args:
        name: under which it was recorded.
        points: the versions that recorded it, the oldest first.
    """

    name: str
    points: tuple[RecordedNumber, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetHistory:
    """The newest versions of an asset, over all partitions.

    Args:
        versions: newest first.
        numbers: what they recorded as numbers, by name.
        only_in_use: whether only versions in use are among them, because there are very many partitions.
        is_all: whether these are all that are recorded.
    """

    versions: tuple[VersionLine, ...]
    numbers: tuple[NumberSeries, ...]
    only_in_use: bool
    is_all: bool
