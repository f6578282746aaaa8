"""The mappings between the partitions of two assets, and the one that is chosen when none is given.

A mapping answers which partitions are read, and the other way round which are affected. Those here go by equal
keys: the same partition, some dimensions of it, all that share one. What every mapping offers is in
`core/mapping`; mappings by time are in `core/windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import cast

from flowstone.core.definition import AnyPartitions, PartitionsDefinition, StaticPartitions
from flowstone.core.mapping import PartitionMapping, check_key, complete_keys
from flowstone.core.partitions import Partition, encode_partition, partition_label
from flowstone.core.partitions_by_key import MultiPartitions, product
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.windows import LastN, Previous, TimeWindowOverlap
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

type _Pairs = list[int | None]  # for each upstream dimension, the downstream dimension it takes its key from


class _Aligned(PartitionMapping):
    """Pairs the dimensions of two definitions; a definition that is not multiple counts as one dimension."""

    def __init__(self, dimension: str | None = None) -> None:
        self.dimension = dimension
        self._memo: tuple[PartitionsDefinition, PartitionsDefinition, _Pairs] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.dimension is None else repr(self.dimension)})"

    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the upstream keys with the same value in every shared dimension."""
        key = check_key(key, downstream)
        if upstream is None:
            return [None]
        if _whole(downstream, upstream):
            return [upstream.validate(key)]
        parts = _parts(key, downstream)
        pairs = self._pairs(downstream, upstream)
        sources = _sources(_dimensions(upstream), [None if i is None else (parts[i],) for i in pairs], now)
        return [upstream.validate(found) for found in _keys(sources, upstream)]

    def downstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the downstream keys with the same value in every shared dimension."""
        key = check_key(key, upstream)
        if downstream is None or upstream is None:
            return list(complete_keys(downstream, now))
        if _whole(downstream, upstream):
            return [downstream.validate(key)] if key in downstream else []
        parts = _parts(key, upstream)
        fixed: list[tuple[Partition] | None] = [None] * len(_dimensions(downstream))
        pairs = self._pairs(downstream, upstream)
        for part, index, (_, dimension) in zip(parts, pairs, _dimensions(upstream), strict=True):
            if index is not None:
                fixed[index] = (part,)
            elif not dimension.is_complete(part, now):
                return []
        try:
            return [
                downstream.validate(found)
                for found in _keys(_sources(_dimensions(downstream), fixed, now), downstream)
            ]
        except UnknownPartitionError:  # the shared value lies outside what downstream has
            return []

    def _pairs(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition) -> _Pairs:
        memo = self._memo
        if memo is not None and memo[0] is downstream and memo[1] is upstream:
            return memo[2]
        if downstream is None:
            raise DefinitionError(
                f"{self} cannot choose among {upstream!r} for an asset without partitions. Use AllPartitions() "
                "or LastN(...)."
            )
        pairs = _pair(downstream, upstream, self.dimension)
        self._memo = (downstream, upstream, pairs)
        return pairs


class SameKey(_Aligned):
    """The upstream partition with the same key; of several dimensions, those that upstream has.

    Works between definitions of one cadence (start and end may differ), static keys that upstream has too, and
    from several dimensions down to fewer; with `AnyPartitions` on either side, for every key that both have. An
    upstream without partitions is read as it is.

    Args:
        dimension: which dimension is meant, where several have the same definition.

    Example:
        >>> from datetime import UTC
        >>> regions = StaticPartitions(["eu", "us"])
        >>> grid = MultiPartitions(region=regions, tier=StaticPartitions([1, 2]))
        >>> SameKey().upstream(("eu", 2), downstream=grid, upstream=regions, now=datetime(2024, 1, 1, tzinfo=UTC))
        ['eu']
    """

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that every upstream dimension finds its key downstream."""
        if upstream is None or _whole(downstream, upstream):
            return
        missing = [
            name
            for (name, _), index in zip(_dimensions(upstream), self._pairs(downstream, upstream), strict=True)
            if index is None
        ]
        if missing:
            raise DefinitionError(
                f"SameKey cannot choose one partition of {upstream!r}: {downstream!r} has no "
                f"{', '.join(map(repr, missing))}. SameDimension() reads all of them, as a dict."
            )


