"""The child process of isolated calls: runs one function at a time until its parent goes away."""

from __future__ import annotations

import contextvars
import faulthandler
import logging
import os
import pickle
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import CoroutineType
from typing import Any, BinaryIO, NoReturn, cast

from flowstone import telemetry
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext, CancellationToken, KeepsLog, Resources
from flowstone.core.outcome import Scattered, Snoozed
from flowstone.core.output import StoredOutput, type_name
from flowstone.core.published import Published
from flowstone.core.route import Route
from flowstone.core.value_types import NamedTypes, value_types
from flowstone.engine.isolated.exceptions import CarriedException, carry
from flowstone.engine.isolated.reference import Reference, find
from flowstone.engine.isolated.wire import (
    CANCEL,
    Answer,
    Buffer,
    Call,
    Channel,
    FromFile,
    Given,
    Keep,
    Kind,
    dump,
    load,
)
from flowstone.engine.values import refuse_read_once
from flowstone.errors import FlowStoneError, ResourceError, SerializationError

_PLAIN = (str, int, float, bool, type(None))
_NOT_ENCODED = (Published, Route, Scattered, Snoozed)
"""What is no value, and goes to the parent as it is."""
_SENT_ALONG_BYTES = 64 * 1024
_LEAST_IN_FILE_BYTES = 16 * 1024 * 1024


def main(call_fd: int, control_fd: int) -> None:
    """Serve calls until the parent closes the conversation.

    Args:
        call_fd: socket on which calls come and answers go.
        control_fd: pipe on which cancels come; its end means that the parent is gone.
    """
    faulthandler.enable()
    for descriptor in (call_fd, control_fd):
        os.set_inheritable(descriptor, False)
    with suppress(Exception):  # lines reach the parent as they are written, not when the call is over
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    cancels = Cancels(control_fd)
    channel = Channel(socket.socket(fileno=call_fd))
    forward = ForwardLogs(channel)
    logging.getLogger().addHandler(forward)
    server = CallServer(channel, cancels, forward)
    with suppress(EOFError, ConnectionError):
        while True:
            _, parts = channel.receive()
            server.serve(load(parts[:1]), parts[1:])
            del parts  # nothing of a call is kept while the next one is waited for, and received


class Cancels:
    """Sets the token of the running call when the parent says so, and leaves when the parent is gone."""

    def __init__(self, control_fd: int) -> None:
        self._fd = control_fd
        self._lock = threading.Lock()
        self._requested: tuple[int, str] = (0, "")
        self._running: tuple[int, CancellationToken] | None = None
        threading.Thread(target=self._listen, name="flowstone-parent-watch", daemon=True).start()

    def token(self, call: int) -> CancellationToken:
        """Return the token of a call that begins; its cancel may have come before it."""
        token = CancellationToken()
        with self._lock:
            self._running = (call, token)
            self._apply()
        return token

    def _listen(self) -> None:
        while True:
            call, length = CANCEL.unpack(self._read(CANCEL.size))
            reason = self._read(length).decode("utf-8", "replace")
            with self._lock:
                self._requested = (call, reason)
                self._apply()

    def _apply(self) -> None:
        call, reason = self._requested
        if self._running is not None and self._running[0] == call:
            self._running[1].cancel(reason)

    def _read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            more = os.read(self._fd, size - len(read))
            if not more:
                _leave()
            read += more
        return read


def _leave() -> NoReturn:
    """End at once: whatever runs here, nobody waits for it any more."""
    os._exit(0)


class ForwardLogs(logging.Handler):
    """Sends log records to the parent while a call runs; others go to stderr."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self.active = False

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, formatted as far as its arguments go."""
        with self.lock or threading.Lock():
            if self.active:
                try:
                    self._channel.send(Kind.LOG, [portable(record)])
                except Exception:  # noqa: BLE001 - logging never breaks what it logs
                    self.handleError(record)
            elif logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)

    def switch(self, *, active: bool) -> None:
        """Begin or end forwarding; afterwards no record is on its way any more."""
        with self.lock or threading.Lock():
            self.active = active


def portable(record: logging.LogRecord) -> bytes:
    """Return a record as bytes, formatted as far as its arguments go."""
    fields = dict(record.__dict__)
    fields.update(msg=record.getMessage(), args=None, exc_info=None)
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
    fields.update(telemetry.step_fields.get() or {})
    try:
        return pickle.dumps(fields, protocol=5)
    except Exception:  # noqa: BLE001 - extra fields may be anything
        plain = {key: value if isinstance(value, _PLAIN) else repr(value) for key, value in fields.items()}
        return pickle.dumps(plain, protocol=5)


