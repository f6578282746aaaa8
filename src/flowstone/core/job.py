"""A job: the handle of one placed step, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic

from flowstone.core.frozen import maker
from flowstone.core.generic import T_co
from flowstone.core.materialization import Materialization
from flowstone.core.output import JsonValue
from flowstone.core.partitions import Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus(Generic[T_co]):  # noqa: UP046 - its variable has a default
    """Where a job stands.

    Args:
        state: its state; `not_found` for a job that was never placed.
        since: since when, as far as that is recorded.
        scheduled_at: its earliest start, or when the next attempt is due.
        attempt: the attempt that runs, or ran last.
        max_attempts: attempts in all.
        error: text of the last failure with its traceback; None after a success.
        error_type: qualified name of the exception.
        reason: why it was skipped, cancelled, released or not started.
        waiting_for: what it waits for, the most important first; empty when it runs or is over.
        result: what it stands for, when that is a committed value; it is loaded when asked for.

    Example:
        >>> JobStatus(state=State.NOT_FOUND).waiting_for
        ()
    """

    state: State
    since: datetime | None = None
    scheduled_at: datetime | None = None
    attempt: int = 0
    max_attempts: int = 0
    error: str | None = None
    error_type: str | None = None
    reason: str | None = None
    waiting_for: tuple[str, ...] = ()
    result: Materialization[T_co] | None = None


class StepId(int):
    """The id of a step as verbs return it: an `int`.

    In SQL of your own it compares with a bigint column as well as with the text that the args of an Oban job hold
    (`args ->> 'step' = %s`): to psycopg it is a literal without a type, once a database of FlowStone is in use.

    Example:
        >>> StepId(7) == 7, f"{StepId(7)}"
        (True, '7')
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[T_co]):  # noqa: UP046 - its variable has a default
    """One (asset, partition) that was placed with an executor; `Job[T]` makes a value of the type `T`.

    A job carries names, never objects, so that it can cross processes and be stored.

    Args:
        id: id of the step, unique in its store.
        asset: asset name.
        partition: partition value; None for an asset without partitions.
        run_id: run that the step belongs to.
        executor: name of the executor that holds it; status and cancel go there.
        priority: 0 (first) to 9.
        scheduled_at: earliest start, timezone-aware; None means now.
        deduplicated: True when the same work was already under way and this request joined it.
        metadata: facts that were given with the request of its run, JSON-safe.

    Example:
        >>> job = Job(id=7, asset="numbers", partition=None, run_id="r1", executor="sync")
        >>> Job.from_json(job.to_json()) == job
        True
    """

    id: int
    asset: str
    partition: Partition
    run_id: str
    executor: str
    priority: int = 4
    scheduled_at: datetime | None = None
    deduplicated: bool = False
    metadata: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def partition_key(self) -> PartitionKey:
        """The encoded partition."""
        return encode_partition(self.partition)

    @property
    def key(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form; `from_json` makes an equal job of it."""
        return {
            "id": str(self.id),
            "asset": self.asset,
            "partition": encode_partition(self.partition),
            "run_id": self.run_id,
            "executor": self.executor,
            "priority": self.priority,
            # the partition encoding keeps the zone's name, which plain ISO 8601 loses
            "scheduled_at": encode_partition(self.scheduled_at) if self.scheduled_at else None,
            "deduplicated": self.deduplicated,
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, document: dict[str, JsonValue]) -> Job:
        """Rebuild a job from its JSON form.

        Raises:
            PartitionError: the partition text was not written by `to_json`.
        """
        fields = dict(document)
        scheduled = fields.pop("scheduled_at", None)
        partition = decode_partition(str(fields.pop("partition")))
        scheduled_at = decode_partition(str(scheduled)) if scheduled else None
        step_id = StepId(str(fields.pop("id")))
        return cls(**fields, id=step_id, partition=partition, scheduled_at=scheduled_at)  # type: ignore[arg-type]


make_job: Callable[..., Job] = maker(Job)
"""Makes a job of the same arguments: every step that a run of this process drives has one."""
