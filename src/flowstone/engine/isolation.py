"""Functions called in warm child processes, where they can crash, hang and be stopped without harm."""

from __future__ import annotations

import io
import itertools
import os
import sys
import weakref
from collections.abc import Sequence
from typing import BinaryIO

from flowstone.core.asset import Asset
from flowstone.core.by_reference import kind_of_type, sent_as
from flowstone.core.context import AssetContext
from flowstone.core.output import type_name
from flowstone.engine.isolated.conversation import Conversation
from flowstone.engine.isolated.exceptions import restore
from flowstone.engine.isolated.pool import EXIT_TIMEOUT_SECONDS, ChildPool
from flowstone.engine.isolated.process import ChildEndedError, ChildProcess
from flowstone.engine.isolated.reference import Reference, check_not_loading, reference_to
from flowstone.engine.isolated.values import EncodedValue, IsolatedValues
from flowstone.engine.isolated.wire import Answer, Buffer, Given, dump, load
from flowstone.errors import SerializationError, StepCancelledError, WorkerCrashedError


class IsolatedCalls:
    """Calls the functions of assets in child processes that stay warm between calls.

    Any number of threads may call at once; each call has a child of its own. A child imports the module of
    a function by name, so functions must be at the top level of a module. It has the environment variables
    of the moment at which it was started.

    Args:
        max_idle: how many children are kept for later calls; None for one per processor.
        grace_seconds: how long a function may go on after its cancellation token was set.

    Example:
        >>> calls = IsolatedCalls(max_idle=1)
        >>> calls.close()
    """

    def __init__(self, *, max_idle: int | None = None, grace_seconds: float = 10.0) -> None:
        self._children = ChildPool((os.cpu_count() or 1) if max_idle is None else max_idle)
        self.grace_seconds = grace_seconds
        self._numbers = itertools.count(1)
        self._references: weakref.WeakKeyDictionary[Asset, Reference] = weakref.WeakKeyDictionary()
        # runs at interpreter exit as well
        self._finalizer = weakref.finalize(self, self._children.close)

    def call(
        self,
        context: AssetContext,
        given: Given,
        *,
        timeout_seconds: float | None,
        values: IsolatedValues | None = None,
    ) -> object:
        """Run the asset's function in a child process and return its value.

        Args:
            context: the step; what the function puts into `metadata` is there afterwards.
            given: what the function is called with.
            timeout_seconds: limit of the running time, without the first import; None for none.
            values: what made `given`, when the child reads or writes values itself.

        Returns:
            What the function returned, or an `EncodedValue`.

        Raises:
            DefinitionError: another process cannot find the function by name.
            SerializationError: an argument or the result cannot be pickled.
            MaterializationTimeoutError: the limit was reached; the function is stopped.
            StepCancelledError: it was cancelled.
            WorkerCrashedError: the process died.
            BaseException: whatever the function raised.
        """
        asset = context.asset
        check_not_loading(asset)
        context.cancellation.raise_if_cancelled(asset.name)
        reference = self._references.get(asset)
        if reference is None:
            reference = self._references[asset] = reference_to(asset)
        parts = _dump_arguments(asset, given)
        child = self._children.take()
        conversation = Conversation(child, context, timeout_seconds, self.grace_seconds, values)
        answer, value = self._converse(child, conversation, reference, parts)
        return _result(answer, value, context, child.pid)

    def close(self) -> None:
        """End all children; calls that still run end as cancelled. Later calls start new children."""
        self._children.close()

    def _converse(
        self, child: ChildProcess, conversation: Conversation, reference: Reference, arguments: list[Buffer]
    ) -> tuple[Answer, list[Buffer] | BinaryIO]:
        """Hold the conversation, then keep the child or end it.

        Returns:
            The answer, and the value: its parts, or a file.
        """
        answered = False
        value: list[Buffer] | BinaryIO
        try:
            answer, value = conversation.hold(next(self._numbers), reference, arguments)
            if answer.lengths or (answer.encoded is not None and not value):
                value = os.fdopen(child.channel.take_file(), "rb", 0)
            elif answer.encoded is not None:
                value = io.BytesIO(value[0])
            answered = True
        except (ChildEndedError, EOFError, ConnectionError):
            # its end of the socket closes a moment before the process is over
            exit_code = child.kill(retry_seconds=EXIT_TIMEOUT_SECONDS)
            self._children.discard(child)  # now, because this reads the rest of what it wrote to stderr
            if child.stopped:
                raise StepCancelledError(reference.asset) from None
            raise WorkerCrashedError(reference.asset, exit_code, child.stderr_tail()) from None
        finally:
            if answered:
                child.on_output = None
                self._children.release(child)
            else:
                self._children.discard(child)
        return answer, value


def _dump_arguments(asset: Asset, given: Given) -> list[Buffer]:
    try:
        return dump(given)
    except Exception as error:
        for name, value in given.arguments.items():
            try:
                dump(value)
            except Exception as cause:  # noqa: BLE001 - reported by the error below
                kind = kind_of_type(type(value))
                raise SerializationError(
                    f"Asset {asset.name!r} ({asset.where}) runs in a process of its own, and an input cannot "
                    f"be sent there ({cause})",
                    path=f"argument {name!r}",
                    type_name=type_name(value),
                    remedy=(kind and sent_as(kind, name))
                    or 'Pass plain data, or declare the asset with isolation="thread".',
                ) from error
        raise


def _result(answer: Answer, value: list[Buffer] | BinaryIO, context: AssetContext, pid: int) -> object:
    name = context.asset.name
    if "__main__" in sys.modules:
        # classes of the main script carry this name in the child, as with multiprocessing
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    try:
        context.metadata.update(load([answer.metadata]))
        if not isinstance(value, list):
            if answer.encoded is not None:
                return EncodedValue(value, answer.encoded)
            value = _parts_of(value, answer.lengths)
        result = load(value) if value else None
    except Exception as error:
        raise SerializationError(
            f"What asset {name!r} returned in its own process cannot be read here ({error})",
            path="$",
            type_name="unknown",
            remedy="Return classes of modules that both processes can import.",
        ) from error
    if answer.exception is None:
        return result
    restored = restore(answer.exception, name, pid=pid)
    if not answer.raised:
        return restored
    try:
        raise restored
    finally:
        del restored  # its traceback holds this frame


def _parts_of(file: BinaryIO, lengths: Sequence[int]) -> list[Buffer]:
    """Read the parts of a pickle, and close their file."""
    with file:
        file.seek(0)
        parts: list[Buffer] = []
        for length in lengths:
            part = bytearray(length)
            rest = memoryview(part)
            while rest:
                count = file.readinto(rest)  # type: ignore[attr-defined]  # every binary file has it
                if not count:
                    raise EOFError("the file of the value ends too early")
                rest = rest[count:]
            parts.append(part)
        return parts
