"""Calls of functions on other machines, as the worker makes them that holds the step.

`RemoteCalls.call` hands an attempt over once, waits for the answer without asking again and again, and passes on
what it says. Inputs go there as the places where they lie, and values are stored there, where IO managers allow
it.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import re
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext
from flowstone.core.output import StoredOutput, type_name
from flowstone.core.project import DEFAULT_PROJECT
from flowstone.engine.isolated.conversation import call_of, forward
from flowstone.engine.isolated.exceptions import restore
from flowstone.engine.isolated.reference import Place, Reference, check_not_loading, digest_of, reference_to
from flowstone.engine.logs import keeper
from flowstone.engine.remote.perform import cancel, logged, perform
from flowstone.engine.remote.wire import PYTHON, Answer, Later, LogEntry, Request, SentAhead, host, read, write
from flowstone.engine.values import ResolvedInputs, ValueStore, find_values
from flowstone.errors import (
    ComputeLostError,
    DefinitionError,
    MissingExtraError,
    SerializationError,
    StepCancelledError,
    StorageError,
)
from flowstone.protocols import Compute, ComputeCall, InternalIO, IOManager, SubmittedCall

log = logging.getLogger("flowstone.compute")

_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.]+")
_LARGE_BYTES = 20_000_000


class StoredThere(NamedTuple):
    """In place of a value: it was stored where it was computed."""

    stored: StoredOutput


class FindsComputes(Protocol):
    """The computes of an app."""

    def get(self, name: str) -> Compute:
        """Return a compute by name."""

    def made(self) -> list[tuple[str, Compute]]:
        """Return those that are there, with their names."""

    def close(self) -> None:
        """Close all of them."""


class RemoteCalls:
    """Calls the functions of assets by way of computes; any number of threads may call at once.

    Args:
        computes: the computes of the app.
        managers: IO managers by name.
        values: stores and loads here.
        project: project of the app.
        grace_seconds: how long a call may go on after a cancel before nobody waits for it any more.
        ask_seconds: how often a call without an answer is asked what it waits for.
    """

    def __init__(
        self,
        computes: FindsComputes,
        managers: Mapping[str, IOManager],
        values: ValueStore,
        *,
        project: str = DEFAULT_PROJECT,
        grace_seconds: float = 15.0,
        ask_seconds: float = 30.0,
    ) -> None:
        self.computes = computes
        self._managers = managers
        self._values = values
        self._project = project
        self.grace_seconds = grace_seconds
        self.ask_seconds = ask_seconds
        self._pickled: dict[str, bytes | None] = {}
        self._code: weakref.WeakKeyDictionary[Asset, tuple[Reference, str | None]] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)

    def call(
        self,
        context: AssetContext,
        inputs: ResolvedInputs,
        *,
        timeout_seconds: float | None,
        stoppable: bool,
        keep: bool,
    ) -> object:
        """Have the asset's function called where it declares, and return its value.

        Args:
            context: the step; what the function puts into `metadata` is there afterwards.
            inputs: what it reads.
            timeout_seconds: limit of the running time of the function; waiting for a place does not count.
            stoppable: see `Invoker.call`.
            keep: whether the value may be stored there.

        Returns:
            What the function returned, or `StoredThere`.

        Raises:
            DefinitionError: the function cannot be found by name there.
            SerializationError: something cannot be pickled.
            ComputeLostError: no answer came back.
            StepCancelledError: it was cancelled.
            BaseException: whatever the function raised.
        """
        asset = context.asset
        check_not_loading(asset)
        context.cancellation.raise_if_cancelled(asset.name)
        assert asset.compute is not None
        compute = self.computes.get(asset.compute)
        request = self._request(compute, context, inputs, timeout_seconds, stoppable=stoppable, keep=keep)
        changed = threading.Event()
        lines = _RemoteLog(context, changed)
        kept = keeper()
        payload = write(request)
        if len(payload) > _LARGE_BYTES:
            log.warning(
                "Asset %s: %.0f MB travel with the call to %r, because its inputs do not lie with an IO manager "
                "that can be used there. FilesystemIO or ObjectIO on shared storage would send their places "
                "alone.",
                asset.name,
                len(payload) / 1e6,
                asset.compute,
            )
        submitted = compute.submit(
            ComputeCall(
                key=request.key,
                asset=asset.name,
                payload=payload,
                options=asset.compute_options,
                perform=perform,
                cancel=cancel,
                logged=logged,
                wake=changed.set,
                arrived=lines.arrived,
                printed=_ignored if kept is None else kept.printed,
            )
        )
        del payload
        try:
            answer = self._wait(submitted, context, changed, lines)
        finally:
            submitted.release()
        return self._result(answer, request, context, lines)

    def close(self) -> None:
        """Close the computes."""
        self.computes.close()

    def _wait(
        self, submitted: SubmittedCall, context: AssetContext, changed: threading.Event, lines: _RemoteLog
    ) -> bytes:
        context.cancellation.on_cancel(changed.set)
        leave_at: float | None = None
        reported: str | None = None
        while True:
            lines.pass_on_sent()
            answer = submitted.answer()
            if answer is not None:
                return answer
            reason = context.cancellation.reason
            if reason is not None and leave_at is None:
                leave_at = time.monotonic() + self.grace_seconds
                submitted.cancel(reason)
                continue  # what was waiting there is over at once
            if leave_at is not None and time.monotonic() >= leave_at:
                raise StepCancelledError(context.asset.name)
            pause = self.ask_seconds if leave_at is None else max(0.0, leave_at - time.monotonic())
            if not changed.wait(pause) and leave_at is None:
                waits_for, before = submitted.waits_for(), reported
                if waits_for is not None and waits_for != before:
                    context.logger.info("Waits: %s", waits_for)
                reported = waits_for
            changed.clear()

    def _request(
        self,
        compute: Compute,
        context: AssetContext,
        inputs: ResolvedInputs,
        timeout_seconds: float | None,
        *,
        stoppable: bool,
        keep: bool,
    ) -> Request:
        asset = context.asset
        there = compute.values == "remote"
        reference, digest = self._code_of(asset, by_value=compute.code == "cloudpickle")
        manager = self._values.manager(asset, context.run.details.io)
        used: dict[str, bytes] = {}

        def refer(stored: StoredOutput) -> object:
            pickled = self._pickled_manager(stored.io) if there and stored.payload is None else None
            if pickled is None:
                return self._values.load(stored)
            used[stored.io] = pickled
            return Later(stored)

        arguments = _dump_arguments(asset, inputs.arguments(refer, self._values.scan))
        kept_by = self._pickled_manager(manager.name) if there and keep else None
        if kept_by is not None:
            used[manager.name] = kept_by
        return Request(
            key=self._key(context),
            call=call_of(context, reference, next(self._numbers)),
            arguments=arguments,
            asset=_by_value(asset) if compute.code == "cloudpickle" else None,
            code_version=asset.code_version,
            digest=digest,
            python=PYTHON,
            timeout_seconds=timeout_seconds,
            stoppable=stoppable,
            managers=used,
            keep=None if kept_by is None else manager.name,
            project=self._project,
            types=self._type_names,
        )

    @cached_property
    def _type_names(self) -> frozenset[str]:
        return self._values.type_names

    def _key(self, context: AssetContext) -> str:
        """Return a key that no other call has: those of another app, or of a hook that calls twice, included."""
        name = _NOT_IN_A_KEY.sub("_", context.asset.name)[:60]
        return f"{name}-{context.step_id}-{context.attempt}-{context.token}-{secrets.token_hex(6)}"

    def _code_of(self, asset: Asset, *, by_value: bool) -> tuple[Reference, str | None]:
        if by_value:
            return Reference(asset.name, asset.where, "", "", 0, None, None, None), None
        found = self._code.get(asset)
        if found is None:
            found = self._code[asset] = reference_to(asset, _place(asset)), digest_of(asset)
        return found

    def _pickled_manager(self, name: str) -> bytes | None:
        """Return an IO manager as bytes; None when it cannot be used by another process."""
        if name not in self._pickled:
            manager = self._managers.get(name)
            pickled = None
            if manager is not None and manager.shared and not isinstance(manager, InternalIO):
                try:
                    pickled = pickle.dumps(manager, protocol=5)
                except Exception as error:  # noqa: BLE001 - it holds connections, or locks
                    log.debug("Values of the IO manager %r go through this process: %s", name, error)
            self._pickled[name] = pickled
        return self._pickled[name]

    def _result(self, written: bytes, request: Request, context: AssetContext, lines: _RemoteLog) -> object:
        asset = context.asset
        where = f"the compute {asset.compute!r}"
        try:
            answer = read(Answer, written)
        except ValueError as error:
            raise ComputeLostError(asset.name, where, f"there is an answer, but {error}") from error
        if answer.key != request.key:
            raise ComputeLostError(asset.name, where, f"the answer is that of another call, {answer.key}")
        lines.pass_on_rest(answer)
        try:
            context.metadata.update(pickle.loads(answer.metadata))  # noqa: S301 - see `wire`
            value = None if answer.value is None else pickle.loads(answer.value)  # noqa: S301
        except Exception as error:
            raise SerializationError(
                f"What asset {asset.name!r} returned cannot be read here ({error})",
                path="$",
                type_name="unknown",
                remedy="Return classes of modules that both machines can import.",
            ) from error
        if answer.exception is None:
            return value if answer.stored is None else StoredThere(self._visible(answer, answer.stored, context))
        restored = restore(answer.exception, asset.name, pid=answer.pid, host=answer.host)
        if not answer.raised:
            return restored
        if isinstance(restored, StorageError):
            restored.add_note(_storage_note(answer.host))
        try:
            raise restored
        finally:
            del restored  # its traceback holds this frame

    def _visible(self, answer: Answer, stored: StoredOutput, context: AssetContext) -> StoredOutput:
        """Return where a value lies, unless this machine does not see it there.

        Raises:
            StorageError: both have a storage of that name, and it is not the same.
        """
        (found,) = find_values(self._managers, [stored])
        if found is False:
            raise StorageError(
                "store",
                context.asset.name,
                context.key,
                f"it was stored on {answer.host}, and this machine does not see it there",
                kind="missing",
                remedy=_storage_note(answer.host),
            )
        return stored


def merged(stored: StoredOutput, context: AssetContext) -> StoredOutput:
    """Return a stored value with what its function noted beside it."""
    return replace(stored, metadata=stored.metadata | context.metadata) if context.metadata else stored


def _storage_note(host: str) -> str:
    return (
        f"Storage was used on {host}, where the asset was computed. When that is not the storage that this worker "
        "sees under the same name, have the worker load and store: values='local'."
    )


def _ignored(stream: str, text: str) -> None:
    """Keep nothing: logs are switched off."""


def _place(asset: Asset) -> Place:
    remedy = "have its code travel along (code='cloudpickle' of the compute)"
    return Place(f"by the compute {asset.compute!r}", remedy)


def _by_value(asset: Asset) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        raise MissingExtraError("cloudpickle", "dask", "code='cloudpickle'") from None
    try:
        pickled: bytes = cloudpickle.dumps(asset.declared, protocol=5)
    except Exception as error:
        raise DefinitionError(
            f"Asset {asset.name!r} cannot travel by value: {type(error).__name__}: {error}. Its function must "
            "not hold "
            "locks, connections or open files; open them inside, or use code='reference'.",
            where=asset.where,
        ) from error
    return pickled


def _dump_arguments(asset: Asset, arguments: Mapping[str, Any]) -> bytes:
    if "__main__" in sys.modules:
        # classes of the main script carry this name elsewhere, as with multiprocessing
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    try:
        return pickle.dumps(dict(arguments), protocol=5)
    except Exception as error:
        for name, value in arguments.items():
            try:
                pickle.dumps(value, protocol=5)
            except Exception as cause:  # noqa: BLE001 - reported by the error below
                raise SerializationError(
                    f"Asset {asset.name!r} ({asset.where}) is computed by {asset.compute!r}, and an input "
                    "cannot be "
                    f"sent there ({cause})",
                    path=f"argument {name!r}",
                    type_name=type_name(value),
                    remedy="Pass plain data, or keep it with an IO manager that other machines can use.",
                ) from error
        raise


class _RemoteLog:
    """What a call logs and prints, on its way to the attempt: sent ahead while it runs, and with its answer.

    Args:
        context: the step.
        changed: set when something was sent ahead.
    """

    def __init__(self, context: AssetContext, changed: threading.Event) -> None:
        self._context = context
        self._changed = changed
        self._sent: SimpleQueue[bytes] = SimpleQueue()
        self._last = self._received = 0

    def arrived(self, entries: bytes) -> None:
        """Take what was sent ahead, in any thread."""
        self._sent.put(entries)
        self._changed.set()

    def pass_on_sent(self) -> None:
        """Pass on what was sent ahead; in the thread of the step, as everything below."""
        while True:
            try:
                written = self._sent.get_nowait()
            except Empty:
                return
            try:
                sent: SentAhead = pickle.loads(written)  # noqa: S301 - see `wire`
                self._pass_on(sent.entries, is_here=_is_here(sent))
            except Exception as error:  # noqa: BLE001 - its answer has them too
                log.debug("Log lines of asset %r cannot be read here: %s", self._context.asset.name, error)

    def pass_on_rest(self, answer: Answer) -> None:
        """Pass on what has not come before."""
        self._pass_on(answer.log, is_here=_is_here(answer))
        if missing := answer.logged - self._received:
            self._context.logger.warning("%d lines of this call are not kept: there were too many.", missing)

    def _pass_on(self, entries: Iterable[LogEntry], *, is_here: bool) -> None:
        kept = keeper()
        for number, kind, content in entries:
            if number <= self._last:
                continue
            self._last = number
            self._received += 1
            if isinstance(content, bytes):
                forward(content, self._context, kept_only=is_here)
            elif kept is not None:
                kept.printed(kind, content)


def _is_here(sender: Answer | SentAhead) -> bool:
    """Whether a call ran in this process, whose handlers had its records then; elsewhere pids repeat."""
    return (sender.host, sender.pid) == (host(), os.getpid())
