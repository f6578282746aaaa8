"""What one step says of its end, made fit to be recorded: nothing in it can hurt the steps committed beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

from flowstone.core.approval import MAX_TIMEOUT_SECONDS, ON_TIMEOUT, check_portable
from flowstone.core.clean import ERROR_LIMIT, MAX_OF_OUTPUTS, clean_metadata, clean_text, plain_text
from flowstone.core.declaring import duration, is_storable, shown
from flowstone.core.outcome import (
    AttemptOutcome,
    Failed,
    Scattered,
    Skipped,
    Snoozed,
    Stopped,
    Succeeded,
    Suspended,
)
from flowstone.core.output import JsonValue, StoredOutput, type_name
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, CheckRecord, CommitResult, InputVersion, Severity
from flowstone.errors import SerializationError

_BIGINT = 2**63
_MAX_REASON = 1000
_MAX_VERSION = 1000
_MAX_MESSAGE = 10_000
_MAX_DELAY_SECONDS = 10 * 31_536_000.0
_COMPLETION_REMEDY = (
    "Leave it as FlowStone made it, or give a plain value; hooks and IO managers may change what they return."
)


NOWHERE = CommitResult(0, State.NOT_FOUND, accepted=False)
"""What is answered of a completion that names no attempt."""


def can_be_committed(completion: Any) -> bool:
    """Whether a completion names an attempt at all; one that does not can be neither committed nor failed."""
    attempt: object = getattr(completion, "attempt", None)
    if not isinstance(attempt, Attempt) or not type(attempt.step_id) is type(attempt.token) is int:
        return False
    return 0 <= attempt.step_id < _BIGINT and 0 <= attempt.token < _BIGINT


def make_recordable(completion: AttemptResult) -> AttemptResult:
    """Return a completion that every store can record; it is itself when it is one already, as usual.

    What has no plain form makes it a failure of its step, which says what it was.

    Args:
        completion: the end of an attempt, whose parts may be anything that hooks and IO managers left there.
    """
    if completion.is_recordable:
        return completion
    try:
        ready = _made_recordable(completion)
    except BaseException as error:  # noqa: BLE001 - whatever the objects of user code do when they are looked at
        ready = failed(completion.attempt, error)
    ready.is_recordable = True
    return ready


def failed(attempt: Attempt, error: BaseException) -> AttemptResult:
    """Return the smallest record of a failure: of an attempt whose end cannot be recorded as it is.

    Args:
        attempt: the attempt.
        error: why.
    """
    if not isinstance(error, SerializationError):
        kind = type(error)
        problem = f"What this attempt said cannot be recorded: {kind.__qualname__}: {plain_text(error)}"
    else:
        problem = f"{type(error).__name__}: {error}"
    outcome = Failed(
        clean_text(problem),
        clean_text(f"{type(error).__module__}.{type(error).__qualname__}", limit=300),
        retryable=False,
        exception=error.with_traceback(None) if isinstance(error, Exception) else None,
    )
    return AttemptResult(attempt, outcome, (), attempt.started_at)


def is_plain(outcome: AttemptOutcome, version: str | None) -> bool:
    """Whether this is the usual outcome, a value stored without metadata, of which nothing is to change.

    Says in one look what `make_recordable` finds out part by part; whatever is unusual is left to that.

    Args:
        outcome: what hooks and IO managers left of it.
        version: version of the code, as it is declared.
    """
    if type(outcome) is not Succeeded:
        return False
    stored = outcome.stored
    if type(stored) is not StoredOutput or type(stored.metadata) is not dict or stored.metadata:
        return False
    io, location, value_type = stored.io, stored.location, stored.value_type
    if not (type(io) is type(location) is type(value_type) is str):
        return False
    text = f"{io}{location}{value_type}"
    if stored.serializer is not None or stored.content_hash is not None or stored.size_bytes is not None:
        serializer, digest, size = stored.serializer, stored.content_hash, stored.size_bytes
        if not (type(serializer) is type(digest) is str and _is_id(size)):
            return False
        text = f"{text}{serializer}{digest}"
    return (
        text.isascii()
        and "\x00" not in text
        and (version is None or (type(version) is str and _is_plain_version(version)))
        and (stored.payload is None or type(stored.payload) is bytes)
    )


@lru_cache(maxsize=1000)
def _is_plain_version(version: str) -> bool:
    return version == clean_text(version, limit=_MAX_VERSION)


def _made_recordable(completion: Any) -> AttemptResult:
    outcome = _recordable_outcome(completion.outcome, completion.attempt.asset)
    if not isinstance(completion.finished_at, datetime) or completion.finished_at.tzinfo is None:
        raise _not_recordable("finished_at", completion.finished_at)
    delay = completion.retry_in_seconds
    if delay is not None:
        delay = duration(delay, maximum=_MAX_DELAY_SECONDS)
        if delay is None:
            raise _not_recordable("retry_in_seconds", completion.retry_in_seconds)
    if not isinstance(completion.inputs, tuple) or not all(map(_is_input, completion.inputs)):
        raise _not_recordable("inputs", completion.inputs)
    version = completion.code_version
    if (
        not (version is None or (isinstance(version, str) and is_storable(version)))
        or type(completion.ran) is not bool
    ):
        raise _not_recordable("code_version", version)
    checks = completion.checks
    if not isinstance(checks, tuple):
        raise _not_recordable("checks", checks)
    if checks:
        checks = tuple(map(_recordable_check, checks))
    version, ran = completion.code_version, completion.ran is True
    if version is not None:
        version = clean_text(plain_text(version) or "", limit=_MAX_VERSION)
    as_it_is = version == completion.code_version and ran is completion.ran
    if as_it_is and outcome is completion.outcome and delay == completion.retry_in_seconds and not checks:
        same: AttemptResult = completion
        return same
    return AttemptResult(
        completion.attempt, outcome, completion.inputs, completion.finished_at, delay, checks, ran, version
    )


def _recordable_outcome(outcome: Any, asset: str) -> AttemptOutcome:
    match outcome:
        case Succeeded():
            stored = _recordable_stored(outcome.stored, asset)
            return outcome if stored is outcome.stored else replace(outcome, stored=stored)
        case Failed():
            error = clean_text(plain_text(outcome.error) or "It failed without saying why.", limit=ERROR_LIMIT)
            kind = plain_text(outcome.error_type)
            data = None if outcome.data is None else clean_metadata(outcome.data, "data")
            kind = clean_text(kind, limit=300)
            if (error, kind, data) == (outcome.error, outcome.error_type, outcome.data):
                return outcome
            exception = outcome.take_exception()  # the frames of its traceback may hold this outcome
            return Failed(error, kind, bool(outcome.retryable), exception, data)
        case Snoozed():
            after = duration(outcome.after_seconds)
            if after is None:
                raise _not_recordable("after_seconds", outcome.after_seconds)
            return Snoozed(after, _reason(outcome.reason), bool(outcome.for_inputs))
        case Scattered():
            if not (_is_id(outcome.total) and _is_id(outcome.allowed) and isinstance(outcome.is_complete, bool)):
                raise _not_recordable("outcome", outcome)
            return outcome
        case Suspended():
            return _recordable_suspended(outcome)
        case Skipped() | Stopped():
            return replace(outcome, reason=_reason(outcome.reason))
        case _:
            raise _not_recordable("outcome", outcome)


def _recordable_stored(stored: Any, asset: str) -> StoredOutput:
    if not isinstance(stored, StoredOutput):
        raise _not_recordable("stored", stored)
    if not (_is_kept(stored.io) and _is_kept(stored.location) and _is_kept(stored.value_type)):
        raise _not_recordable("stored", stored)
    if not all(text is None or _is_kept(text) for text in (stored.serializer, stored.content_hash)):
        raise _not_recordable("stored", stored)
    size = stored.size_bytes
    if size is not None and not _is_id(size):
        raise _not_recordable("stored.size_bytes", size)
    if stored.payload is not None and not isinstance(stored.payload, bytes):
        raise _not_recordable("stored.payload", stored.payload)
    if type(stored.metadata) is dict and not stored.metadata:
        return stored
    return replace(stored, metadata=output_metadata(stored.metadata, asset))


def output_metadata(facts: Any, asset: str) -> dict[str, JsonValue]:
    """Return the metadata of an output as it is recorded.

    Args:
        facts: what `context.metadata` or an IO manager holds.
        asset: name of the asset, for the error.

    Raises:
        SerializationError: it has no plain form; names asset, place, type and remedy.
    """
    try:
        return clean_metadata(facts, max_characters=MAX_OF_OUTPUTS)
    except SerializationError as error:
        raise SerializationError(
            f"The metadata of asset {shown(asset)} cannot be recorded: "
            f"{error.problem[0].lower()}{error.problem[1:]}",
            path=f"context.{error.path}",
            type_name=error.type_name,
            remedy=error.remedy,
        ) from error.__cause__


def _recordable_suspended(outcome: Any) -> Suspended:
    timeout = duration(outcome.timeout_seconds, maximum=MAX_TIMEOUT_SECONDS)
    if timeout is None:
        raise _not_recordable("timeout_seconds", outcome.timeout_seconds)
    if not isinstance(outcome.on_timeout, str) or outcome.on_timeout not in ON_TIMEOUT:
        raise _not_recordable("on_timeout", outcome.on_timeout)
    for name in ("data", "resume"):
        text = getattr(outcome, name)
        if not isinstance(text, str):
            raise _not_recordable(name, text)
        check_portable(text, name)
    message = clean_text(plain_text(outcome.message), limit=_MAX_MESSAGE)
    made: Suspended = replace(outcome, message=message, gate=_reason(outcome.gate), timeout_seconds=timeout)
    return made


def _recordable_check(record: Any) -> CheckRecord:
    seen = record
    if not isinstance(record, CheckRecord):
        raise _not_recordable("checks", record)
    took = duration(record.took_seconds, maximum=_MAX_DELAY_SECONDS)
    sound = (
        isinstance(seen.passed, bool)
        and isinstance(seen.blocking, bool)
        and isinstance(seen.severity, Severity)
        and isinstance(seen.started_at, datetime)
        and all(isinstance(one, str) and is_storable(one) for one in (seen.check, seen.asset, seen.partition_key))
        and all(map(_is_id, (record.step_id, record.attempt)))
        and (record.token is None or _is_id(record.token))
    )
    if not sound or took is None:
        raise _not_recordable("checks", record)
    return replace(
        record,
        description=clean_text(plain_text(record.description), limit=_MAX_MESSAGE),
        error=None if record.error is None else clean_text(plain_text(record.error), limit=ERROR_LIMIT),
        metadata=clean_metadata(record.metadata) if record.metadata != {} else {},
        took_seconds=took,
    )


def _reason(reason: object) -> str:
    return clean_text(plain_text(reason), limit=_MAX_REASON)


def _is_input(one: Any) -> bool:
    if not isinstance(one, InputVersion):
        return False
    parameter, _asset, _partition, step_id = cast("tuple[object, ...]", one)
    return isinstance(parameter, str) and is_storable(parameter) and _is_id(step_id)


def _is_kept(text: object) -> bool:
    return isinstance(text, str) and is_storable(text)


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < _BIGINT


def _not_recordable(name: str, value: object) -> SerializationError:
    return SerializationError(
        f"What this attempt said of its end cannot be recorded: {name}={shown(value)}",
        path=name,
        type_name=type_name(value),
        remedy=_COMPLETION_REMEDY,
    )
