"""From exceptions to exit codes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

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


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: the command ends like after Ctrl-C, so that what it began is ended in order.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = 15) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C does; one that was ignored before (`nohup`) stays so.

    Raises:
        Terminated: a signal came.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