class SameDimension(_Aligned):
    """All upstream partitions with the same value in the dimensions that both sides share.

    Only those are read whose other dimensions are complete at the time of planning.

    Args:
        dimension: which dimension is meant, where several have the same definition.

    Example:
        >>> from datetime import UTC
        >>> regions = StaticPartitions(["eu", "us"])
        >>> grid = MultiPartitions(region=regions, tier=StaticPartitions([1, 2]))
        >>> now = datetime(2024, 1, 1, tzinfo=UTC)
        >>> SameDimension().upstream("eu", downstream=regions, upstream=grid, now=now)
        [('eu', 1), ('eu', 2)]
    """

    many = True

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that the two sides share a dimension."""
        if upstream is None:
            raise DefinitionError("SameDimension needs a partitioned upstream asset. Leave the mapping out.")
        self._pairs(downstream, upstream)


def _whole(downstream: PartitionsDefinition | None, upstream: PartitionsDefinition) -> bool:
    """Whether keys are taken as they are, because one side has any: of dimensions it knows nothing."""
    return downstream is not None and (
        isinstance(downstream, AnyPartitions) or isinstance(upstream, AnyPartitions)
    )


def _pair(downstream: PartitionsDefinition, upstream: PartitionsDefinition, only: str | None) -> _Pairs:
    """Find the downstream dimension for each upstream dimension: by name, and by definition if one has none."""
    pairs: _Pairs = []
    for name, requested in _dimensions(upstream):
        fitting = [
            index
            for index, (other, offered) in enumerate(_dimensions(downstream))
            if (name is None or other is None or name == other)
            and only in (None, name, other)
            and _fits(offered, requested)
        ]
        pairs.append(fitting[0] if fitting else None)
        if len(fitting) > 1:
            break
    else:
        used = [index for index in pairs if index is not None]
        if not used:
            raise DefinitionError(
                f"{downstream!r} and {upstream!r} share no dimension: definitions (and names, where both sides "
                "have several dimensions) have to agree. Give a mapping in deps, such as FunctionMapping(...)."
            )
        if len(used) == len(set(used)):
            return pairs
    raise DefinitionError(
        f"Several dimensions of {downstream!r} and {upstream!r} could be meant. Name one: "
        "SameKey('dimension') or SameDimension('dimension')."
    )


def _fits(offered: PartitionsDefinition, requested: PartitionsDefinition) -> bool:
    """Whether a key of the one means the same in the other."""
    if isinstance(offered, TimePartitions) and isinstance(requested, TimePartitions):
        return offered.cadence() == requested.cadence()
    if isinstance(offered, StaticPartitions) and isinstance(requested, StaticPartitions):
        return offered.within(requested)
    return offered == requested


def _dimensions(definition: PartitionsDefinition) -> list[tuple[str | None, PartitionsDefinition]]:
    if isinstance(definition, MultiPartitions):
        return list(definition.dimensions.items())
    return [(None, definition)]


def _parts(key: Partition, definition: PartitionsDefinition | None) -> tuple[Partition, ...]:
    return key if isinstance(definition, MultiPartitions) and isinstance(key, tuple) else (key,)


def _sources(
    dimensions: list[tuple[str | None, PartitionsDefinition]],
    fixed: list[tuple[Partition] | None],
    now: datetime,
) -> list[Callable[[], Iterator[Partition]]]:
    """For each dimension its fixed value, or else all its complete ones."""
    return [
        (lambda d=definition: d.keys(now)) if part is None else (lambda p=part: iter(p))  # type: ignore[misc]
        for (_, definition), part in zip(dimensions, fixed, strict=True)
    ]


def _keys(
    sources: list[Callable[[], Iterator[Partition]]], definition: PartitionsDefinition
) -> Iterator[Partition]:
    combined = product(sources)
    return combined if isinstance(definition, MultiPartitions) else (parts[0] for parts in combined)


__all__ = [
    "AllPartitions",
    "FunctionMapping",
    "LastN",
    "PartitionMapping",
    "Previous",
    "SameDimension",
    "SameKey",
    "TimeWindowOverlap",
    "default_mapping",
]


class AllPartitions(PartitionMapping):
    """Every upstream partition that is complete at the time of planning.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.definition import StaticPartitions
        >>> regions = StaticPartitions(["eu", "us"])
        >>> now = datetime(2024, 1, 1, tzinfo=UTC)
        >>> AllPartitions().upstream(None, downstream=None, upstream=regions, now=now)
        ['eu', 'us']
    """

    many = True

    def __repr__(self) -> str:
        return "AllPartitions()"

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that upstream is partitioned, and that its partitions can be listed."""
        if not _partitioned(self, upstream).listable:
            raise DefinitionError(
                f"{self!r} cannot list the partitions of {upstream!r}: any value is one. Say which are read, with "
                "FunctionMapping(..., many=True), or declare them, as with DynamicPartitions."
            )

    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return all complete upstream partitions."""
        check_key(key, downstream)
        return list(_partitioned(self, upstream).keys(now))

    def downstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return all complete downstream partitions, if this upstream one is complete."""
        read = _partitioned(self, upstream)
        complete = read.is_complete(key, now)
        return list(complete_keys(downstream, now)) if complete else []


