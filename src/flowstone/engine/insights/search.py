"""One field that finds everything: names, partitions, runs by the beginning of their id, steps, tags.

Every kind is bounded by itself. A name that begins with the text comes before one that has it inside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.core.asset import Asset
from flowstone.core.definition import PartitionsDefinition, write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import PartitionKey, encode_partition
from flowstone.engine.insights.assets import AssetWatch
from flowstone.errors import PartitionError
from flowstone.protocols import Store

_MAX_TEXT = 200
_OF_EACH = 10
_MAX_PARSED = 500
_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that a search found.

    Args:
        kind: `asset`, `partition`, `run`, `step`, `queue`, `schedule`, `sensor`, `condition` or `check`.
        name: what it is called; the id of a run or step.
        detail: what else there is to say about it.
        asset: the asset that it belongs to, of a partition or a check.
        partition: a partition, as people write it.
    """

    kind: str
    name: str
    detail: str = ""
    asset: str | None = None
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Args:
        text: what was searched for, as it was understood.
        hits: what was found, kind by kind.
        is_first: kinds of which there is more than is listed.
    """

    text: str
    hits: tuple[Hit, ...]
    is_first: tuple[str, ...]


def search(
    text: str,
    graph: AssetGraph,
    store: Store,
    assets: AssetWatch,
    *,
    automations: Iterable[tuple[str, str]] = (),
    checks: Iterable[tuple[str, str]] = (),
    queues: Collection[str] = (),
    of_each: int = _OF_EACH,
) -> Found:
    """Find what begins with a text, or has it inside.

    Args:
        text: what a person typed; the name of an asset and a partition may stand behind each other.
        graph: the assets.
        store: the store.
        assets: knows the partitions in their order.
        automations: kind and name of each.
        checks: asset and name of each.
        queues: names.
        of_each: how many of each kind at most.
    """
    words = text.replace("\x00", "").strip()[:_MAX_TEXT]
    if not words:
        return Found("", (), ())
    hits: list[Hit] = []
    more: list[str] = []

    def add(kind: str, found: list[Hit]) -> None:
        hits.extend(found[:of_each])
        if len(found) > of_each:
            more.append(kind)

    add("asset", [Hit("asset", one.name, one.group or "") for one in _matching(words, graph)])
    add("partition", _partitions(words, graph, assets, of_each + 1))
    if words.isdecimal() and len(words) <= _DIGITS and (step := store.catalog.step(int(words))) is not None:
        written = write_partition(_definition(graph, step.asset), step.partition_key)
        add("step", [Hit("step", words, f"{step.state.value}", step.asset, written)])
    runs = store.insights.overview.find_runs(words, limit=of_each + 1)
    add("run", [Hit("run", one.id, f"{one.kind} {one.selection}: {one.state}") for one in runs])
    for kind in ("schedule", "sensor", "condition"):
        add(kind, [Hit(kind, name) for name in _ranked(words, [name for one, name in automations if one == kind])])
    of_checks = {f"{asset} {name}": (asset, name) for asset, name in checks}
    add("check", [Hit("check", of_checks[one][1], "", of_checks[one][0]) for one in _ranked(words, of_checks)])
    add("queue", [Hit("queue", name) for name in _ranked(words, queues)])
    return Found(words, tuple(hits), tuple(more))


def _matching(words: str, graph: AssetGraph) -> list[Asset]:
    return [graph[name] for name in _ranked(words, graph.assets)]


def _ranked(words: str, names: Iterable[str]) -> list[str]:
    """Return names that have a text inside, whatever the case: the same first, then what begins with it."""
    requested = words.casefold()
    found = [(name, name.casefold()) for name in dict.fromkeys(names)]
    matching = [(name, folded) for name, folded in found if requested in folded]
    return [
        name
        for name, folded in sorted(
            matching, key=lambda one: (one[1] != requested, not one[1].startswith(requested), one[1])
        )
    ]


def _partitions(words: str, graph: AssetGraph, assets: AssetWatch, limit: int) -> list[Hit]:
    """Return partitions: by their beginning if the name of an asset stands before them, else as they are."""
    name, _, rest = words.rpartition(" ")
    if name in graph and graph[name].partitions is not None:
        return [
            Hit("partition", f"{name} [{written}]", "", name, written)
            for written in assets.beginning_with(graph[name], rest, limit=limit)
        ]
    found: list[Hit] = []
    for one in list(graph)[:_MAX_PARSED]:
        if one.partitions is not None and len(found) < limit and (key := _parsed(one, words)) is not None:
            written = write_partition(one.partitions, key)
            found.append(Hit("partition", f"{one.name} [{written}]", "", one.name, written))
    return found


def _parsed(asset: Asset, words: str) -> PartitionKey | None:
    """Return the partition that a person wrote; None when the asset has no such partition, or takes any text."""
    assert asset.partitions is not None
    if not asset.partitions.listable:
        return None
    try:
        key = asset.partitions.parse(words)
        return encode_partition(key) if asset.partitions.is_complete(key, datetime.now(UTC)) else None
    except PartitionError:
        return None


def _definition(graph: AssetGraph, asset: str) -> PartitionsDefinition | None:
    return graph[asset].partitions if asset in graph else None
