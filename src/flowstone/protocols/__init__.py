"""Every seam of FlowStone: what an executor, an IO manager, a store, a hook, a resource must offer."""

from __future__ import annotations

from flowstone.protocols.automation import AutomationStore, Evaluator, PrepareRun, PrepareTargets, TargetStatuses
from flowstone.protocols.execution import (
    CancelsJobs,
    ChecksOptions,
    Executor,
    Hook,
    ReportsStatus,
    ResourceFactory,
    RunJob,
    StepCall,
)
from flowstone.protocols.stores import (
    ApprovalStore,
    CallerLoop,
    Catalog,
    CheckStore,
    Control,
    DurableQueue,
    Ledger,
    OpensRuns,
    PartitionKeys,
    RangeStore,
    ScatterStore,
    Store,
)
from flowstone.protocols.values import IOManager, KeepVersions, Serializer, SweepableIO

__all__ = [
    "ApprovalStore",
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
    "Hook",
    "IOManager",
    "KeepVersions",
    "Ledger",
    "OpensRuns",
    "PartitionKeys",
    "PrepareRun",
    "PrepareTargets",
    "RangeStore",
    "ReportsStatus",
    "ResourceFactory",
    "RunJob",
    "ScatterStore",
    "Serializer",
    "StepCall",
    "Store",
    "SweepableIO",
    "TargetStatuses",
]
