"""Mappings between the partitions of two assets, and the one that is chosen when none is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import cast

from flowstone.core.definition import AnyPartitions, PartitionsDefinition
from flowstone.core.dimensions import MultiPartitions
from flowstone.core.mapping_contract import PartitionMapping, check_key, complete_keys
from flowstone.core.partition import Partition, encode_partition, partition_label
from flowstone.core.same_key import SameDimension, SameKey
from flowstone.core.timeline import TimePartitions
from flowstone.core.windows import LastN, Previous, TimeWindowOverlap
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

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
        >>> from flowstone.core.calendar import DailyPartitions
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
        >>> from flowstone.core.calendar import DailyPartitions, MonthlyPartitions
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
