"""The checks around storing the value of a step: blocking ones before, the others after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from flowstone.core.check import Check
from flowstone.core.check_record import CheckRecord
from flowstone.core.check_set import CheckSet
from flowstone.core.context import AssetContext
from flowstone.core.definition import write_partition
from flowstone.core.outcome import AttemptOutcome, Failed, Succeeded
from flowstone.core.output import JsonValue, StoredOutput, is_read_once
from flowstone.core.text import clean_text, error_line
from flowstone.engine.check_runner import CheckRunner, Subject, Verdict
from flowstone.engine.failures import failure, user_traceback
from flowstone.engine.hooks import ValueStore
from flowstone.errors import CheckFailedError, FailedCheck, StepCancelledError

_SHOWN = 1_000  # characters of what a check found, in the error of its step


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
