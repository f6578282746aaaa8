"""Where a function is called, far from the worker that holds its step: `perform` runs one call, `cancel` stops it,
`logged` says what it has logged so far.

A compute has its cluster call these three, by import. They know neither the app nor its database: the request says
what to import, what to load, and where to store.
"""

from __future__ import annotations

import contextvars
import logging
import os
import pickle
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from flowstone import telemetry
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.core.logs import MAX_ENTRY
from flowstone.core.output import StoredOutput, type_name
from flowstone.core.published import Published
from flowstone.core.value_types import NamedTypes
from flowstone.engine.call import CoroutineRunner, Invoker
from flowstone.engine.isolated.child import check_metadata, context_of, fields_of, pickles, portable
from flowstone.engine.isolated.exceptions import CarriedException, carry
from flowstone.engine.isolated.reference import Place, digest_of, find, of_another_machine
from flowstone.engine.isolation import IsolatedCalls
from flowstone.engine.logs import StepLogger, capture_records, keep_prints, not_kept
from flowstone.engine.remote.wire import (
    PYTHON,
    Answer,
    Later,
    LogEntry,
    Request,
    SentAhead,
    host,
    read,
    write,
)
from flowstone.engine.values import ValueStore
from flowstone.errors import RemoteCodeError, SerializationError

ELSEWHERE = Place(
    "where it is computed", "have its code travel along: code='cloudpickle', or take compute= out of the asset"
)

_FIRST_ENTRIES = 5_000
_LAST_ENTRIES = 5_000
_BATCH_ENTRIES = 500
_BATCH_CHARACTERS = 64 * 1024
_MAX_EARLY = 1_000


