"""From the arguments of a verb to targets: names to assets, partitions to keys, selections to what they cover.

Everything that a user may have misspelt ends here with an error that names the remedy, before anything is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial

from flowstone.app.results import RunHandle, RunResult
from flowstone.core.asset import Asset, asset
from flowstone.core.declaring import is_storable, shown
from flowstone.core.definition import AnyPartitions, PartitionsDefinition, read_partition
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.job import Job
from flowstone.core.partitions import NO_PARTITION, Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.scatter import ItemAsset
from flowstone.core.selection import Selection, select
from flowstone.core.step import RunRecord, Target
from flowstone.engine.run_spec import PackedKeys, PartitionTargets
from flowstone.errors import (
    IncompletePartitionError,
    OptionsError,
    PartitionError,
    RunNotFoundError,
    UnknownPartitionError,
)
from flowstone.protocols import Catalog

type AssetLike = str | Asset

_DIGITS = 20  # of a number that fits into 64 bits


def find_asset(graph: AssetGraph, requested: AssetLike) -> Asset:
    """Return an asset of the graph.

    Raises:
        UnknownAssetError: it is not there; suggests the closest name.
        OptionsError: it is neither an asset nor a name, or an asset that this app does not have.
    """
    if isinstance(requested, str):
        return graph.assets[requested]
    if not isinstance(requested, Asset):
        raise OptionsError(f"{shown(requested)} is no asset: give one that @asset made, or its name.")
    return graph.own(requested)


def recorded_asset(graph: AssetGraph, catalog: Catalog, requested: AssetLike) -> Asset:
    """Return an asset of the graph, or a stand-in for one that is declared no more but has a history.

    Raises:
        UnknownAssetError: nobody ever declared it here; suggests the closest name.
    """
    given: object = requested
    name = given.name if isinstance(given, Asset) else given
    if not isinstance(name, str) or name in graph:
        return find_asset(graph, requested)
    # what no database can keep, none has recorded
    newest = catalog.history(name, None, limit=1) if is_storable(name) else ()
    if not newest:
        return find_asset(graph, requested)
    partitions = AnyPartitions() if newest[0].partition_key else None
    return asset(name=name, partitions=partitions, description="declared no more")(_declared_no_more)


def _declared_no_more() -> None:
    """Stand for the function of an asset that is declared no more."""


def step_id_of(step: Job | str | int) -> int | None:
    """Return the id of a step; None for what can be the id of none.

    Args:
        step: a handle, or an id as a verb returned it.

    Raises:
        OptionsError: it is neither.

    Example:
        >>> step_id_of("7"), step_id_of("x"), step_id_of(10**30)
        (7, None, None)
    """
    found = step.id if isinstance(step, Job) else step
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise OptionsError(f"{found!r} is no step: give a Job, or the id of a step.")
    if isinstance(found, str) and not (found.isascii() and found.isdecimal() and len(found) < _DIGITS):
        return None
    found = int(found)
    return found if 0 <= found < 2**63 else None


def run_id_of(run: str | RunRecord | RunResult | RunHandle | Job) -> str:
    """Return the id of a run.

    Args:
        run: an id, a run, its result, or the handle of one of its steps.

    Raises:
        OptionsError: it is none of these.
        RunNotFoundError: no run can have this id.
    """
    if isinstance(run, RunRecord):
        return run.id
    if isinstance(run, RunResult | RunHandle | Job):
        return run.run_id
    if not isinstance(run, str):
        raise OptionsError(f"{run!r} is no run: give the id of a run as text; `flowstone runs` lists them.")
    if "\x00" in run or not run.isprintable():
        raise RunNotFoundError("run", run)
    return run


def several(partitions: Iterable[Partition]) -> Iterable[Partition]:
    """Return partitions that were given as a list, or another iterable.

    Raises:
        PartitionError: it is one partition, or something else.
    """
    given: object = partitions
    if isinstance(given, str | bytes | date):
        raise PartitionError(f"partitions={shown(given)} is one partition; pass a list: [{shown(given)}].")
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise PartitionError(f"partitions={shown(given)}: pass a list of partitions.")
    return partitions


def flag(name: str, value: object) -> bool:
    """Return an option that is on or off.

    Raises:
        OptionsError: it is neither: `"false"` would be on.

    Example:
        >>> flag("dry_run", True)
        True
    """
    if not isinstance(value, bool):
        raise OptionsError(f"{name}={shown(value)}: give True or False.")
    return value


def texts(name: str, given: object) -> tuple[str, ...]:
    """Return an option that is a list of names.

    Raises:
        OptionsError: it is one text, whose letters would be the names, or something else than texts.

    Example:
        >>> texts("assets", ["orders"])
        ('orders',)
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionsError(f"{name}={shown(given)}: give a list of names, such as [{shown(given)}].")
    listed = tuple(given)
    for one in listed:
        if not isinstance(one, str) or not is_storable(one):
            raise OptionsError(f"{name}=[{shown(one)}]: give a list of names.")
    return listed


