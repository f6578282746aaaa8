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

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from flowstone.app import FlowStone
    from flowstone.config import Settings
    from flowstone.core.approval import Approval
    from flowstone.core.asset import Asset, AsyncAsset, asset
    from flowstone.core.automation.condition import Condition
    from flowstone.core.automation.conditions import (
        all_inputs_ready,
        any_input_in_progress,
        any_input_updated,
        code_changed,
        eager,
        in_progress,
        last_try_failed,
        newest_partition,
        on_cron,
        on_missing,
        retry_failed,
        when,
        when_stale,
    )
    from flowstone.core.automation.schedule import Schedule
    from flowstone.core.automation.sensor import (
        RunRequest,
        Sensor,
        SensorContext,
        SensorResult,
        SkipReason,
        sensor,
    )
    from flowstone.core.capability import Capability
    from flowstone.core.check import CheckContext, CheckResult, check
    from flowstone.core.context import AssetContext
    from flowstone.core.definition import AnyPartitions, PartitionsDefinition, StaticPartitions
    from flowstone.core.dependency import Dependency, dep
    from flowstone.core.job import Job, JobStatus
    from flowstone.core.limits import Breaker, Rate
    from flowstone.core.mappings import (
        AllPartitions,
        FunctionMapping,
        LastN,
        PartitionMapping,
        Previous,
        SameDimension,
        SameKey,
        TimeWindowOverlap,
    )
    from flowstone.core.materialization import Materialization
    from flowstone.core.notification import Message, Notify
    from flowstone.core.outcome import AwaitApproval, Fatal, RetryLater, Skip
    from flowstone.core.partitions_by_key import DynamicPartitions, MultiPartitions
    from flowstone.core.partitions_by_time import (
        CronPartitions,
        DailyPartitions,
        HourlyPartitions,
        MinutelyPartitions,
        MonthlyPartitions,
        QuarterlyPartitions,
        WeeklyPartitions,
        YearlyPartitions,
    )
    from flowstone.core.published import Published
    from flowstone.core.retry import RetryPolicy
    from flowstone.core.route import Route
    from flowstone.core.scatter import Scatter, scatter
    from flowstone.core.state import State
    from flowstone.core.step import Severity
    from flowstone.engine.scatter import Gathered, ItemFailure, ItemResult
    from flowstone.errors import FlowStoneError
    from flowstone.executors.limits import CircuitBreaker, RateLimited
    from flowstone.io.sources.files import new_files
    from flowstone.io.sources.rows import new_rows

__version__ = "0.1.0"

__all__ = [
    "AllPartitions",
    "AnyPartitions",
    "Approval",
    "Asset",
    "AssetContext",
    "AsyncAsset",
    "AwaitApproval",
    "Breaker",
    "Capability",
    "CheckContext",
    "CheckResult",
    "CircuitBreaker",
    "Condition",
    "CronPartitions",
    "DailyPartitions",
    "Dependency",
    "DynamicPartitions",
    "Fatal",
    "FlowStone",
    "FlowStoneError",
    "FunctionMapping",
    "Gathered",
    "HourlyPartitions",
    "ItemFailure",
    "ItemResult",
    "Job",
    "JobStatus",
    "LastN",
    "Materialization",
    "Message",
    "MinutelyPartitions",
    "MonthlyPartitions",
    "MultiPartitions",
    "Notify",
    "PartitionMapping",
    "PartitionsDefinition",
    "Previous",
    "Published",
    "QuarterlyPartitions",
    "Rate",
    "RateLimited",
    "RetryLater",
    "RetryPolicy",
    "Route",
    "RunRequest",
    "SameDimension",
    "SameKey",
    "Scatter",
    "Schedule",
    "Sensor",
    "SensorContext",
    "SensorResult",
    "Settings",
    "Severity",
    "Skip",
    "SkipReason",
    "State",
    "StaticPartitions",
    "TimeWindowOverlap",
    "WeeklyPartitions",
    "YearlyPartitions",
    "all_inputs_ready",
    "any_input_in_progress",
    "any_input_updated",
    "asset",
    "check",
    "code_changed",
    "dep",
    "eager",
    "in_progress",
    "last_try_failed",
    "new_files",
    "new_rows",
    "newest_partition",
    "on_cron",
    "on_missing",
    "retry_failed",
    "scatter",
    "sensor",
    "when",
    "when_stale",
]

