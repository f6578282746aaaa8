"""Checks around storing the value of a step: blocking ones before, the others after.

`CheckRunner` calls one check, and whatever that does becomes a record; `AssetChecks` goes round an asset's value,
`StepChecks` has these for the whole app.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from flowstone import telemetry
from flowstone.core.asset import Asset
from flowstone.core.check import Check, CheckContext, CheckResult, CheckSet, as_bool
from flowstone.core.clean import clean_metadata, clean_text, error_line
from flowstone.core.context import AssetContext, CancellationToken, Resources
from flowstone.core.definition import write_partition
from flowstone.core.outcome import AttemptOutcome, Failed, Succeeded
from flowstone.core.output import JsonValue, StoredOutput, is_read_once
from flowstone.core.partitions import PartitionKey, decode_partition
from flowstone.core.step import CheckRecord, Severity
from flowstone.engine.call import CoroutineRunner, LimitReachedError, run_in_thread
from flowstone.engine.failures import failure, user_traceback
from flowstone.engine.resources import ResourcePool
from flowstone.engine.values import ValueStore
from flowstone.errors import CheckFailedError, CheckTimeoutError, FailedCheck, StepCancelledError

log = logging.getLogger("flowstone.checks")

_MAX_DESCRIPTION = 10_000
_SHOWN = 1_000  # characters of what a check found, in the error of its step


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The version whose value is checked, and when the check began.

    Args:
        asset: its asset.
        key: encoded partition.
        run_id: run of the step that computed it.
        step_id: that step.
        attempt: attempt of that step.
        token: fencing token of the attempt; None when the version is committed already.
        metadata: facts recorded with the output so far.
        cancellation: signals when to stop.
        started_at: the moment at which `Subject` was made, on the clock that records are measured by.
        began: the same moment by `time.monotonic`.
        substitutes: resources that stand in for others in the run of the step, by required name.
    """

    asset: Asset
    key: PartitionKey
    run_id: str
    step_id: int
    attempt: int
    metadata: Mapping[str, JsonValue]
    started_at: datetime
    token: int | None = None
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    began: float = field(default_factory=time.monotonic)
    substitutes: Mapping[str, str] = field(default_factory=dict)

    def now(self) -> datetime:
        """Return the time on the same clock."""
        return self.started_at + timedelta(seconds=time.monotonic() - self.began)


