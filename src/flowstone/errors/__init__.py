"""Every error that FlowStone raises on purpose, in one tree.

Each error carries what it is about as attributes, also inherits the builtin that a reader would have
caught without knowing FlowStone, and builds its own message: what happened, where, why, what to do next.
"""

from __future__ import annotations

from flowstone.errors.approvals import ApprovalDecidedError, ApprovalNotFoundError, GateRepeatedError
from flowstone.errors.checks import (
    CheckFailedError,
    CheckTimeoutError,
    DuplicateCheckError,
    FailedCheck,
    UnknownCheckedAssetError,
)
from flowstone.errors.database import (
    DatabaseError,
    DatabaseUnavailableError,
    EmbeddedDatabaseError,
    MigrationChangedError,
    PlanOutdatedError,
    SchemaVersionError,
)
from flowstone.errors.declarations import (
    CycleError,
    DefinitionError,
    DuplicateAssetError,
    UnknownDependencyError,
    UnknownOptionError,
)
from flowstone.errors.lookups import (
    IncompletePartitionError,
    PartitionError,
    RunNotFoundError,
    SelectionError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
    UnknownPartitionError,
)
from flowstone.errors.placing import (
    AppLoadError,
    CapabilityError,
    ConfigurationError,
    ExecutorUnavailableError,
    MissingExtraError,
    OptionsError,
    ResourceError,
    RunConflictError,
)
from flowstone.errors.root import FlowStoneError, command, did_you_mean, join_names, option_hint, selected
from flowstone.errors.routing import RouteError
from flowstone.errors.running import (
    DependencyNotReadyError,
    IsolatedFailureError,
    MaterializationTimeoutError,
    NotMaterializedError,
    RetryPolicyError,
    StaleAttemptError,
    StepCancelledError,
    StepChangedError,
    StepFailedError,
    WaitTimeoutError,
    WorkerCrashedError,
)
from flowstone.errors.scattering import ItemError, ScatterFailedError
from flowstone.errors.sensing import SensorError
from flowstone.errors.values import SerializationError, StorageError, StorageFailure, UnsafePickleError

__all__ = [
    "AppLoadError",
    "ApprovalDecidedError",
    "ApprovalNotFoundError",
    "CapabilityError",
    "CheckFailedError",
    "CheckTimeoutError",
    "ConfigurationError",
    "CycleError",
    "DatabaseError",
    "DatabaseUnavailableError",
    "DefinitionError",
    "DependencyNotReadyError",
    "DuplicateAssetError",
    "DuplicateCheckError",
    "EmbeddedDatabaseError",
    "ExecutorUnavailableError",
    "FailedCheck",
    "FlowStoneError",
    "GateRepeatedError",
    "IncompletePartitionError",
    "IsolatedFailureError",
    "ItemError",
    "MaterializationTimeoutError",
    "MigrationChangedError",
    "MissingExtraError",
    "NotMaterializedError",
    "OptionsError",
    "PartitionError",
    "PlanOutdatedError",
    "ResourceError",
    "RetryPolicyError",
    "RouteError",
    "RunConflictError",
    "RunNotFoundError",
    "ScatterFailedError",
    "SchemaVersionError",
    "SelectionError",
    "SensorError",
    "SerializationError",
    "StaleAttemptError",
    "StepCancelledError",
    "StepChangedError",
    "StepFailedError",
    "StorageError",
    "StorageFailure",
    "UnknownAssetError",
    "UnknownAutomationError",
    "UnknownCheckedAssetError",
    "UnknownDependencyError",
    "UnknownExecutorError",
    "UnknownOptionError",
    "UnknownPartitionError",
    "UnsafePickleError",
    "WaitTimeoutError",
    "WorkerCrashedError",
    "command",
    "did_you_mean",
    "join_names",
    "option_hint",
    "selected",
]