# Names are loaded when they are first used (PEP 562): importing the package costs next to nothing, which the
# command line and every child process of an isolated asset would otherwise pay at each start.
_MODULES = {
    "YearlyPartitions": "flowstone.core.partitions_by_time",
    "QuarterlyPartitions": "flowstone.core.partitions_by_time",
    "MinutelyPartitions": "flowstone.core.partitions_by_time",
    "CronPartitions": "flowstone.core.partitions_by_time",
    "AllPartitions": "flowstone.core.mappings",
    "AnyPartitions": "flowstone.core.definition",
    "Approval": "flowstone.core.approval",
    "Asset": "flowstone.core.asset",
    "AssetContext": "flowstone.core.context",
    "AsyncAsset": "flowstone.core.asset",
    "AwaitApproval": "flowstone.core.outcome",
    "Breaker": "flowstone.core.limits",
    "Capability": "flowstone.core.capability",
    "CheckContext": "flowstone.core.check",
    "CheckResult": "flowstone.core.check",
    "CircuitBreaker": "flowstone.executors.limits",
    "Condition": "flowstone.core.automation.condition",
    "DailyPartitions": "flowstone.core.partitions_by_time",
    "Dependency": "flowstone.core.dependency",
    "DynamicPartitions": "flowstone.core.partitions_by_key",
    "Fatal": "flowstone.core.outcome",
    "FlowStone": "flowstone.app",
    "FlowStoneError": "flowstone.errors",
    "FunctionMapping": "flowstone.core.mappings",
    "Gathered": "flowstone.engine.scatter",
    "HourlyPartitions": "flowstone.core.partitions_by_time",
    "ItemFailure": "flowstone.engine.scatter",
    "ItemResult": "flowstone.engine.scatter",
    "Job": "flowstone.core.job",
    "JobStatus": "flowstone.core.job",
    "LastN": "flowstone.core.mappings",
    "Materialization": "flowstone.core.materialization",
    "Message": "flowstone.core.notification",
    "MonthlyPartitions": "flowstone.core.partitions_by_time",
    "MultiPartitions": "flowstone.core.partitions_by_key",
    "Notify": "flowstone.core.notification",
    "PartitionMapping": "flowstone.core.mappings",
    "PartitionsDefinition": "flowstone.core.definition",
    "Previous": "flowstone.core.mappings",
    "Published": "flowstone.core.published",
    "Rate": "flowstone.core.limits",
    "RateLimited": "flowstone.executors.limits",
    "RetryLater": "flowstone.core.outcome",
    "RetryPolicy": "flowstone.core.retry",
    "Route": "flowstone.core.route",
    "RunRequest": "flowstone.core.automation.sensor",
    "SameDimension": "flowstone.core.mappings",
    "SameKey": "flowstone.core.mappings",
    "Schedule": "flowstone.core.automation.schedule",
    "Sensor": "flowstone.core.automation.sensor",
    "SensorContext": "flowstone.core.automation.sensor",
    "SensorResult": "flowstone.core.automation.sensor",
    "Scatter": "flowstone.core.scatter",
    "Settings": "flowstone.config",
    "Severity": "flowstone.core.step",
    "Skip": "flowstone.core.outcome",
    "SkipReason": "flowstone.core.automation.sensor",
    "State": "flowstone.core.state",
    "StaticPartitions": "flowstone.core.definition",
    "TimeWindowOverlap": "flowstone.core.mappings",
    "WeeklyPartitions": "flowstone.core.partitions_by_time",
    "all_inputs_ready": "flowstone.core.automation.conditions",
    "any_input_in_progress": "flowstone.core.automation.conditions",
    "any_input_updated": "flowstone.core.automation.conditions",
    "asset": "flowstone.core.asset",
    "check": "flowstone.core.check",
    "code_changed": "flowstone.core.automation.conditions",
    "dep": "flowstone.core.dependency",
    "eager": "flowstone.core.automation.conditions",
    "in_progress": "flowstone.core.automation.conditions",
    "last_try_failed": "flowstone.core.automation.conditions",
    "new_files": "flowstone.io.sources.files",
    "new_rows": "flowstone.io.sources.rows",
    "newest_partition": "flowstone.core.automation.conditions",
    "on_cron": "flowstone.core.automation.conditions",
    "on_missing": "flowstone.core.automation.conditions",
    "retry_failed": "flowstone.core.automation.conditions",
    "scatter": "flowstone.core.scatter",
    "sensor": "flowstone.core.automation.sensor",
    "when": "flowstone.core.automation.conditions",
    "when_stale": "flowstone.core.automation.conditions",
}


if not TYPE_CHECKING:  # whose checkers would then take every name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _OldPaths:
    """Finds modules of ours that have moved; asked last, so that it costs nothing where a module is found."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if not name.startswith("flowstone.") or name == "flowstone.moved":
            return None
        found: ModuleSpec | None = import_module("flowstone.moved").find(name)
        return found


if _OldPaths not in sys.meta_path:
    sys.meta_path.append(_OldPaths)
