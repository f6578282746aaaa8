"""Which partitions of an asset one evaluation covers: always the newest, and a moving window of the others."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from flowstone.core.definition import ListedPartitions, PartitionsDefinition
from flowstone.core.partition import NO_PARTITION, Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.timeline import TimePartitions
from flowstone.errors import PartitionError

NEWEST = 200
"""How many of the newest partitions every evaluation covers."""
OLDER = 200
"""How many of the others; the next evaluation goes on with those before them, and in the end begins anew."""


class Scope(NamedTuple):
    """Partitions to evaluate.

    Args:
        partitions: encoded, the newest first.
        resume: where the next evaluation goes on among the older ones; None for directly behind the newest.
    """

    partitions: list[str]
    resume: str | None = None


def scope(
    definition: PartitionsDefinition | None,
    now: datetime,
    resume: str | None = None,
    *,
    newest: int = NEWEST,
    older: int = OLDER,
) -> Scope:
    """Return what the next evaluation covers.

    Args:
        definition: the partitions of the asset; None without partitions.
        now: decides which partitions are complete.
        resume: what the evaluation before left.
        newest: how many of the newest.
        older: how many of the others.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.calendar import DailyPartitions
        >>> now = datetime(2024, 1, 6, tzinfo=UTC)
        >>> scope(DailyPartitions("2024-01-01"), now, newest=1, older=2)
        Scope(partitions=['d:2024-01-05', 'd:2024-01-04', 'd:2024-01-03'], resume='d:2024-01-02')
        >>> scope(DailyPartitions("2024-01-01"), now, "d:2024-01-02", newest=1, older=2)
        Scope(partitions=['d:2024-01-05', 'd:2024-01-02', 'd:2024-01-01'], resume=None)
    """
    if definition is None:
        return Scope([""])
    head = _until(definition, None, newest + 1, now)
    behind = head.pop(0) if len(head) > newest else None
    start = _resumed(definition, resume) if resume is not None else None
    if start is None:
        start = behind
    rest = [] if start is None or behind is None else _until(definition, start, older + 1, now)
    following = rest.pop(0) if len(rest) > older else None
    keys = dict.fromkeys(encode_partition(key) for key in (*reversed(head), *reversed(rest)))
    return Scope(list(keys), None if following is None else encode_partition(following))


def begun(definition: PartitionsDefinition | None, now: datetime) -> list[str]:
    """Return the partition that is going on, encoded, of partitions by time; nothing when there is none.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.calendar import DailyPartitions
        >>> begun(DailyPartitions("2024-01-01"), datetime(2024, 1, 6, 12, tzinfo=UTC))
        ['d:2024-01-06']
    """
    key = definition.containing(now) if isinstance(definition, TimePartitions) else None
    if definition is None or key is None or key not in definition or definition.is_complete(key, now):
        return []
    return [encode_partition(key)]


def every(definition: PartitionsDefinition | None, now: datetime) -> list[PartitionKey]:
    """Return all complete partitions, encoded, the newest first.

    Example:
        >>> from datetime import UTC
        >>> every(None, datetime(2024, 1, 1, tzinfo=UTC))
        ['']
    """
    return [NO_PARTITION] if definition is None else [encode_partition(key) for key in definition.keys(now)][::-1]


def _until(
    definition: PartitionsDefinition, last: Partition | None, number: int, now: datetime
) -> list[Partition]:
    """Return up to `number` complete keys that end with `last`, in order; None stands for the last one."""
    if isinstance(definition, TimePartitions):
        key = definition.last(now) if last is None else last
        found: list[Partition] = []
        while key is not None and key >= definition.start and len(found) < number:
            found.append(key)
            key = definition.shift(key, -1)
        return found[::-1]
    if isinstance(definition, ListedPartitions):
        return definition.until(last, number)
    keys = list(definition.keys(now))
    stop = len(keys) if last is None or last not in keys else keys.index(last) + 1
    return keys[max(0, stop - number) : stop]


def _resumed(definition: PartitionsDefinition, resume: str) -> Partition | None:
    """Return where to go on; None when that partition is not there any more."""
    try:
        return definition.validate(decode_partition(resume))
    except PartitionError:
        return None
