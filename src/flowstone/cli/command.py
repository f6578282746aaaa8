"""How a function becomes a command: common options, the session around it, from exceptions to exit codes."""

from __future__ import annotations

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from flowstone.cli.output import Output
from flowstone.cli.session import Given, Session, configure_logging
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


type Command = Callable[..., int | None]

App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="The app: module:attribute or path/to/file.py:attribute. Also FLOWSTONE_APP or the settings file.",
    ),
]
AppDir = Annotated[
    Path | None,
    typer.Option("--app-dir", metavar="DIR", help="Where the app's modules are found."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show logs and whole tracebacks.")]

_COMMON: tuple[tuple[str, Any, Any], ...] = (
    ("app", App, None),
    ("app_dir", AppDir, None),
    ("as_json", AsJson, False),
    ("verbose", Verbose, False),
)


def add_command(group: typer.Typer, name: str, function: Command) -> None:
    """Register a function that takes a session first; it returns an exit code or None for 0."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("ctx", kind, annotation=typer.Context)
    own = [parameter.replace(kind=kind) for parameter in own]
    common = [inspect.Parameter(n, kind, default=d, annotation=a) for n, a, d in _COMMON]

    @wraps(function)
    def call(*, ctx: typer.Context, **values: Any) -> None:
        given = Given(**{name: values.pop(name) for name, _, _ in _COMMON})
        outer = ctx.obj if isinstance(ctx.obj, Given) else Given()
        code = _run(given.over(outer), lambda session: function(session, **values))
        raise typer.Exit(code)

    parameters = [context, *own, *common]
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    group.command(name, no_args_is_help=False)(call)


def _run(given: Given, function: Callable[[Session], int | None]) -> int:
    session = Session(given, Output(as_json=given.as_json))
    quiet = contextlib.redirect_stdout(sys.stderr) if given.as_json else contextlib.nullcontext()
    with quiet:
        configure_logging(verbose=given.verbose)
        try:
            with terminable():
                try:
                    code = function(session) or 0
                finally:
                    session.close()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - what it was is reported below
            code = _explain(session, error)
        session.out.flush()
    return code


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