class CallServer:
    """Performs calls and sends their answers."""

    def __init__(self, channel: Channel, cancels: Cancels, logs: ForwardLogs) -> None:
        self._channel = channel
        self._cancels = cancels
        self._logs = logs
        self._assets: dict[Reference, Asset] = {}
        self._pid = os.getpid()

    def serve(self, call: Call, arguments: Sequence[Buffer]) -> None:
        """Perform one call; whatever happens in it becomes its answer."""
        metadata = call.metadata
        result = _Result()
        carried: CarriedException | None = None
        raised = False
        self._logs.switch(active=True)
        try:
            carried = self._perform(call, arguments, result)
            check_metadata(metadata, call)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are answers too
            raised, result, carried = True, _Result(), carry(error)
        if os.getpid() != self._pid:
            os._exit(1)  # user code forked and came back here: only the first process may answer
        _flush()
        self._logs.switch(active=False)
        if raised:
            metadata = {key: value for key, value in metadata.items() if pickles(value)}
        answer = Answer(pickle.dumps(metadata, protocol=5), carried, raised, result.encoded, result.lengths)
        file = None if result.file is None else result.file.fileno()
        self._channel.send(Kind.ANSWER, [pickle.dumps(answer, protocol=5), *result.parts], file=file)

    def _perform(self, call: Call, arguments: Sequence[Buffer], result: _Result) -> CarriedException | None:
        """Call the function; return an outcome that it returned, or put its value into the result."""
        _take_surroundings(call)
        asset = self._assets.get(call.reference)
        if asset is None:
            asset = self._assets[call.reference] = find(call.reference)
        context = context_of(call, asset, self._cancels.token(call.number))
        logging.getLogger(f"flowstone.asset.{asset.name}").setLevel(call.asset_level)
        given = _load_arguments(arguments, call)
        types = value_types.set(NamedTypes(given.types))
        try:
            context.inputs = {name: self._read(value) for name, value in given.arguments.items()}
        finally:
            value_types.reset(types)
        del arguments
        if call.announce:
            self._channel.send(Kind.LOADED, [])
        value = contextvars.copy_context().run(_run, context, call.trace)
        if isinstance(value, BaseException):
            return carry(value)
        keep = None if isinstance(value, _NOT_ENCODED) else given.keep
        if keep is not None:
            self._channel.send(Kind.RETURNED, [])
            types = value_types.set(NamedTypes(given.types))
            try:
                result.encode(value, keep)
            finally:
                value_types.reset(types)
        if result.encoded is None:
            result.put(_dump_value(value, call))
        return None

    def _read(self, value: Any) -> Any:
        """Return an input, with the bytes of those that are read here."""
        if type(value) is dict:  # the partitions of one input, or a value of the user
            found = {key: self._read(one) for key, one in value.items() if type(one) is FromFile}
            return {**value, **found} if found else value
        if type(value) is not FromFile:
            return value
        self._channel.send(Kind.READ, [pickle.dumps(value.stored, protocol=5)])
        self._channel.receive()
        with os.fdopen(self._channel.take_file(), "rb") as file:
            return value.codec.decode(file, value.stored)


class _Result:
    """The value that a function returned, on its way to the parent: in a file when it is large.

    The parent reads that when the child has let go of the value. Where no temporary file can be written, a value
    goes as a pickle by way of the socket, and is in memory twice meanwhile.

    Attributes:
        parts: of the frame: its pickle, or its bytes.
        encoded: what its codec said of the bytes; None when it is pickled.
        file: holds bytes or pickle in place of the parts.
        lengths: of the parts of a pickle in the file.
    """

    def __init__(self) -> None:
        self.parts: Sequence[Buffer] = ()
        self.encoded: StoredOutput | None = None
        self.file: BinaryIO | None = None
        self.lengths: tuple[int, ...] = ()

    def encode(self, value: object, keep: Keep) -> None:
        """Encode the value, if it can be written to a temporary file.

        Raises:
            SerializationError: it cannot be kept.
        """
        refuse_read_once(keep.address.asset, value)
        file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_SENT_ALONG_BYTES))  # noqa: SIM115 - sent
        try:
            encoded = keep.codec.encode(value, file, keep.address)
            if (encoded.size_bytes or 0) > _SENT_ALONG_BYTES:
                file.flush()
                self.file = file
            else:
                file.seek(0)
                self.parts = [file.read()]
        except FlowStoneError:
            raise  # some are an OSError too
        except OSError:
            return
        self.encoded = encoded

    def put(self, pickled: list[Buffer]) -> None:
        """Take a pickle with its buffers."""
        lengths = tuple([len(part) for part in pickled])
        if sum(lengths) >= _LEAST_IN_FILE_BYTES:
            with suppress(OSError):
                file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - sent
                file.writelines(pickled)
                file.flush()
                self.file, self.lengths = file, lengths
                return
        self.parts = pickled


