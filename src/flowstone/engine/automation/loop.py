"""The loop of a node that evaluates automations; any number of nodes may run one, and none leads.

`Deadline` is the cancellation token of one evaluation, which sets itself when its time is up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from flowstone.core.automation.record import AutomationId, TakenAutomation
from flowstone.core.context import CancellationToken
from flowstone.engine.automation.evaluation import Evaluation
from flowstone.protocols import AutomationStore, Evaluator


class Deadline(CancellationToken):
    """Asks for a stop after a time, by this process's clock; it needs no thread for that.

    Args:
        seconds: after which it is set.

    Example:
        >>> Deadline(3600).is_cancelled, Deadline(0).is_cancelled
        (False, True)
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._at = time.monotonic() + seconds

    @property
    def is_cancelled(self) -> bool:
        """Whether time is up, or a stop was requested."""
        if time.monotonic() >= self._at:
            self.cancel("timeout")
        return super().is_cancelled

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a stop is asked for or time is up, at most `timeout_seconds`; return whether it is."""
        left = max(0.0, self._at - time.monotonic())
        super().wait(min(timeout_seconds, left))
        return self.is_cancelled

    def raise_if_cancelled(self, asset: str = "the sensor") -> None:
        """Raise StepCancelledError when time is up or a stop was asked for."""
        if self.is_cancelled:
            super().raise_if_cancelled(asset)


log = logging.getLogger("flowstone.automation")

_POLL_SECONDS = 1.0
_MIN_WAIT = 0.01
_SLACK = timedelta(seconds=0.05)


class AutomationLoop:
    """Takes what is due, evaluates it in threads of its own, and records what came of it.

    The store's clock says what is due; the clock of this node is not consulted at all.

    Args:
        evaluators: the automations of the app.
        store: whose clock and leases decide.
        width: most evaluations at once here.
        lease_seconds: after how long without a sign of this node others may take over what it evaluates.
        grace_seconds: how long evaluations at work may still conclude when this stops.
        poll_seconds: longest time between two polls.
        by_hand_only: evaluate only what people ask for (`run_now`), nothing by itself.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> loop = AutomationLoop([], MemoryStore().automations)
        >>> loop.start()  # nothing is declared, so nothing is started
        >>> loop.stop()
        True
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        store: AutomationStore,
        *,
        width: int = 3,
        lease_seconds: float = 30.0,
        grace_seconds: float = 5.0,
        poll_seconds: float = _POLL_SECONDS,
        by_hand_only: bool = False,
    ) -> None:
        self._evaluators: Mapping[AutomationId, Evaluator] = {one.id: one for one in evaluators}
        self._store = store
        self._width = width
        self._lease = lease_seconds
        self._grace = grace_seconds
        self._poll = poll_seconds
        self._by_hand_only = by_hand_only
        self._at_work: dict[AutomationId, Evaluation] = {}
        self._abandoned: dict[AutomationId, Evaluation] = {}
        self._due: dict[AutomationId, datetime] = {}
        self._clock: tuple[datetime, float] | None = None
        self._declared = self._failing = False
        self._renewed = time.monotonic()
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowstone-automation", daemon=True)

    def start(self) -> None:
        """Start evaluating, in a thread; without automations nothing is started and nothing asked."""
        if self._evaluators:
            self._thread.start()

    def close(self) -> None:
        """Begin nothing more; what is at work goes on until `stop`."""
        self._stopped.set()
        self._wake.set()

    def stop(self) -> bool:
        """Begin nothing more, let what is at work conclude, give the rest back.

        Returns:
            Whether every thread has ended.
        """
        self.close()
        if not self._thread.ident:
            return True
        self._thread.join(self._grace)
        deadline = time.monotonic() + self._grace
        at_work = list(self._at_work.values())
        for one in at_work:
            one.stop()
        left = [one for one in at_work if not one.join(deadline - time.monotonic())]
        for one in left:
            self._release(one)
        return not left and not any(one.alive for one in self._abandoned.values())

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                self.poll()
            except Exception as error:  # noqa: BLE001 - background work goes on whatever happens
                if not self._failing:
                    log.warning("Automations cannot be evaluated for now: %s", error)
                self._failing = True
                self._wake.wait(self._poll)
                continue
            if self._failing:
                log.info("Automations are evaluated again.")
            self._failing = False
            self._wake.wait(self._pause())

    def poll(self) -> int:
        """Declare what is new, give up what hangs, start what is due; return how many were started."""
        if not self._declared:
            paused = {one.id for one in self._evaluators.values() if one.starts_paused}
            self._store.declare(list(self._evaluators), paused=paused)
            self._declared = True
        self._collect()
        self._renew()
        room = self._width - len(self._at_work)
        idle = [one for one in self._evaluators if one not in self._at_work and one not in self._abandoned]
        if room <= 0 or not idle:
            return 0
        begun = self._store.take(idle, lease_seconds=self._lease, limit=room, by_hand_only=self._by_hand_only)
        for taken in begun:
            self._begin(taken)
        return len(begun)

    def _collect(self) -> None:
        """Take note of what has ended, and give up what hangs."""
        self._abandoned = {one: left for one, left in self._abandoned.items() if left.alive}
        for automation, one in list(self._at_work.items()):
            if not one.alive:
                del self._at_work[automation]
                if one.due_at is not None:
                    self._due[automation] = one.due_at
            elif one.seconds_left <= 0:
                # not started again here while its thread lives; other nodes may
                del self._at_work[automation]
                self._abandoned[automation] = one
                log.warning("%s takes too long and is given up; its thread is left to itself.", one)
                one.give_up()

    def _renew(self) -> None:
        """Keep what is at work on a lease that is short, so that a lost node is soon replaced."""
        now = time.monotonic()
        if self._at_work and now - self._renewed > self._lease / 3:
            self._store.renew([one.taken for one in self._at_work.values()])
            self._renewed = now

    def _begin(self, taken: TakenAutomation) -> None:
        automation = taken.record.id
        self._clock = (taken.now, time.monotonic())
        self._due.pop(automation, None)
        one = Evaluation(self._evaluators[automation], taken, self._store, self._wake.set)
        self._at_work[automation] = one
        one.start()

    def _pause(self) -> float:
        """Return how long to wait: until the next instant that is known here, but never long."""
        waits = [self._poll, self._lease / 3, *(one.seconds_left for one in self._at_work.values())]
        if self._clock is not None:
            at, then = self._clock
            now = at + timedelta(seconds=time.monotonic() - then)
            # what was due a moment ago and could not be taken, others have
            self._due = {automation: due for automation, due in self._due.items() if due > now - _SLACK}
            if len(self._at_work) < self._width:
                waits += [(due - now).total_seconds() for due in self._due.values()]
        return max(_MIN_WAIT, min(waits))

    def _release(self, one: Evaluation) -> None:
        log.warning("%s did not conclude in time and is left to other nodes.", one)
        try:
            one.release()
        except Exception as error:  # noqa: BLE001 - its lease runs out instead
            log.warning("It could not be released: %s", error)