class Verdict(NamedTuple):
    """What came of one check: its record, and what it raised, if anything."""

    check: Check
    record: CheckRecord
    exception: BaseException | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An answer of a check, cleaned."""

    passed: bool
    severity: Severity | None = None
    description: str = ""
    facts: dict[str, JsonValue] = field(default_factory=dict)

    def record(
        self,
        check: Check,
        subject: Subject,
        started_at: datetime,
        *,
        took_seconds: float,
        exception: BaseException | None,
    ) -> CheckRecord:
        return CheckRecord(
            check=check.name,
            asset=subject.asset.name,
            partition_key=subject.key,
            step_id=subject.step_id,
            attempt=subject.attempt,
            token=subject.token,
            passed=self.passed,
            severity=self.severity or check.severity,
            blocking=check.blocking,
            description=self.description,
            error=None if exception is None else failure(exception, None).error,
            metadata=self.facts,
            started_at=started_at,
            took_seconds=took_seconds,
        )


class CheckRunner:
    """Calls checks and turns whatever they do into records.

    Args:
        resources: what checks may require.
        coroutines: where `async def` checks run.
    """

    def __init__(self, resources: ResourcePool, coroutines: CoroutineRunner) -> None:
        self._resources = resources
        self._coroutines = coroutines

    def run(self, check: Check, subject: Subject, value: object) -> Verdict:
        """Run one check.

        Args:
            check: the check.
            subject: what the value is.
            value: the value itself.

        Raises:
            KeyboardInterrupt: a person at the terminal, or the check.
            StepCancelledError: it stopped because the step was cancelled.
        """
        started_at, started = subject.now(), time.monotonic()
        exception: BaseException | None = None
        found = _Found(passed=False)
        try:
            answer = self._call(check, self._context(check, subject), value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, StepCancelledError) and subject.cancellation.is_cancelled:
                raise
            exception = error
        else:
            try:
                found = _read(check, answer)
            except Exception as error:  # noqa: BLE001 - a nonsensical answer is a check that errored
                exception = error.with_traceback(None)  # it is about the answer, our own lines say nothing
        try:
            record = found.record(
                check, subject, started_at, took_seconds=time.monotonic() - started, exception=exception
            )
            _log_failure(record, subject)
            return Verdict(check, record, exception)
        finally:
            del exception  # its traceback holds this frame, and so the value

    def _context(self, check: Check, subject: Subject) -> CheckContext:
        substitutes = subject.substitutes
        opened = {
            name: self._resources.get(substitutes.get(name, name))
            for name in (*subject.asset.requires, *check.requires)
        }
        return CheckContext(
            asset=subject.asset,
            check=check.name,
            partition=decode_partition(subject.key),
            key=subject.key,
            run_id=subject.run_id,
            step_id=subject.step_id,
            attempt=subject.attempt,
            resources=Resources(opened, check.name, kind="check"),
            metadata=dict(subject.metadata),
            cancellation=subject.cancellation,
        )

    def _call(self, check: Check, context: CheckContext, value: object) -> object:
        leading = (context,) if check.takes_context else ()
        arguments = {check.parameter: value} if check.parameter is not None else {}
        function = partial(check.function, *leading, **arguments)
        limit = check.timeout_seconds
        late = partial(CheckTimeoutError, check.asset, check.name, limit or 0.0)
        if check.is_async:
            return self._await(check, function, late)
        if limit is None:
            return function()
        return run_in_thread(function, name=f"flowstone-{check.name}", timeout_seconds=limit, late=late)

    def _await(self, check: Check, function: partial[object], late: Callable[[], CheckTimeoutError]) -> object:
        try:
            return self._coroutines.run(
                function(),  # type: ignore[arg-type]
                timeout_seconds=check.timeout_seconds,
                shared=bool(check.requires),
                name=f"flowstone-{check.name}",
            )
        except LimitReachedError:
            raise late() from None


def _read(check: Check, answer: object) -> _Found:
    if isinstance(answer, CheckResult):
        return _Found(
            passed=answer.passed,
            severity=Severity(answer.severity) if answer.severity is not None else None,
            description=clean_text(str(answer.description), limit=_MAX_DESCRIPTION),
            facts=clean_metadata(answer.metadata),
        )
    passed = as_bool(answer)
    if passed is None:
        raise TypeError(
            f"Check {check.name!r} ({check.where}) returned a value of type {type(answer).__qualname__!r}. "
            "Return True, False or a CheckResult."
        )
    return _Found(passed=passed)


def _log_failure(record: CheckRecord, subject: Subject) -> None:
    if telemetry.listening():
        about = {
            "asset": record.asset,
            "partition": record.partition_key,
            "check": record.check,
            "passed": record.passed,
            "severity": record.severity.value,
            "blocking": record.blocking,
            "step_id": str(record.step_id),
        }
        telemetry.emit("check.stop", {"duration_seconds": record.took_seconds}, about)
    if not record.passed and not record.blocks:  # what blocks is logged by its step
        why = record.description or error_line(record.error)
        partition = write_partition(subject.asset.partitions, record.partition_key)
        target = f"{record.asset} [{partition}]" if partition else record.asset
        log.warning("Check %s of %s failed (%s): %s", record.check, target, record.severity.value, why[:_SHOWN])


class AssetChecks:
    """The checks of one asset as its steps run them: blocking ones before its value is stored, the others after.

    Args:
        runner: runs them.
        checks: which ones.
        values: where values are stored, to take one back when an interrupt comes after storing.
    """

    def __init__(self, runner: CheckRunner, checks: Sequence[Check], values: ValueStore) -> None:
        self._runner = runner
        self._blocking = tuple([check for check in checks if check.blocking])
        self._others = tuple([check for check in checks if not check.blocking])
        self._values = values

    def store(
        self, context: AssetContext, value: object, records: list[CheckRecord], *, began: float
    ) -> AttemptOutcome:
        """Store a value that no blocking check refuses, and have the other checks look at it.

        Args:
            context: the step.
            value: what its function returned.
            records: what the checks find is put there.
            began: when its inputs were about to be loaded, by `time.monotonic`.

        Returns:
            What came of the step: a value that was refused is a failure.
        """
        if self._blocking and not is_read_once(value):  # what looking at would use up is refused by storing
            refused = self._guard(context, _subject(context, {}, began), value, records)
            if refused is not None:
                return refused
        stored = self._values.store(context, value)
        if self._others:
            self._observe(context, _subject(context, stored.metadata, began), value, stored, records)
        return Succeeded(stored, value)

    def _guard(
        self, context: AssetContext, subject: Subject, value: object, records: list[CheckRecord]
    ) -> Failed | None:
        blocked: list[Verdict] = []
        try:
            for check in self._blocking:
                context.cancellation.raise_if_cancelled(context.asset.name)
                blocked.append(self._runner.run(check, subject, value))
                records.append(blocked[-1].record)
                if not blocked[-1].record.blocks:
                    blocked.pop()
            return refusal(subject, blocked) if blocked else None
        finally:
            blocked.clear()  # errors, whose tracebacks hold this frame

    def _observe(
        self,
        context: AssetContext,
        subject: Subject,
        value: object,
        stored: StoredOutput,
        records: list[CheckRecord],
    ) -> None:
        try:
            for check in self._others:
                if context.cancellation.is_cancelled:
                    break  # too late to stop the step: its value is stored and is committed
                records.append(self._runner.run(check, subject, value).record)
        except StepCancelledError:
            pass
        except BaseException:
            with suppress(Exception):
                self._values.manager(context.asset, context.run.details.io).discard(stored)
            raise


class StepChecks:
    """The checks of the app, for the steps of each asset.

    Args:
        declared: the checks.
        runner: runs them.
        values: where values are stored.
    """

    def __init__(self, declared: CheckSet, runner: CheckRunner, values: ValueStore) -> None:
        self.declared = declared
        self.runner = runner
        self._values = values

    def of(self, asset: str) -> AssetChecks | None:
        """Return the checks around the steps of an asset; None when it has none."""
        checks = self.declared.of(asset)
        return AssetChecks(self.runner, checks, self._values) if checks else None


def refusal(subject: Subject, blocked: Sequence[Verdict]) -> Failed:
    """Return the failure of a step whose value was refused.

    Recomputing the same data changes nothing, so there is another attempt only when every check that
    blocks was declared with `retry=True`.
    """
    label = write_partition(subject.asset.partitions, subject.key)
    found = [FailedCheck(verdict.check.name, _found(verdict)) for verdict in blocked]
    error = CheckFailedError(subject.asset.name, label, found)
    cause = next((verdict.exception for verdict in blocked if verdict.exception is not None), None)
    if cause is not None:
        error.__cause__ = cause.with_traceback(user_traceback(cause.__traceback__))
    return replace(failure(error, None), retryable=all(verdict.check.retry for verdict in blocked))


def _subject(context: AssetContext, metadata: dict[str, JsonValue], began: float) -> Subject:
    return Subject(
        asset=context.asset,
        key=context.key,
        run_id=context.run_id,
        step_id=context.step_id,
        attempt=context.attempt,
        token=context.token,
        metadata=context.metadata | metadata,
        started_at=context.started_at + timedelta(seconds=time.monotonic() - began),
        cancellation=context.cancellation,
        substitutes=context.run.details.resources,
    )


def _found(verdict: Verdict) -> str:
    """Say on one line what a check found."""
    record = verdict.record
    described = record.description
    if verdict.exception is not None:
        described = f"it raised {error_line(record.error) or type(verdict.exception).__name__}"
    elif not described and verdict.check.description:
        described = f"expected: {verdict.check.description}"
    facts = ", ".join(f"{name}={value!r}" for name, value in record.metadata.items())
    return clean_text(" ".join("; ".join(filter(None, (described, facts))).split()), limit=_SHOWN)