def whole_number(name: str, value: object, *, minimum: int = 1, maximum: int = 1_000_000_000) -> int:
    """Return an option that counts something.

    Raises:
        OptionsError: it is no whole number, or out of range.

    Example:
        >>> whole_number("limit", 5)
        5
    """
    if type(value) is not int or not minimum <= value <= maximum:
        raise OptionsError(f"{name}={value!r}: give a whole number from {minimum:,} to {maximum:,}.")
    return value


def target_of(asset: Asset, partition: Partition) -> Target:
    """Return the target for one partition of an asset, checked against its definition.

    Raises:
        UnknownPartitionError: the asset has no such partition.
        PartitionError: a partition is given for an asset without, or missing for one with.
    """
    if asset.partitions is None:
        if partition is not None:
            raise UnknownPartitionError(
                partition,
                asset=asset.name,
                hint="The asset has no partitions; leave the partition out, or declare some: "
                "@asset(partitions=AnyPartitions()) for any value, or DailyPartitions(start=...) and the like.",
            )
        return asset.name, NO_PARTITION
    if partition is None:
        raise PartitionError(
            f"Asset {asset.name!r} is partitioned by {asset.partitions!r}; say which partition, or use "
            "materialize_all or backfill for many."
        )
    return asset.name, encode_partition(asset.partitions.validate(partition))


def recorded_target(asset: Asset, partition: Partition, catalog: Catalog) -> Target:
    """Return the target for reading what is recorded: as `target_of`, but what was a partition once will do.

    That is a removed dynamic key, and one that left the declaration and of which something is recorded.

    Raises:
        UnknownPartitionError: the asset never had such a partition.
        PartitionError: see `target_of`.
    """
    try:
        if asset.partitions is None or partition is None:
            return target_of(asset, partition)
        return asset.name, encode_partition(asset.partitions.with_removed().validate(partition))
    except UnknownPartitionError:
        target = asset.name, encode_partition(partition)
        if not catalog.history(*target, limit=1):
            raise
        return target


def read_recorded(asset: Asset, text: str, catalog: Catalog) -> Partition:
    """Return the partition that a person wrote, which may be one of earlier; see `recorded_target`.

    Raises:
        PartitionError: the asset never had such a partition.
    """
    definition = AnyPartitions() if asset.partitions is None else asset.partitions.with_removed()
    readings: tuple[Callable[[], Partition], ...] = (
        lambda: read_partition(definition, text),
        lambda: read_partition(AnyPartitions(), text),
        lambda: text,
    )
    problem: PartitionError | None = None
    for read in readings:
        try:
            return decode_partition(recorded_target(asset, read(), catalog)[1])
        except PartitionError as error:
            problem = problem or error
    raise PartitionError(f"Asset {asset.name!r}: {problem}") from problem


def was_removed(asset: Asset, key: PartitionKey) -> bool:
    """Whether this encoded partition of an asset is one of earlier: its key was removed, or declared no more."""
    if asset.partitions is None:
        return bool(key)
    return bool(key) and decode_partition(key) not in asset.partitions


