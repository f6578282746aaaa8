"""Partitions as people write them on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from flowstone.core.asset import Asset
from flowstone.core.definition import AnyPartitions, PartitionsDefinition, read_partition, write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.partition import Partition
from flowstone.errors import OptionsError, PartitionError, UnknownPartitionError

One = Annotated[str | None, typer.Option("--partition", metavar="P", help="One partition, such as 2024-01-31.")]
Several = Annotated[
    list[str] | None,
    typer.Option("--partitions", metavar="A,B", help="Several partitions; may be given more than once."),
]
First = Annotated[str | None, typer.Option("--from", metavar="A", help="First partition of a range.")]
Last = Annotated[str | None, typer.Option("--to", metavar="B", help="Last partition of a range, included.")]


def label(key: str, asset: Asset | None = None) -> str:
    """Return an encoded partition for people, in the asset's own way where it has one.

    Example:
        >>> label(""), label("d:2024-01-31")
        ('', '2024-01-31')
    """
    return write_partition(None if asset is None else asset.partitions, key)


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
