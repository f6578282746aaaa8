"""Every seam of FlowStone: what an executor, an IO manager, a store, a hook, a resource must offer."""

from __future__ import annotations

from flowstone.protocols.automation import AutomationStore, Evaluator, PrepareRun
from flowstone.protocols.execution import (
    CancelsJobs,
    ChecksOptions,
    Executor,
    Hook,
    ResourceFactory,
    RunJob,
    StepCall,
)
from flowstone.protocols.stores import Catalog, Control, DurableQueue, Ledger, Store
from flowstone.protocols.values import IOManager, KeepVersions, Serializer, SweepableIO

__all__ = [
    "AutomationStore",
    "CancelsJobs",
    "Catalog",
    "ChecksOptions",
    "Control",
    "DurableQueue",
    "Evaluator",
    "Executor",
    "Hook",
    "IOManager",
    "KeepVersions",
    "Ledger",
    "PrepareRun",
    "ResourceFactory",
    "RunJob",
    "Serializer",
    "StepCall",
    "Store",
    "SweepableIO",
]