def refuse_items(graph: AssetGraph, targets: Sequence[Target]) -> None:
    """Refuse a request for an item alone: only the step that discovered it can have it run.

    Raises:
        OptionsError: says what to ask for instead.
    """
    # an item can only be asked for by its name, which is then the only one
    asset = graph.assets[targets[0][0]] if targets else None
    if isinstance(asset, ItemAsset):
        raise OptionsError(
            f"{asset.name!r} is what {asset.scatter!r} does with each of its items, and runs with it alone. "
            f"Materialize {asset.scatter!r}, or retry the run in which items failed."
        )


def all_targets(graph: AssetGraph, names: Iterable[str], partition: Partition, now: datetime) -> list[Target]:
    """Return the targets of a selection: one partition, or all complete ones of each asset."""
    targets: list[Target] = []
    for name in names:
        asset = graph[name]
        if asset.partitions is None:
            targets.append((name, NO_PARTITION))
        elif partition is not None:
            targets.append(target_of(asset, partition))
        else:
            targets.extend((name, encode_partition(key)) for key in asset.partitions.keys(now))
    return targets


def leaves(graph: AssetGraph, names: Iterable[str]) -> list[str]:
    """Return the selected assets that no other selected asset depends on."""
    chosen = set(names)
    return [name for name in graph.order if name in chosen and not graph.downstream(name) & chosen]


def refuse_incomplete(graph: AssetGraph, target: Target, over: Completeness) -> None:
    """Refuse a partition that was asked for and is not over.

    Raises:
        IncompletePartitionError: it is not over, and its asset does not allow that.
    """
    if not over.is_over(*target) and not graph[target[0]].allow_incomplete:
        shown = graph.describe(*target)
        raise IncompletePartitionError(shown, shown, graph.over_at(*target))


def backfill_targets(
    graph: AssetGraph,
    selection: Selection,
    partitions: Iterable[Partition] | None,
    now: datetime,
    *,
    allow_incomplete: bool = False,
    present: datetime | None = None,
) -> tuple[Sequence[Target], tuple[str, ...], tuple[str, ...]]:
    """Return what a backfill consists of, the selected names, and those of them whose partitions were given.

    The partitions belong to the first selected asset that is partitioned. Selected assets with an equal
    definition get the same ones, others those that read them (through the mappings) and are over, assets without
    partitions their one target. `present` decides whether those that were given are over; `now` when None.

    Raises:
        IncompletePartitionError: a partition was given that is not over, without `allow_incomplete`.
        PartitionError: no selected asset is partitioned although partitions are given.
        UnknownPartitionError: a partition does not exist.
    """
    names = select(graph, selection)
    lead = next((graph[name] for name in names if graph[name].partitions is not None), None)
    if lead is None:
        if partitions is not None:
            raise PartitionError(
                f"None of {', '.join(names)} is partitioned; leave the partitions out, or declare some: "
                "@asset(partitions=AnyPartitions()) for any value, or DailyPartitions(start=...) and the like."
            )
        return [(name, NO_PARTITION) for name in names], names, ()
    definition = lead.partitions
    assert definition is not None
    if partitions is None:
        read: Callable[[], Iterable[PartitionKey]] = partial(_complete, definition, now)
    else:
        checked = _checked(lead, definition, partitions)
        over = None if allow_incomplete else Completeness(graph, present or now)
        read = PackedKeys(checked if over is None else _over(graph, lead, checked, over)).read
    explicit = () if partitions is None else (lead.name,)
    if len(names) == 1:
        return PartitionTargets(lead.name, read), names, explicit
    keys = list(read())
    chosen: dict[str, list[PartitionKey]] = {lead.name: keys}
    for name in names:
        if name not in chosen:
            found = _keys(graph, graph[name], definition, keys, chosen, now)
            if not allow_incomplete and not graph[name].allow_incomplete:
                complete = Completeness(graph, now)
                found = [key for key in found if complete.is_over(name, key)]
            chosen[name] = found
    return [(name, key) for name in names for key in chosen[name]], names, explicit


def _over(
    graph: AssetGraph, asset: Asset, keys: Iterable[PartitionKey], over: Completeness
) -> Iterator[PartitionKey]:
    is_over = over.of(asset.name)
    for key in keys:
        if not is_over(key):
            refuse_incomplete(graph, (asset.name, key), over)
        yield key


