"""From exceptions to exit codes."""

from __future__ import annotations

from flowstone.errors import (
    ApprovalNotFoundError,
    CapabilityError,
    ConfigurationError,
    DatabaseError,
    DefinitionError,
    ExecutorUnavailableError,
    FlowStoneError,
    MissingExtraError,
    OptionsError,
    PartitionError,
    ResourceError,
    RunNotFoundError,
    SelectionError,
    SensorError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
)

DONE = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
TERMINATED = 143

_REQUEST_CANNOT_WORK = (
    ApprovalNotFoundError,
    CapabilityError,
    ConfigurationError,
    DefinitionError,
    ExecutorUnavailableError,
    MissingExtraError,
    OptionsError,
    PartitionError,
    ResourceError,
    RunNotFoundError,
    SelectionError,
    SensorError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
)


class Terminated(BaseException):
    """SIGTERM arrived while something had to be stopped first."""


def exit_code(error: FlowStoneError) -> int:
    """Return 2 when the request could not work as it was written, 1 when it could and did not.

    Example:
        >>> exit_code(UnknownAssetError("x", [])), exit_code(DatabaseError("down"))
        (2, 1)
    """
    if _database_in(error):
        return FAILED
    return USAGE if isinstance(error, _REQUEST_CANNOT_WORK) else FAILED


def _database_in(error: BaseException | None) -> bool:
    """Whether the database is what is wrong, also behind an executor that cannot work without it."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, DatabaseError):
            return True
        error, seen = error.__cause__, seen + 1
    return False
