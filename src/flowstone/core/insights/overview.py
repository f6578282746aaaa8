"""What a store says for the first page: runs that are not over, stale assets, and what a search finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from flowstone.core.partitions import PartitionKey


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is not over.

    Args:
        id: the run.
        kind: what asked for it, such as `backfill` or `schedule`.
        selection: what was asked for.
        created_at: when.
        age_seconds: how long ago that is, by the clock of the store; never negative.
        open_steps: steps of it that are not over.
        failures: steps of it that failed.
        paused: whether nothing more of it starts.
    """

    id: str
    kind: str
    selection: str
    created_at: datetime
    age_seconds: float
    open_steps: int
    failures: int
    paused: bool


class StaleAsset(NamedTuple):
    """An asset with versions in use that would come out differently now, among its last partitions.

    Args:
        asset: the asset.
        number: how many of them are stale.
        compared: how many were compared.
        upstream: an input that has another version by now; None when the code has changed.
        upstream_key: its partition, encoded.
    """

    asset: str
    number: int
    compared: int
    upstream: str | None
    upstream_key: PartitionKey | None


class FoundRun(NamedTuple):
    """A run that a search finds.

    Args:
        id: the run.
        kind: what asked for it.
        selection: what was asked for.
        state: its state.
        created_at: when it was asked for.
    """

    id: str
    kind: str
    selection: str
    state: str
    created_at: datetime
