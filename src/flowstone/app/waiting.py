"""What holds work up: for `why`, for the status of a job, and for whoever waits for an end."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from flowstone.core.approval import ApprovalState
from flowstone.core.causes import ended_input, readable_reason
from flowstone.core.clean import error_line
from flowstone.core.state import State
from flowstone.core.step import StepRecord, Target
from flowstone.core.zones import utc_text
from flowstone.errors import DatabaseUnavailableError
from flowstone.protocols import Store

_CHECK_SECONDS = 2.0
_REPEAT_SECONDS = 300.0
_SOON_SECONDS = 600.0
_DEEPEST = 8
_DEEPEST_FAILURE = 1_000
_MOVES = (State.RUNNING, State.CANCELLING)
_RESTS = (State.PENDING, State.RETRYING, State.SCHEDULED, State.WAITING)
_STARTS = "it is about to start"
_NUMBERS = re.compile(r"\d+")

log = logging.getLogger("flowstone")


class Waiting:
    """Says what steps and runs wait for; nothing for what runs or is over.

    Args:
        store: where they are recorded.
        describe: returns an asset and its encoded partition as people write them.
        assets: names of the assets that are declared.
    """

    def __init__(self, store: Store, describe: Callable[[str, str], str], assets: Collection[str] = ()) -> None:
        self._store = store
        self._describe = describe
        self._assets = assets

    def of_step(self, record: StepRecord) -> list[str]:
        """Return what a step waits for, the most important first; empty when it runs or is over."""
        if record.state.is_terminal or record.state in _MOVES:
            return []
        return [reason for reason in self._reasons(record, 0) if reason != _STARTS]

    def root_of(self, record: StepRecord) -> StepRecord | None:
        """Return the step that is why another one never started: the first one upstream that ended by itself.

        None when the step started, or the steps in between are not recorded any more.
        """
        step: StepRecord | None = record
        for _ in range(_DEEPEST_FAILURE):
            ended = ended_input(step.reason, self._assets) if step is not None else None
            if step is None or ended is None:
                break
            newest = self._store.catalog.history(*ended[0], limit=1)
            step = newest[0] if newest else None
        return None if step is None or step.id == record.id else step

    def reason_of(self, record: StepRecord) -> str:
        """Return what is recorded as the reason of a state, for people."""
        return readable_reason(record.reason, self._assets, self._describe)

    def of_target(self, target: Target) -> list[str]:
        """Return what the newest step of a target waits for; empty when there is none."""
        newest = self._store.catalog.history(*target, limit=1)
        if newest and not newest[0].state.is_terminal:
            return self.of_step(newest[0])
        ranges = self._store.ranges
        unstarted = ranges.waiting(target) if ranges is not None else None
        return [unstarted.explain()] if unstarted is not None else []

    def of_run(self, run_id: str) -> list[str]:
        """Return what a run waits for: approvals, and while nothing of it runs, what holds up its first step."""
        catalog = self._store.catalog
        found: list[str] = []
        for step in catalog.steps(run_id, state=State.AWAITING_APPROVAL, limit=3):
            found += self._about(step, self.of_step(step))
        record = catalog.run(run_id)
        if found or record is None or any(record.counts.get(state) for state in _MOVES):
            return found
        for state in _RESTS:
            if not record.counts.get(state):
                continue
            for step in catalog.steps(run_id, state=state, limit=1):
                reasons = self.of_step(step)
                if reasons:
                    return self._about(step, reasons)
        return []

    def _about(self, step: StepRecord, reasons: Sequence[str]) -> list[str]:
        """Name the step, which in a run is one of many."""
        if not reasons:
            return []
        return [f"{self._describe(step.asset, step.partition_key)}: {reasons[0]}", *reasons[1:]]

    def notice_of_step(self, step_id: int) -> WaitNotice:
        """Return what logs while a caller waits for a step."""

        def read() -> list[str]:
            record = self._store.catalog.step(step_id)
            return [] if record is None else self.of_step(record)

        record = self._store.catalog.step(step_id)
        name = "" if record is None else f" ({self._describe(record.asset, record.partition_key)})"
        return WaitNotice(f"Step {step_id}{name}", read)

    def _reasons(self, record: StepRecord, depth: int) -> list[str]:
        if record.state is State.AWAITING_APPROVAL:
            return self._approval(record)
        control = self._store.control
        diagnosis = control.diagnosis((record.asset, record.partition_key)) if control is not None else None
        if diagnosis is not None and diagnosis.step_id == record.id and diagnosis.lost_holder is not None:
            return diagnosis.explain(datetime.now(UTC))
        if diagnosis is None or diagnosis.step_id != record.id or not diagnosis.durable:
            return _recorded(record)
        if record.state is State.WAITING and diagnosis.open_inputs:
            return [self._input((asset, key), state, depth) for asset, key, state in diagnosis.open_inputs]
        return diagnosis.explain(datetime.now(UTC))

    def _input(self, target: Target, state: State, depth: int) -> str:
        """Return what an input that is not there yet does, and if it does nothing, why."""
        text = f"input {self._describe(*target)} is {state.value}"
        if depth >= _DEEPEST or state in _MOVES or state.is_terminal:
            return text
        newest = self._store.catalog.history(*target, limit=1)
        causes = self._reasons(newest[0], depth + 1) if newest and newest[0].state is state else []
        causes = [cause for cause in causes if cause != _STARTS]
        return f"{text}: {causes[0]}" if causes else text

    def _approval(self, record: StepRecord) -> list[str]:
        requests = self._store.approvals.of_step(record.id)
        return [one.waits() for one in requests if one.state is ApprovalState.PENDING]


class WaitNotice:
    """Logs what a caller waits for: once at first, again when that changes, now and then otherwise.

    Args:
        what: who waits, for people.
        read: returns what for.
    """

    def __init__(self, what: str, read: Callable[[], Sequence[str]]) -> None:
        self._what = what
        self._read = read
        self._due = time.monotonic() + _CHECK_SECONDS
        self._logged = ""
        self._logged_at = 0.0
        self.reasons: tuple[str, ...] = ()
        """What is waited for, as of the last check."""

    def __call__(self) -> tuple[str, ...]:
        """Check, at most every two seconds, and log; return what is waited for."""
        now = time.monotonic()
        if now < self._due:
            return self.reasons
        self._due = now + _CHECK_SECONDS
        try:
            self.reasons = tuple(self._read())
        except DatabaseUnavailableError:
            return self.reasons  # whoever waits says so, or gives up
        # numbers that move, such as the length of a queue, are no news
        kind = _NUMBERS.sub("", " ".join(self.reasons))
        if self.reasons and (kind != self._logged or now - self._logged_at > _REPEAT_SECONDS):
            self._logged, self._logged_at = kind, now
            log.warning("%s waits: %s", self._what, "; ".join(self.reasons))
        return self.reasons


def _recorded(record: StepRecord) -> list[str]:
    """Return what a step of this process waits for, as far as it is recorded."""
    found = [record.reason] if record.reason else []
    if record.state is State.WAITING and record.waiting_on:
        inputs = "1 input" if record.waiting_on == 1 else f"{record.waiting_on} inputs"
        found.append(f"{inputs} of its run are not there yet")
    if record.state is State.RETRYING and record.error:
        found.append(f"attempt {record.attempt} of {record.max_attempts} failed: {error_line(record.error)}")
    if record.scheduled_at is not None and record.state in (State.SCHEDULED, State.RETRYING):
        left = (record.scheduled_at - datetime.now(UTC)).total_seconds()
        what = "its next attempt is due" if record.state is State.RETRYING else "it starts"
        at = utc_text(record.scheduled_at)
        found.append(f"{what} at {at}" + (f", in {left:.0f} s" if 0 < left < _SOON_SECONDS else ""))
    return found
