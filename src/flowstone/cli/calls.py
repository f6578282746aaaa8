"""One call of a command: its session, on whose behalf it acts, signals, and exit codes of exceptions."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flowstone.cli.given import Given
from flowstone.cli.output import Output
from flowstone.cli.session import Session, configure_logging
from flowstone.core.actor import Actor, acting
from flowstone.core.clean import clean_text
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
    RestoreRefusedError,
    RunNotFoundError,
    SelectionError,
    SensorError,
    TargetActiveError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
    VersionNotFoundError,
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
    RestoreRefusedError,
    RunNotFoundError,
    SelectionError,
    SensorError,
    TargetActiveError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
    VersionNotFoundError,
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


def run(given: Given, function: Callable[[Session], int | None]) -> int:
    """Call a function with a session and return the exit code; what goes wrong is explained, bugs are raised.

    Args:
        given: the common options.
        function: what the command does; returns an exit code, or None for 0.
    """
    session = Session(given, Output(as_json=given.as_json, wide=given.wide))
    quiet = contextlib.redirect_stdout(sys.stderr) if given.as_json else contextlib.nullcontext()
    with quiet, acting(Actor(system_user(), "cli")):
        configure_logging(verbose=given.verbose)
        try:
            with terminable():
                try:
                    session.use_env_file()
                    code = function(session) or 0
                finally:
                    session.close()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - what it was is reported below
            code = _explain(session, error)
        session.out.flush()
    return code


def system_user() -> str:
    """Return the user of the operating system, on whose behalf a command acts.

    Example:
        >>> bool(system_user())
        True
    """
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _explain(session: Session, error: BaseException) -> int:
    """Say what happened and return the exit code; bugs keep their traceback."""
    if isinstance(error, Terminated):
        session.out.note("Terminated.")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        session.out.note("Interrupted.")
        return INTERRUPTED
    if isinstance(error, FlowStoneError):
        session.trace(error)
        session.out.error(str(error))
        _answer(session, error)
        return exit_code(error)
    if _is_driver_failure(error):
        session.trace(error)
        session.out.error(
            f"The database failed ({type(error).__name__}): {' '.join(str(error).split())}. --verbose shows where."
        )
        _answer(session, error)
        return FAILED
    raise error


def _answer(session: Session, error: BaseException) -> None:
    if session.out.as_json and not session.out.answered:
        session.out.json({"error": {"type": type(error).__name__, "message": clean_text(str(error))}})


def _is_driver_failure(error: BaseException) -> bool:
    """Whether the database, or its driver, refused something in a way that nothing of ours explains."""
    return any(kind.__module__.partition(".")[0] == "psycopg" for kind in type(error).__mro__)
