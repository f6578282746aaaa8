"""One evaluation of an automation: in a thread of its own, to its conclusion or to its failure."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta

from flowstone import telemetry
from flowstone.core.automation.record import AutomationId, Conclusion, NewTick, TakenAutomation, TickState
from flowstone.core.retry import RetryPolicy
from flowstone.core.text import clean_text
from flowstone.engine.failures import failure
from flowstone.errors import FlowStoneError
from flowstone.protocols import AutomationStore, Evaluator

log = logging.getLogger("flowstone.automation")

_BACKOFF = RetryPolicy(backoff_seconds=5.0, factor=2.0, max_backoff_seconds=600.0, jitter=0.2)
_MICROSECOND = timedelta(microseconds=1)


class Evaluation:
    """The right to evaluate an automation, put to use.

    Args:
        evaluator: what to evaluate.
        taken: the right.
        store: where conclusions go.
        on_end: called when the thread has ended.
    """

    def __init__(
        self, evaluator: Evaluator, taken: TakenAutomation, store: AutomationStore, on_end: Callable[[], None]
    ) -> None:
        self._evaluator = evaluator
        self._taken = taken
        self._store = store
        self._on_end = on_end
        self._started = self._renewed = time.monotonic()
        self._latest: Conclusion | None = None
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._ended = threading.Event()
        # daemon: what hangs in user code must not keep the process alive
        self._thread = threading.Thread(target=self._run, name=f"flowstone-{self.id.name[:40]}", daemon=True)

    @property
    def taken(self) -> TakenAutomation:
        """The right."""
        return self._taken

    @property
    def id(self) -> AutomationId:
        """What is evaluated."""
        return self._taken.record.id

    @property
    def alive(self) -> bool:
        """Whether it goes on, given up or not."""
        return not self._ended.is_set()

    @property
    def due_at(self) -> datetime | None:
        """When it said to evaluate next."""
        return self._latest.due_at if self._latest is not None else None

    @property
    def seconds_left(self) -> float:
        """How long it may go on without concluding anything."""
        return self._renewed + self._evaluator.timeout_seconds - time.monotonic()

    def start(self) -> None:
        """Start its thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let it conclude what it is at, and begin nothing more."""
        self._stopping.set()

    def join(self, seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def release(self) -> None:
        """Leave it to others: nothing that this thread concludes later counts."""
        self._given_up.set()
        self._store.release(self._taken)

    def give_up(self) -> None:
        """Record that it took too long; nothing that its thread concludes later counts."""
        self._given_up.set()
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the one way to see it
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        limit = f"{self._evaluator.timeout_seconds:g} s"
        self._conclude_failure(f"The evaluation took longer than {limit} and was given up. It was here:\n{where}")

    def _run(self) -> None:
        try:
            self._evaluate()
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is recorded
            self._fail(error)
        finally:
            if telemetry.listening():
                seconds = {"duration_seconds": time.monotonic() - self._started}
                telemetry.emit("automation.stop", seconds, {"kind": str(self.id.kind), "name": self.id.name})
            self._ended.set()
            self._on_end()

    def _evaluate(self) -> None:
        for conclusion in self._evaluator.evaluate(self._taken):
            accepted = self._store.conclude(self._taken, conclusion).accepted
            self._latest, self._renewed = conclusion, time.monotonic()
            if not accepted:
                if not self._given_up.is_set():
                    log.info("%s: its right to evaluate ended meanwhile; nothing of this was recorded.", self)
                return
            if not conclusion.goes_on:
                return
            if self._stopping.is_set():
                self._store.release(self._taken)
                return
        raise FlowStoneError(f"The evaluation of {self} ended without a last conclusion (goes_on=False).")

    def _fail(self, error: BaseException) -> None:
        if self._given_up.is_set():
            return
        log.warning("%s failed: %s: %s", self, type(error).__name__, clean_text(str(error), limit=500))
        try:
            self._conclude_failure(failure(error, None).error)
        except Exception as refused:  # noqa: BLE001 - the lease runs out, and another worker tries again
            log.warning("The failure of %s could not be recorded: %s", self, refused)

    def _conclude_failure(self, error: str) -> None:
        """Record a failed tick; the cursor stays, and it is tried again after a pause."""
        record = self._taken.record
        elapsed = time.monotonic() - self._started
        at = self._taken.now + timedelta(seconds=elapsed)
        if not at.microsecond:
            at += _MICROSECOND  # never the instant of a schedule, which this tick would stand in the way of
        failures, due = record.failures, record.due_at
        if not self._taken.by_hand:
            failures += 1
            chance = random.random()  # noqa: S311 - spreads retries
            due = at + timedelta(seconds=_BACKOFF.delay_seconds(failures, chance=chance))
        tick = NewTick(at=at, state=TickState.FAILED, error=clean_text(error), took_seconds=elapsed)
        cursor = self._latest.cursor if self._latest is not None else record.cursor
        self._store.conclude(self._taken, Conclusion(ticks=[tick], cursor=cursor, due_at=due, failures=failures))

    def __str__(self) -> str:
        return f"{self.id.kind} {self.id.name!r}"
