"""FlowStone: asset-first data orchestration for Python, on PostgreSQL through the Oban job queue.

Declare assets, build an app, materialize:

    >>> from flowstone import FlowStone, asset
    >>> @asset
    ... def numbers():
    ...     return [1, 2, 3]
    >>> @asset
    ... def doubled(numbers):
    ...     return [2 * n for n in numbers]
    >>> FlowStone([numbers, doubled]).materialize_all("doubled").value
    [2, 4, 6]
"""

from __future__ import annotations

from flowstone.app import FlowStone
from flowstone.config import Settings
from flowstone.core.asset import Asset, asset
from flowstone.core.calendar import DailyPartitions, MonthlyPartitions, WeeklyPartitions
from flowstone.core.capability import Capability
from flowstone.core.context import AssetContext
from flowstone.core.definition import PartitionsDefinition, StaticPartitions
from flowstone.core.dependency import Dependency, dep
from flowstone.core.dimensions import MultiPartitions
from flowstone.core.hourly import HourlyPartitions
from flowstone.core.job import Job
from flowstone.core.mapping import (
    AllPartitions,
    FunctionMapping,
    LastN,
    PartitionMapping,
    SameDimension,
    SameKey,
    TimeWindowOverlap,
)
from flowstone.core.materialization import Materialization
from flowstone.core.outcome import Fatal, RetryLater, Skip
from flowstone.core.retry import RetryPolicy
from flowstone.core.state import State
from flowstone.errors import FlowStoneError
from flowstone.executors.limits import CircuitBreaker, RateLimited

__version__ = "0.1.0"

__all__ = [
    "AllPartitions",
    "Asset",
    "AssetContext",
    "Capability",
    "CircuitBreaker",
    "DailyPartitions",
    "Dependency",
    "Fatal",
    "FlowStone",
    "FlowStoneError",
    "FunctionMapping",
    "HourlyPartitions",
    "Job",
    "LastN",
    "Materialization",
    "MonthlyPartitions",
    "MultiPartitions",
    "PartitionMapping",
    "PartitionsDefinition",
    "RateLimited",
    "RetryLater",
    "RetryPolicy",
    "SameDimension",
    "SameKey",
    "Settings",
    "Skip",
    "State",
    "StaticPartitions",
    "TimeWindowOverlap",
    "WeeklyPartitions",
    "asset",
    "dep",
]
