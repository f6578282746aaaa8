"""What a store says for the first page, and what a search finds."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from flowstone.core.partitions import PartitionKey


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