class FunctionMapping(PartitionMapping):
    """What a function says.

    Args:
        function: takes the downstream key; returns the upstream key or, with `many`, an iterable of them.
        many: whether the asset reads several partitions, as a dict.

    Raises:
        DefinitionError: `function` cannot be called.

    Example:
        >>> from datetime import UTC, date, timedelta
        >>> from flowstone.core.partitions_by_time import DailyPartitions
        >>> days = DailyPartitions("2024-01-01")
        >>> day_before = FunctionMapping(lambda day: day - timedelta(days=1))
        >>> now = datetime(2024, 2, 1, tzinfo=UTC)
        >>> day_before.upstream(date(2024, 1, 5), downstream=days, upstream=days, now=now)
        [datetime.date(2024, 1, 4)]
    """

    def __init__(
        self,
        # The function's parameter is the user's business: `lambda day: ...` takes only dates.
        function: Callable[..., Partition | Iterable[Partition]],
        *,
        many: bool = False,
    ) -> None:
        if not callable(function):
            raise DefinitionError(f"FunctionMapping({function!r}): give it a function of the partition key.")
        self.function = function
        self.many = many

    def __repr__(self) -> str:
        return f"FunctionMapping({self._name()})"

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that upstream is partitioned; what the function returns is checked key by key."""
        _partitioned(self, upstream)

    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return what the function returns, checked, each key once."""
        read = _partitioned(self, upstream)
        found: dict[str, Partition] = {}
        for item in self._call(check_key(key, downstream)):
            try:
                valid = read.validate(item)
            except UnknownPartitionError as error:
                hint = f"{self._name()} returned it for partition {partition_label(key)!r}. {error}"
                raise UnknownPartitionError(item, hint=hint) from error
            found[encode_partition(valid)] = valid
        return list(found.values())

    def _call(self, key: Partition) -> list[Partition]:
        where = f"The mapping function {self._name()} failed for partition {partition_label(key)!r}"
        try:
            result = self.function(key)
            if not self.many:
                return [cast("Partition", result)]
            if isinstance(result, str) or not isinstance(result, Iterable):
                raise TypeError(f"with many=True it returns an iterable of keys, not {result!r}")
            return list(result)
        except Exception as error:
            raise PartitionError(f"{where}: {type(error).__name__}: {error}") from error

    def _name(self) -> str:
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        code = getattr(self.function, "__code__", None)
        return name if code is None else f"{name} ({code.co_filename}:{code.co_firstlineno})"


def default_mapping(
    downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None
) -> PartitionMapping:
    """Return the mapping between two assets for which none is given.

    Args:
        downstream: the partitions of the asset that reads, None without partitions.
        upstream: the partitions of the asset that is read, None without partitions.

    Returns:
        `SameKey` for equal definitions, one cadence, `AnyPartitions` on either side, or an upstream without
        partitions; `AllPartitions` for a downstream without partitions; `TimeWindowOverlap` for different
        cadences; `SameKey` or `SameDimension` for definitions that share a dimension.

    Raises:
        DefinitionError: none of these fits, so a mapping has to be given.

    Example:
        >>> from flowstone.core.partitions_by_time import DailyPartitions, MonthlyPartitions
        >>> default_mapping(MonthlyPartitions("2024-01"), DailyPartitions("2024-01-01"))
        TimeWindowOverlap(start_offset=0, end_offset=0)
    """
    if upstream is None or downstream == upstream:
        return SameKey()
    if downstream is None:
        return AllPartitions()
    if isinstance(downstream, AnyPartitions) or isinstance(upstream, AnyPartitions):
        return SameKey()
    if isinstance(downstream, TimePartitions) and isinstance(upstream, TimePartitions):
        return SameKey() if downstream.cadence() == upstream.cadence() else TimeWindowOverlap()
    if isinstance(downstream, MultiPartitions) or isinstance(upstream, MultiPartitions):
        SameDimension().validate(downstream, upstream)
        return _narrowest(downstream, upstream)
    raise DefinitionError(
        f"There is no natural mapping from {downstream!r} to {upstream!r}. Give one in deps, such as "
        "deps=[dep('upstream_name', mapping=AllPartitions())], or FunctionMapping(...)."
    )


def _narrowest(downstream: PartitionsDefinition, upstream: PartitionsDefinition) -> PartitionMapping:
    """Prefer the single partition; read all that share a dimension only where it is not determined."""
    try:
        SameKey().validate(downstream, upstream)
    except DefinitionError:
        return SameDimension()
    return SameKey()


def _partitioned(mapping: PartitionMapping, upstream: PartitionsDefinition | None) -> PartitionsDefinition:
    if upstream is None:
        raise DefinitionError(f"{mapping!r} needs a partitioned upstream asset. Leave the mapping out.")
    return upstream
