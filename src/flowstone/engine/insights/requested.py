"""What a run was to compute, in words: its partitions, and the command line that requests the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice

from flowstone.core.graph import AssetGraph
from flowstone.core.insights.runs import StepSpan
from flowstone.core.partitions import decode_partition
from flowstone.core.step import RunRecord
from flowstone.engine.insights.timeline import Label, plain_label
from flowstone.errors import PartitionError, command

_COMPARED = 1000
"""Up to so many partitions are compared with those of the range between the first and the last one."""
_LISTED = 50


def partitions_in_words(run: RunRecord, label: Label = plain_label) -> str:
    """Return which partitions a run was to compute; empty without.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.state import State
        >>> known = {"id": "r1", "kind": "backfill", "selection": "a", "executor": "oban", "state": State.FAILED}
        >>> known |= {"priority": 4, "max_concurrency": None, "created_at": datetime(2024, 1, 1, tzinfo=UTC)}
        >>> partitions_in_words(RunRecord(first_partition="s:a", last_partition="s:z", partitions=1204, **known))
        'a..z (1,204)'
    """
    first, last = ends_of(run, label)
    if not first or not last:
        return ""
    return first if first == last else f"{first}..{last} ({run.partitions:,})"


def ends_of(run: RunRecord, label: Label) -> tuple[str, str]:
    """Return the first and the last partition of a run, as an asset of it with words of its own writes them."""
    first, last = run.first_partition, run.last_partition
    if first is None or last is None:
        return "", ""
    for asset in run.assets:  # months of one asset are the months of all: the first one that knows them says how
        found = label(asset, first)
        if found != plain_label(asset, first):
            return found, label(asset, last)
    return plain_label("", first), plain_label("", last)


def equal_command(run: RunRecord, label: Label = plain_label, *, others: Sequence[str] | None = None) -> str:
    """Return the command line that requests the same as a run did, its config apart.

    Args:
        run: the run.
        label: writes partitions.
        others: its partitions when they are no range, as people write them; none when there are too many.

    Returns:
        The command; empty when no short one requests the same.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.state import State
        >>> known = {"id": "r1", "executor": "oban", "state": State.FAILED, "priority": 4, "max_concurrency": None}
        >>> at = datetime(2024, 1, 1, tzinfo=UTC)
        >>> made = RunRecord(kind="materialize", selection="orders", created_at=at, **known)
        >>> equal_command(made)
        'flowstone materialize orders'
    """
    if run.retry_of is not None:
        return command("retry", run.retry_of)
    verb = "backfill" if run.kind == "backfill" else "materialize"
    if others is not None:
        return command(verb, run.selection, partitions=",".join(others)) if others else ""
    first, last = ends_of(run, label)
    options: dict[str, str] = {}
    if first and last and verb == "backfill":
        options = {"from": first, "to": last}
    elif first:
        options = {"partition": first}
    return command(verb, run.selection, **options)


def loose_partitions(
    run: RunRecord, graph: AssetGraph, spans: Sequence[StepSpan], now: datetime
) -> tuple[str, ...] | None:
    """Return the partitions of a backfill that are not all of a range; None for a range, and for very many."""
    number = run.partitions or 0
    assets = [graph[name] for name in run.assets if name in graph and graph[name].partitions is not None]
    if run.first_partition is None or run.last_partition is None or not 1 < number <= _COMPARED or not assets:
        return None
    asset, definition = assets[0], assets[0].partitions
    assert definition is not None
    ends = decode_partition(run.first_partition), decode_partition(run.last_partition)
    try:
        if sum(1 for _ in islice(definition.between(*ends, now), number + 1)) == number:
            return None
    except PartitionError:  # declared otherwise by now
        return None
    planned = sorted((span.step_id, span.partition_key) for span in spans if span.asset == asset.name)
    keys = list(dict.fromkeys(key for _, key in planned))
    labels = tuple(graph.label(asset.name, key) for key in keys)
    # one that holds a comma cannot stand in a list of them
    return labels if len(keys) == number <= _LISTED and not any("," in one for one in labels) else ()
