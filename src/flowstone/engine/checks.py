"""The skins that checks add to the onion around a step: blocking ones before storing, the others after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from flowstone.core.check import Check
from flowstone.core.check_set import CheckSet
from flowstone.core.context import AssetContext
from flowstone.core.definition import write_partition
from flowstone.core.outcome import AttemptOutcome, Failed, Succeeded
from flowstone.core.output import is_read_once
from flowstone.core.text import clean_text, error_line
from flowstone.engine.check_runner import CheckRunner, Subject, Verdict
from flowstone.engine.failures import failure, user_traceback
from flowstone.engine.hooks import ValueStore
from flowstone.errors import CheckFailedError, FailedCheck, StepCancelledError
from flowstone.protocols import Hook, StepCall

_SHOWN = 1_000  # characters of what a check found, in the error of its step


class ChecksHook:
    """The skin that runs the blocking checks of an asset before its value is stored, or the others after.

    Args:
        runner: runs them.
        checks: which ones.
        values: where values are stored, to take one back when an interrupt comes after storing.
    """

    def __init__(self, runner: CheckRunner, checks: Sequence[Check], values: ValueStore) -> None:
        self._runner = runner
        self._checks = tuple(checks)
        self._values = values
        self._blocking = any(check.blocking for check in checks)

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        """Run the inner step and look at its value."""
        began = time.monotonic()
        outcome = step(context)
        if not isinstance(outcome, Succeeded) or is_read_once(outcome.value):
            return outcome  # no value, or one that looking at would use up and storing refuses
        subject = _subject(context, outcome, time.monotonic() - began)
        if self._blocking:
            return self._guard(context, subject, outcome)
        return self._observe(context, subject, outcome)

    def _guard(self, context: AssetContext, subject: Subject, outcome: Succeeded) -> AttemptOutcome:
        blocked: list[Verdict] = []
        try:
            for check in self._checks:
                context.cancellation.raise_if_cancelled(context.asset.name)
                blocked.append(self._runner.run(check, subject, outcome.value))
                context.check_records.append(blocked[-1].record)
                if not blocked[-1].record.blocks:
                    blocked.pop()
            return refusal(subject, blocked) if blocked else outcome
        finally:
            blocked.clear()  # errors, whose tracebacks hold this frame

    def _observe(self, context: AssetContext, subject: Subject, outcome: Succeeded) -> AttemptOutcome:
        try:
            for check in self._checks:
                if context.cancellation.is_cancelled:
                    break  # too late to stop the step: its value is stored and is committed
                context.check_records.append(self._runner.run(check, subject, outcome.value).record)
        except StepCancelledError:
            pass
        except BaseException:
            with suppress(Exception):
                self._values.manager(context.asset, context.run.details.io).discard(outcome.stored)
            raise
        return outcome


class CheckHooks:
    """The skins that the checks of each asset add to the onion around its steps.

    Args:
        declared: the checks of the app.
        runner: runs them.
        values: where values are stored.
    """

    def __init__(self, declared: CheckSet, runner: CheckRunner, values: ValueStore) -> None:
        self.declared = declared
        self.runner = runner
        self._values = values

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets that have checks."""
        return self.declared.assets

    def before_storing(self, asset: str) -> list[Hook]:
        """Return what looks at a value while it can still be refused."""
        return self._hooks([check for check in self.declared.of(asset) if check.blocking])

    def after_storing(self, asset: str) -> list[Hook]:
        """Return what looks at a value that will be published whatever it finds."""
        return self._hooks([check for check in self.declared.of(asset) if not check.blocking])

    def _hooks(self, checks: Sequence[Check]) -> list[Hook]:
        return [ChecksHook(self.runner, checks, self._values)] if checks else []


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


def _subject(context: AssetContext, outcome: Succeeded, elapsed: float) -> Subject:
    return Subject(
        asset=context.asset,
        key=context.key,
        run_id=context.run_id,
        step_id=int(context.step_id),
        attempt=context.attempt,
        token=context.token,
        metadata=context.metadata | outcome.stored.metadata,
        started_at=context.started_at + timedelta(seconds=elapsed),
        cancellation=context.cancellation,
        substitutes=context.run.details.resources,
    )


def _found(verdict: Verdict) -> str:
    """Say on one line what a check found."""
    record = verdict.record
    said = record.description
    if verdict.exception is not None:
        said = f"it raised {error_line(record.error) or type(verdict.exception).__name__}"
    elif not said and verdict.check.description:
        said = f"expected: {verdict.check.description}"
    facts = ", ".join(f"{name}={value!r}" for name, value in record.metadata.items())
    return clean_text(" ".join("; ".join(filter(None, (said, facts))).split()), limit=_SHOWN)