class _Calls:
    """The calls that run in this process, and those whose cancel came before them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come while this thread holds it
        self._running: dict[str, tuple[CancellationToken, RemoteLog]] = {}
        self._early: OrderedDict[str, str] = OrderedDict()
        self._all: str | None = None

    def begin(self, key: str, log: RemoteLog) -> CancellationToken:
        token = CancellationToken()
        with self._lock:
            self._running[key] = token, log
            reason = self._early.pop(key, self._all)
        if reason is not None:
            token.cancel(reason)
        return token

    def end(self, key: str) -> None:
        with self._lock:
            self._running.pop(key, None)

    def cancel_all(self, reason: str) -> None:
        with self._lock:
            self._all = reason
            running = list(self._running.values())
        for token, _ in running:
            token.cancel(reason)

    def cancel(self, key: str, reason: str) -> bool:
        with self._lock:
            running = self._running.get(key)
            if running is None:
                self._early[key] = reason
                if len(self._early) > _MAX_EARLY:
                    self._early.popitem(last=False)
        if running is not None:
            running[0].cancel(reason)
        return running is not None

    def log(self, key: str) -> RemoteLog | None:
        with self._lock:
            running = self._running.get(key)
        return None if running is None else running[1]

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._running)


_calls = _Calls()


def cancel(key: str, reason: str) -> bool:
    """Set the cancellation token of a call that runs in this process, or is about to.

    Args:
        key: of the call.
        reason: why.

    Returns:
        Whether it runs here.
    """
    return _calls.cancel(key, reason)


def cancel_all(reason: str) -> None:
    """Set the cancellation tokens of every call of this process, also of those that begin later: it is to end."""
    _calls.cancel_all(reason)


def logged(key: str, after: int) -> tuple[int, bytes] | None:
    """Return what a call of this process has logged since then, to be sent ahead of its answer.

    The answer has it as well: whatever is lost on the way is not lost.

    Args:
        key: of the call.
        after: how many entries were returned before.

    Returns:
        How many entries it has logged up to the last one of these, and the entries; None when there are none.
    """
    log = _calls.log(key)
    entries = () if log is None else log.after(after)
    if not entries:
        return None
    return entries[-1].number, pickle.dumps(SentAhead(host(), os.getpid(), entries), protocol=5)


def calls_here() -> list[str]:
    """Return the keys of the calls that run in this process."""
    return _calls.keys()


def perform(payload: bytes, *, prints: bool = True) -> bytes:
    """Run a call; whatever comes of it is in the answer, `SystemExit` and `KeyboardInterrupt` included.

    Args:
        payload: the request.
        prints: whether to keep what is printed meanwhile; no, when whoever waits sees the streams of this process.

    Returns:
        The answer.

    Raises:
        ValueError: the request cannot be read here; nothing was run.
    """
    request = read(Request, payload)
    capture_records()
    if prints:
        keep_prints()
    log = RemoteLog(prints=prints)
    token = _calls.begin(request.key, log)
    try:
        return write(contextvars.copy_context().run(_answer, request, token, log))
    finally:
        _calls.end(request.key)


class RemoteLog:
    """What one call logs and prints, kept until its answer: the first and the last lines, when it is too much.

    Args:
        prints: whether what is printed is kept.
    """

    def __init__(self, *, prints: bool = True) -> None:
        self.over = False
        self._prints = prints
        self._lock = threading.RLock()
        self._kept: deque[LogEntry] = deque()
        self._all = 0

    def record(self, record: logging.LogRecord) -> None:
        """Keep a log record."""
        if self.over:
            return
        with not_kept():  # what is logged while a message is put together would come here again
            try:
                self._add("record", portable(record))
            except Exception:  # noqa: BLE001 - logging never breaks what it logs
                return

    def printed(self, stream: str, text: str) -> None:
        """Keep what was printed."""
        if self._prints and not self.over:
            for start in range(0, len(text), MAX_ENTRY):
                self._add(stream, text[start : start + MAX_ENTRY])

    def logger(self, plain: logging.Logger) -> logging.Logger:
        """Return a logger whose records belong to this call in whatever thread they are made."""
        return StepLogger(plain, self)

    def after(self, number: int) -> tuple[LogEntry, ...]:
        """Return the entries that follow one, as many as are sent at once; none when the call is over."""
        found: list[LogEntry] = []
        characters = 0
        with self._lock:
            if self.over or self._all == number:
                return ()
            for entry in self._kept:
                if entry.number > number:
                    found.append(entry)
                    characters += len(entry.content)
                    if len(found) == _BATCH_ENTRIES or characters >= _BATCH_CHARACTERS:
                        break
        return tuple(found)

    def take(self) -> tuple[tuple[LogEntry, ...], int]:
        """Return what was kept, and how many entries there were in all; nothing is kept from now on."""
        with self._lock:
            self.over = True
            return tuple(self._kept), self._all

    def _add(self, kind: str, content: str | bytes) -> None:
        with self._lock:
            self._all += 1
            self._kept.append(LogEntry(self._all, kind, content))
            if len(self._kept) > _FIRST_ENTRIES + _LAST_ENTRIES:
                del self._kept[_FIRST_ENTRIES]


def _answer(request: Request, token: CancellationToken, log: RemoteLog) -> Answer:
    value: bytes | None = None
    stored: StoredOutput | None = None
    carried: CarriedException | None = None
    raised = False
    metadata: dict[str, Any] = request.call.metadata
    try:
        asset = _asset(request)
        values = _values(request)
        context = context_of(request.call, asset, token, log)
        metadata = context.metadata
        telemetry.running_step.set(telemetry.RunningStep(fields_of(context), log))
        if request.call.trace:
            with suppress(ImportError):  # traces need a package that need not be there
                telemetry.activate(request.call.trace)
        context.inputs = _inputs(request, values)
        returned = _invoker().call(
            context, timeout_seconds=request.timeout_seconds, stoppable=request.stoppable and request.asset is None
        )
        metadata = context.metadata
        check_metadata(metadata, request.call)
        if isinstance(returned, BaseException):
            carried = carry(returned)  # a returned outcome
        elif request.keep is not None and not isinstance(returned, Published):
            stored = _stored(context, values, returned)
        else:
            value = _pickled(returned, asset)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are answers too
        raised, value, stored, carried = True, None, None, carry(error)
        metadata = {name: fact for name, fact in metadata.items() if pickles(fact)}
    entries, count = log.take()
    return Answer(
        key=request.key,
        value=value,
        stored=stored,
        metadata=pickle.dumps(metadata, protocol=5),
        exception=carried,
        raised=raised,
        log=entries,
        logged=count,
        host=host(),
        pid=os.getpid(),
    )


@cache
def _invoker() -> Invoker:
    """Return what calls functions in this process; children of isolated ones are kept for later calls."""
    return Invoker(CoroutineRunner(), IsolatedCalls())


def _asset(request: Request) -> Asset:
    """Return the asset of a call, with the code that was meant.

    Raises:
        DefinitionError: it cannot be imported here.
        RemoteCodeError: the code here is another one.
    """
    if request.asset is not None:
        by_value: Asset = pickle.loads(request.asset)  # noqa: S301 - see `wire`
        return by_value
    asset = find(of_another_machine(request.call.reference), ELSEWHERE)
    name = request.call.reference.asset
    if asset.code_version != request.code_version:
        here, there = asset.code_version, request.code_version
        raise RemoteCodeError(name, host(), f"its code_version is {here!r} there and {there!r} for the worker")
    if request.python == PYTHON and digest_of(asset) != request.digest:
        raise RemoteCodeError(name, host(), "its function is another one there than for the worker")
    return asset


def _values(request: Request) -> ValueStore:
    try:
        managers = {name: pickle.loads(one) for name, one in request.managers.items()}  # noqa: S301 - see `wire`
    except Exception as error:
        raise SerializationError(
            f"The IO managers of asset {request.call.reference.asset!r} cannot be read where it is computed "
            f"({error})",
            path="managers",
            type_name="unknown",
            remedy="Install their packages there, or have the worker store values: values='local'.",
        ) from error
    return ValueStore(managers, request.keep or "", project=request.project, types=NamedTypes(request.types))


def _inputs(request: Request, values: ValueStore) -> dict[str, Any]:
    try:
        inputs: dict[str, Any] = pickle.loads(request.arguments)  # noqa: S301 - see `wire`
    except Exception as error:
        raise SerializationError(
            f"The inputs of asset {request.call.reference.asset!r} cannot be read where it is computed ({error})",
            path="arguments",
            type_name="unknown",
            remedy="Use classes of modules that are installed there.",
        ) from error
    return {name: _loaded(value, values) for name, value in inputs.items()}


def _loaded(value: Any, values: ValueStore) -> Any:
    if isinstance(value, Later):
        return values.load(value.stored)
    if isinstance(value, Mapping) and any(isinstance(one, Later) for one in value.values()):
        return {partition: _loaded(one, values) for partition, one in value.items()}
    return value


def _stored(context: AssetContext, values: ValueStore, value: object) -> StoredOutput:
    """Store a value; the worker puts the metadata of the function beside it.

    Not when nobody waits any more: a later call of the same attempt may have stored, and committed, there.
    """
    context.cancellation.raise_if_cancelled(context.asset.name)
    metadata, context.metadata = context.metadata, {}
    try:
        return values.store(context, value)
    finally:
        context.metadata = metadata


def _pickled(value: object, asset: Asset) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as error:
        raise SerializationError(
            f"What asset {asset.name!r} returned cannot be sent to the worker that stores it ({error})",
            path="$",
            type_name=type_name(value),
            remedy="Return plain data, or choose an IO manager that stores it where it is computed.",
        ) from error