def context_of(
    call: Call, asset: Asset, cancellation: CancellationToken, log: KeepsLog | None = None
) -> AssetContext:
    """Return the context of a call, in the process in which the function is called."""
    context = AssetContext(
        asset=asset,
        partition=call.partition,
        key=call.key,
        run_id=call.run_id,
        run=call.run,
        config=asset.config_in(call.run.details),
        hooks_config=call.run.details.hooks_config,
        step_id=call.step_id,
        attempt=call.attempt,
        token=call.token,
        started_at=call.started_at,
        cancellation=cancellation,
        resources=CarriedResources(call.resources, asset.name),
        approvals=call.approvals,
        log=log,
    )
    context.metadata = call.metadata
    return context


def fields_of(context: AssetContext) -> dict[str, Any]:
    """Return what log records of a step say about it."""
    return {
        "asset": context.asset.name,
        "partition": context.key,
        "run_id": context.run_id,
        "attempt": context.attempt,
        "step_id": str(context.step_id),
    }


def _run(context: AssetContext, trace: Mapping[str, str] | None) -> object:
    asset = context.asset
    if trace:
        telemetry.activate(trace)
    telemetry.running_step.set(telemetry.RunningStep(fields_of(context)))
    leading = (context,) if asset.takes_context else ()
    value = asset.function(*leading, **context.inputs)
    if not asset.is_async and type(value) is not CoroutineType:
        return value
    import asyncio  # here, because most children never need it and it takes long to import

    return asyncio.run(value)


class CarriedResources(Resources):
    """Resources that came by pickle, unpickled when they are asked for."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        """Return a resource.

        Raises:
            ResourceError: it could not be brought here, or was not asked for.
        """
        carried = super().__getitem__(name)
        if not isinstance(carried, bytes):
            raise ResourceError(
                f"The resource {name!r} cannot be brought to the process of asset {self._owner!r}: {carried}. "
                'Open it inside the function, or declare the asset with isolation="thread".'
            )
        return pickle.loads(carried)  # noqa: S301 - written by our own process


def _take_surroundings(call: Call) -> None:
    logging.getLogger().setLevel(call.root_level)
    if call.path is not None:
        sys.path[:] = call.path
    if call.directory is not None:
        with suppress(OSError):  # it may be gone; what needs it will say so
            os.chdir(call.directory)


def _load_arguments(arguments: Sequence[Buffer], call: Call) -> Given:
    try:
        loaded: Given = load(arguments)
    except Exception as error:
        raise SerializationError(
            f"The inputs of asset {call.reference.asset!r} cannot be read in its own process ({error})",
            path="arguments",
            type_name="unknown",
            remedy="Use classes of modules that both processes can import, and not of the main script.",
        ) from error
    return loaded


def _dump_value(value: object, call: Call) -> list[Buffer]:
    try:
        return dump(value)
    except Exception as error:
        raise SerializationError(
            f"What asset {call.reference.asset!r} returned cannot leave its own process ({error})",
            path="$",
            type_name=type_name(value),
            remedy='Return plain data, or declare the asset with isolation="thread".',
        ) from error


def check_metadata(metadata: Mapping[str, Any], call: Call) -> None:
    """Refuse metadata that cannot travel.

    Raises:
        SerializationError: names the fact.
    """
    for name, value in metadata.items():
        if not isinstance(value, _PLAIN) and not pickles(value):
            raise SerializationError(
                f"Metadata that asset {call.reference.asset!r} set cannot leave its own process",
                path=f"context.metadata[{name!r}]",
                type_name=type_name(value),
                remedy="Metadata are small JSON facts.",
            )


def pickles(value: object) -> bool:
    """Whether a value can be pickled."""
    try:
        pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - asked in order to know
        return False
    return True


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # user code may have closed or replaced them
            stream.flush()
