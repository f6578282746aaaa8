"""One call to one child: asking, listening, and watching the time meanwhile."""

from __future__ import annotations

import codecs
import logging
import os
import pickle
import time
from collections.abc import Mapping
from typing import Any

from flowstone import telemetry
from flowstone.core.context import AssetContext
from flowstone.engine.isolated.process import ChildProcess, current_directory, search_path
from flowstone.engine.isolated.reference import Reference
from flowstone.engine.isolated.values import IsolatedValues
from flowstone.engine.isolated.wire import Answer, Buffer, Call, Kind, load
from flowstone.engine.logs import KeepsOutput, keeper
from flowstone.errors import MaterializationTimeoutError, StepCancelledError

_LOADING_SECONDS = 60.0
_TICK_SECONDS = 0.05  # how often a waiting call polls its cancellation token
_log = logging.getLogger("flowstone.engine")


class Conversation:
    """Holds one call; after any error the child is in an unknown state and must be discarded.

    Args:
        child: the child, which belongs to this call alone.
        context: the step.
        timeout_seconds: limit of the function; None for none.
        grace_seconds: how long it may go on after a cancel.
        values: opens the files of inputs; None when there are none.
    """

    def __init__(
        self,
        child: ChildProcess,
        context: AssetContext,
        timeout_seconds: float | None,
        grace_seconds: float,
        values: IsolatedValues | None = None,
    ) -> None:
        self._values = values
        self._child = child
        self._context = context
        self._timeout_seconds = timeout_seconds
        self._grace_seconds = grace_seconds
        self._number = 0
        self._deadline: float | None = None
        self._stop_at: float | None = None
        kept = keeper()
        child.on_output = None if kept is None else _Output(kept)

    def hold(self, number: int, reference: Reference, arguments: list[Buffer]) -> tuple[Answer, list[Buffer]]:
        """Send the call and return its answer, with the parts of the value.

        Args:
            number: of the call, unique in this process.
            reference: the function.
            arguments: parts of the arguments.

        Raises:
            MaterializationTimeoutError: the limit was reached.
            StepCancelledError: the grace after a cancel is over.
            ChildEndedError: the child died; EOFError and ConnectionError mean the same.
        """
        child = self._child
        limit = self._timeout_seconds
        announce = limit is not None and (self._values is not None or reference not in child.loaded)
        if limit is not None:
            # importing pandas may take longer than the limit of the function that uses it
            self._deadline = time.monotonic() + (max(limit, _LOADING_SECONDS) if announce else limit)
        self._number = number
        child.calls += 1
        call = self._call(reference, announce)
        child.channel.send(Kind.CALL, [call, *arguments], wait=self._wait)
        while True:
            kind, parts = child.channel.receive(wait=self._wait)
            match kind:
                case Kind.LOG:
                    forward(parts[0], self._context)
                    self._check()
                case Kind.LOADED:
                    assert limit is not None
                    self._deadline = time.monotonic() + limit
                    child.loaded.add(reference)
                case Kind.READ:
                    # neither reading nor storing values counts as running time of the function
                    self._deadline = None
                    assert self._values is not None
                    with self._values.open(load(parts[:1])) as file:
                        descriptor = os.dup(file.fileno())
                    try:  # not above: a child that has died is no failure of the storage
                        child.channel.send(Kind.INPUT, [], wait=self._wait, file=descriptor)
                    finally:
                        os.close(descriptor)
                case Kind.RETURNED:
                    self._deadline = None
                case _:
                    child.pass_output_on()
                    return load(parts[:1]), parts[1:]

    def _call(self, reference: Reference, announce: bool) -> bytes:
        context, child = self._context, self._child
        path = search_path()
        changed, child.path = path != child.path, path
        call = call_of(
            context,
            reference,
            self._number,
            directory=current_directory(),
            path=path if changed else None,
            announce=announce,
        )
        return pickle.dumps(call, protocol=5)

    def _wait(self, events: int) -> None:
        """Return when the socket is ready; raise when there is no more time for it."""
        while True:
            self._check()
            until = _TICK_SECONDS
            if self._deadline is not None:
                until = min(until, self._deadline - time.monotonic())
            if self._child.wait(events, until):
                return

    def _check(self) -> None:
        name, cancellation = self._context.asset.name, self._context.cancellation
        if self._stop_at is None and cancellation.reason is not None:
            self._stop_at = time.monotonic() + self._grace_seconds
            self._child.cancel(self._number, cancellation.reason)
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            raise StepCancelledError(name)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            assert self._timeout_seconds is not None
            raise MaterializationTimeoutError(name, self._timeout_seconds)


class _Output:
    """Keeps what a child writes with the attempt, decoded across the borders of what is read at once."""

    def __init__(self, kept: KeepsOutput) -> None:
        self._kept = kept
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: decoder("replace") for name in ("stdout", "stderr")}

    def __call__(self, stream: str, written: bytes) -> None:
        self._kept.printed(stream, self._decoders[stream].decode(written))


def call_of(
    context: AssetContext,
    reference: Reference,
    number: int,
    *,
    directory: str | None = None,
    path: list[str] | None = None,
    announce: bool = False,
) -> Call:
    """Return the call of a step's function in another process, without its inputs."""
    return Call(
        number=number,
        reference=reference,
        partition=context.partition,
        key=context.key,
        run_id=context.run_id,
        run=context.run,
        step_id=context.step_id,
        attempt=context.attempt,
        token=context.token,
        started_at=context.started_at,
        metadata=context.metadata,
        approvals=tuple(context.approvals.values()),
        resources={name: _dump_resource(context.resources, name) for name in context.resources},
        root_level=logging.getLogger().level,
        asset_level=context.logger.getEffectiveLevel(),
        directory=directory,
        path=path,
        announce=announce,
        trace=telemetry.tracer.carrier() if telemetry.tracer is not None else None,
    )


def _dump_resource(resources: Mapping[str, Any], name: str) -> bytes | str:
    """Return the pickle of a resource, or why there is none."""
    try:
        return pickle.dumps(resources[name], protocol=5)
    except Exception as error:  # noqa: BLE001 - reported by the child when the function asks for it
        return f"{type(error).__name__}: {error}"


def forward(pickled: Buffer, context: AssetContext, *, kept_only: bool = False) -> None:
    """Keep a log record of another process with the attempt, and hand it to the handlers of this one.

    Args:
        pickled: the record.
        context: the step.
        kept_only: whether the handlers have had it.
    """
    try:
        record = logging.makeLogRecord(load([pickled]))
    except Exception as error:  # noqa: BLE001 - extra fields may be of classes that only the child knows
        _log.warning("A log record of asset %r cannot be read here: %s", context.asset.name, error)
        return
    kept = keeper()
    if kept is not None:
        kept.record(record)
    if kept_only:
        return
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