def _complete(definition: PartitionsDefinition, now: datetime) -> Iterator[PartitionKey]:
    return map(encode_partition, definition.keys(now))


def _checked(
    asset: Asset, definition: PartitionsDefinition, partitions: Iterable[Partition]
) -> Iterator[PartitionKey]:
    partitions = several(partitions)
    for partition in partitions:
        yield (
            encode_partition(definition.validate(partition))
            if partition is not None
            else target_of(asset, None)[1]
        )


def _keys(
    graph: AssetGraph,
    asset: Asset,
    definition: PartitionsDefinition,
    keys: list[PartitionKey],
    chosen: dict[str, list[PartitionKey]],
    now: datetime,
) -> list[PartitionKey]:
    if asset.partitions is None:
        return [NO_PARTITION]
    if asset.partitions == definition:
        return keys
    from_upstream = [
        d.asset for d in asset.dependencies if d.asset in chosen and chosen[d.asset] != [NO_PARTITION]
    ]
    if not from_upstream:
        return [encode_partition(key) for key in asset.partitions.keys(now)]
    found: dict[PartitionKey, None] = {}
    for upstream in from_upstream:
        mapping = graph.mapping(asset.name, upstream)
        source = graph[upstream].partitions
        for key in chosen[upstream]:
            decoded = decode_partition(key)
            for below in mapping.downstream(decoded, downstream=asset.partitions, upstream=source, now=now):
                found[encode_partition(below)] = None
    return list(found)


def describe(selection: Selection) -> str:
    """Return a selection as text for people.

    Example:
        >>> describe(["a", "+b"])
        'a, +b'
    """
    if isinstance(selection, str):
        return selection
    if isinstance(selection, Asset):
        return selection.name
    return ", ".join(one.name if isinstance(one, Asset) else one for one in selection)


def parse_one(graph: AssetGraph, names: Iterable[str], text: str | None) -> Partition:
    """Read the one partition that was given, with the definition of the first partitioned asset.

    Raises:
        PartitionError: none of the assets is partitioned, or there is no such partition.
    """
    if text is None:
        return None
    asset, definition = lead(graph, names)
    return _parse(asset, definition, text)


def parse_several(
    graph: AssetGraph,
    names: Sequence[str],
    *,
    listed: Sequence[str] | None,
    first: str | None,
    last: str | None,
) -> list[Partition] | None:
    """Read a list or a range of partitions; None when neither was given.

    Raises:
        PartitionError: none of the assets is partitioned, or there is no such partition.
        OptionsError: both were given.
    """
    ranged = first is not None or last is not None
    if not listed and not ranged:
        return None
    if listed and ranged:
        raise OptionsError("Give either --partitions or --from and --to, not both.")
    asset, definition = lead(graph, names)
    if ranged:
        start = None if first is None else _parse(asset, definition, first)
        end = None if last is None else _parse(asset, definition, last)
        return list(definition.between(start, end, datetime.now(UTC)))
    return [key for text in listed or () for key in _split(asset, definition, text)]


def lead(graph: AssetGraph, names: Iterable[str]) -> tuple[Asset, PartitionsDefinition]:
    """Return the first partitioned asset and its definition.

    Raises:
        PartitionError: none is partitioned.
    """
    names = list(names)
    for name in names:
        definition = graph[name].partitions
        if definition is not None:
            return graph[name], definition
    raise PartitionError(f"No selected asset is partitioned ({', '.join(names)}); leave the partition out.")


def _split(asset: Asset, definition: PartitionsDefinition, text: str) -> list[Partition]:
    try:
        if not (isinstance(definition, AnyPartitions) and "," in text):
            return [read_partition(definition, text)]  # a label may hold a comma
    except PartitionError:
        if "," not in text:
            raise
    return [_parse(asset, definition, part.strip()) for part in text.split(",") if part.strip()]


def _parse(asset: Asset, definition: PartitionsDefinition, text: str) -> Partition:
    try:
        return read_partition(definition, text)
    except UnknownPartitionError as error:
        raise PartitionError(f"Asset {asset.name!r}: {error}") from error
