"""What a store says of the whole: for the first page, for a search, whether anything changed, and of itself."""

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


class Pulse(NamedTuple):
    """A text for each topic that is another one as soon as something about it is; equal while nothing is.

    Args:
        runs: runs were placed, went on or ended.
        steps: attempts started or ended.
        queues: queues were paused, resumed or resized, or have other work.
        approvals: requests for approval were made or decided.
        automations: schedules, sensors, conditions were evaluated, paused or resumed.
        workers: workers came, went or were lost.
        audit: people did something.
        logs: lines that steps logged were written.
    """

    runs: str
    steps: str
    queues: str
    approvals: str
    automations: str
    workers: str
    audit: str
    logs: str


class TableSize(NamedTuple):
    """A table.

    Args:
        name: its name.
        rows: about how many rows it has; -1 when nobody has counted yet.
        size_bytes: its size, values that lie outside its rows included.
        index_bytes: the size of its indexes.
    """

    name: str
    rows: int
    size_bytes: int
    index_bytes: int


class PoolUse(NamedTuple):
    """The connections of this process to its database.

    Args:
        name: what they are for.
        maximum: how many there may be.
        opened: how many there are.
        idle: how many of them are free.
        waiting: how many threads wait for one.
    """

    name: str
    maximum: int
    opened: int
    idle: int
    waiting: int
