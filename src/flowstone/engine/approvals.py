"""Announcing to people that a decision is needed, and waiting for it in place."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Sequence

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.forks import renew_after_fork
from flowstone.core.state import State
from flowstone.errors import ConfigurationError, command
from flowstone.protocols import ApprovalStore, Store

log = logging.getLogger("flowstone.approvals")

type Notifier = Callable[[Approval], object]
"""Called with a request when it was made, and again when it was decided; what it returns does not matter."""

_TIMEOUT_SECONDS = 10.0
_CHECK_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 300.0
_POLL_SECONDS = 0.2


class ApprovalNotices:
    """Calls the notifiers of an app, each state of a request at least once in the whole fleet.

    A notifier runs in a thread of its own and is waited for only so long: one that hangs or raises is tried
    again, less and less often, and holds up nothing else.

    Args:
        store: knows what was not announced yet.
        notifiers: what to call.
        timeout_seconds: how long one call may take.

    Raises:
        ConfigurationError: a notifier cannot be called.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> ApprovalNotices(MemoryStore().approvals, [print]).notify()
        0
    """

    def __init__(
        self, store: ApprovalStore, notifiers: Sequence[Notifier], *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        given: Sequence[object] = notifiers
        for notifier in given:
            if not callable(notifier) or inspect.iscoroutinefunction(notifier):
                raise ConfigurationError(
                    f"notifiers=[{notifier!r}]: give plain functions of an approval; asyncio.run calls coroutines."
                )
        self._store = store
        self._notifiers = tuple(notifiers)
        self._timeout = timeout_seconds
        self._failures: dict[int, int] = {}
        self._begin()
        renew_after_fork(self, ApprovalNotices._begin)

    def _begin(self) -> None:
        self._hanging: dict[int, threading.Thread] = {}
        self._stopping = threading.Event()
        self._loop: threading.Thread | None = None

    def start(self) -> None:
        """Announce what there is to announce in the background, about once a second; nothing without notifiers."""
        if self._notifiers and self._loop is None:
            self._loop = threading.Thread(target=self._serve, name="flowstone-notices", daemon=True)
            self._loop.start()

    def stop(self) -> None:
        """End the background thread; what was not announced is announced by others, or later."""
        self._stopping.set()
        if self._loop is not None:
            self._loop.join(_CHECK_SECONDS)

    def notify(self) -> int:
        """Announce what is to be announced now; return how much that was.

        Raises:
            FlowStoneError: the store does not answer; a failing notifier is only logged.
        """
        number = 0
        if not self._notifiers:
            return number
        lease = self._timeout * len(self._notifiers) + 5.0
        while taken := self._store.claim_notifications(lease_seconds=lease, limit=1):
            number += 1
            self._notify(taken[0])
        return number

    def _notify(self, approval: Approval) -> None:
        problems = [problem for index in range(len(self._notifiers)) if (problem := self._call(index, approval))]
        if not problems:
            self._failures.pop(approval.id, None)
            self._store.acknowledge_notification(approval)
            return
        failures = self._failures[approval.id] = self._failures.get(approval.id, 0) + 1
        pause = min(_MAX_PAUSE_SECONDS, 2.0**failures)
        log.warning(
            "Approval %d (%s) could not be announced to all notifiers and is tried again in %g s: %s",
            approval.id,
            approval.state.value,
            pause,
            "; ".join(problems),
        )
        self._store.release_notification(approval, retry_in_seconds=pause)

    def _call(self, index: int, approval: Approval) -> str | None:
        """Call one notifier; return what went wrong."""
        notifier = self._notifiers[index]
        name = getattr(notifier, "__qualname__", repr(notifier))
        earlier = self._hanging.get(index)
        if earlier is not None and earlier.is_alive():
            return f"{name} still hangs"
        raised: list[BaseException] = []

        def call() -> None:
            try:
                notifier(approval)
            except BaseException as error:  # noqa: BLE001 - whatever a notifier raises concerns nobody else
                raised.append(error)

        thread = threading.Thread(target=call, name="flowstone-notifier", daemon=True)
        thread.start()
        thread.join(self._timeout)
        if thread.is_alive():
            self._hanging[index] = thread
            return f"{name} did not return within {self._timeout:g} s"
        return f"{name} raised {type(raised[0]).__name__}: {raised[0]}" if raised else None

    def _serve(self) -> None:
        failing = False
        while not self._stopping.wait(_CHECK_SECONDS):
            try:
                self.notify()
            except Exception as error:  # noqa: BLE001 - goes on when the store answers again
                if not failing:
                    log.warning("Approvals cannot be announced for now: %s", error)
                failing = True
            else:
                failing = False


class InPlaceApproval:
    """Waits for decisions in the thread that runs a step, for executors of this process.

    Args:
        store: where decisions are made, by any process.
        notices: announces it to people meanwhile.
        announce: sends notifications that are due.
    """

    def __init__(
        self, store: Store, notices: ApprovalNotices, announce: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._notices = notices
        self._announce = announce

    def wait(self, step_id: int) -> None:
        """Return when a step no longer waits for approval; the end of its time is seen to here as well."""
        store = self._store
        self._announce()
        logged = False
        while True:
            self._notices.notify()
            store.approvals.expire_due()
            record = store.catalog.step(step_id)
            if record is None or record.state is not State.AWAITING_APPROVAL:
                self._notices.notify()
                return
            if not logged:
                logged = True
                self._say(step_id, record.asset)
            # waiting on the step, not sleeping: a cancel or a rejection ends the pause at once
            store.catalog.wait([step_id], timeout_seconds=_POLL_SECONDS)

    def _say(self, step_id: int, asset: str) -> None:
        """Say to the person at the terminal why nothing happens."""
        for one in self._store.approvals.of_step(step_id):
            if one.state is ApprovalState.PENDING:
                how = f"`{command('approve', str(one.id))}` or `{command('reject', str(one.id))}`"
                if not self._store.shared:
                    how = f"flow.approvals.approve({one.id}) or .reject({one.id}) in another thread"
                log.warning("%s waits for approval %d: %s Decide with %s.", asset, one.id, one.message, how)
