"""What goes to where a function is called, and what comes back: one text of bytes each way.

Both ends run FlowStone with the same code of the user, and trust each other as the processes of one cluster do:
what they send is pickled.
"""

from __future__ import annotations

import pickle
import platform
import sys
from collections.abc import Mapping
from typing import NamedTuple

from flowstone.core.output import StoredOutput
from flowstone.engine.isolated.exceptions import CarriedException
from flowstone.engine.isolated.wire import Call

FORMAT = 1
"""Number of this form of requests and answers; the other end may run another version of FlowStone."""

PYTHON = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"


class Later(NamedTuple):
    """In place of an input: where its value lies, to be loaded where the function is called."""

    stored: StoredOutput


class Request(NamedTuple):
    """One call.

    Args:
        key: of the call.
        call: the context of the step, and the name of its function.
        arguments: pickled inputs by parameter, some of them `Later`.
        asset: the asset by value, pickled by cloudpickle; None when it is found by its name.
        code_version: as declared here.
        digest: of the function as it is compiled here; None when it has none.
        python: version of Python here; digests of others say nothing.
        timeout_seconds: limit of the running time.
        stoppable: see `Invoker.call`.
        managers: pickled IO managers by name.
        keep: name of the one that stores the value there; None when the value comes back.
        project: project of the app.
        types: names of the classes that assets declare.
    """

    key: str
    call: Call
    arguments: bytes
    asset: bytes | None
    code_version: str | None
    digest: str | None
    python: str
    timeout_seconds: float | None
    stoppable: bool
    managers: Mapping[str, bytes]
    keep: str | None
    project: str
    types: frozenset[str]


class LogEntry(NamedTuple):
    """A log record, or what was printed at once.

    Args:
        number: counts what the call logged, from 1.
        kind: name of the stream, or `record`.
        content: the text, or the pickled log record.
    """

    number: int
    kind: str
    content: str | bytes


class SentAhead(NamedTuple):
    """What a call has logged so far, sent while it runs.

    Args:
        host: the machine.
        pid: the process.
        entries: what follows on those that were sent before.
    """

    host: str
    pid: int
    entries: tuple[LogEntry, ...]


class Answer(NamedTuple):
    """What came of a call.

    Args:
        key: of the call.
        value: pickle of what the function returned; None when it is stored, or there is none.
        stored: where the value lies.
        metadata: pickle of what the function left in `context.metadata`.
        exception: what it raised, or returned in place of a value.
        raised: whether it raised that.
        log: what it logged and printed, also what was sent ahead.
        logged: how many entries there were, those included that were too many to be kept.
        host: the machine.
        pid: the process.
    """

    key: str
    value: bytes | None
    stored: StoredOutput | None
    metadata: bytes
    exception: CarriedException | None
    raised: bool
    log: tuple[LogEntry, ...]
    logged: int
    host: str
    pid: int


def write(message: Request | Answer) -> bytes:
    """Return a message as bytes."""
    return pickle.dumps((FORMAT, PYTHON, pickle.dumps(message, protocol=5)), protocol=5)


def read[T: (Request, Answer)](kind: type[T], written: bytes) -> T:
    """Return the message that `write` wrote.

    Raises:
        ValueError: it cannot be read here; says what differs.
    """
    their_python = ""
    try:
        number, their_python, body = pickle.loads(written)  # noqa: S301 - see the module
        found = pickle.loads(body) if number == FORMAT else None  # noqa: S301
    except Exception as error:
        other = f" (written by {their_python}, read by {PYTHON})" if their_python not in ("", PYTHON) else ""
        raise ValueError(f"it cannot be read{other}: {type(error).__name__}: {error}") from error
    if number != FORMAT:
        raise ValueError(
            f"it has the form {number}, and FlowStone here knows form {FORMAT}: install the same version"
        )
    if type(found) is not kind:
        raise ValueError(f"it is no {kind.__name__.lower()}")
    return found


def host() -> str:
    """Return the name of this machine."""
    return platform.node() or "a machine without a name"
