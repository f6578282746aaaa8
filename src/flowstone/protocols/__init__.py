"""Every seam of FlowStone: what an executor, an IO manager, a store, a hook, a resource must offer."""

from __future__ import annotations

from flowstone.protocols.automation import AutomationStore, Evaluator, PrepareRun, PrepareTargets, TargetStatuses
from flowstone.protocols.execution import (
    CancelsJobs,
    ChecksOptions,
    Executor,
    Hook,
    LimitsStarts,
    ReportsStatus,
    ResourceFactory,
    RunJob,
    RunsConcurrently,
    StepCall,
)
from flowstone.protocols.insights import AssetInsights, FleetInsights, Insights
from flowstone.protocols.stores import (
    ApprovalStore,
    AuditStore,
    CallerLoop,
    Catalog,
    CheckStore,
    Control,
    DurableQueue,
    Ledger,
    OpensRuns,
    PartitionKeys,
    RangeStore,
    ReadingStore,
    ScatterStore,
    Store,
)
from flowstone.protocols.values import IOManager, KeepVersions, Serializer, SweepableIO

__all__ = [
    "ApprovalStore",
    "AssetInsights",
    "AuditStore",
    "AutomationStore",
    "CallerLoop",
    "CancelsJobs",
    "Catalog",
    "CheckStore",
    "ChecksOptions",
    "Control",
    "DurableQueue",
    "Evaluator",
    "Executor",
    "FleetInsights",
    "Hook",
    "IOManager",
    "Insights",
    "KeepVersions",
    "Ledger",
    "LimitsStarts",
    "OpensRuns",
    "PartitionKeys",
    "PrepareRun",
    "PrepareTargets",
    "RangeStore",
    "ReadingStore",
    "ReportsStatus",
    "ResourceFactory",
    "RunJob",
    "RunsConcurrently",
    "ScatterStore",
    "Serializer",
    "StepCall",
    "Store",
    "SweepableIO",
    "TargetStatuses",
]
