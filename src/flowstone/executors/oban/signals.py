"""What a node hears on Oban's channels. Any role that may connect can send there, so nothing is taken on trust.

What cannot be read is dropped, and said once in a while. What acts is said whenever it does: a pause, a resume, a
new limit, a cancel.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("flowstone.worker")

_AGAIN_SECONDS = 60.0
_MAX_LIMIT = 1000
_MAX_SHOWN = 200
# Oban takes a queue down and up again with these; ours are served for as long as the worker runs
_MEANT = {"stop": "pause", "start": "resume"}


@dataclass(slots=True)
class Signals:
    """What is done about signals.

    Args:
        ident: the name by which one node is meant.
        queues: the queues of this node.
        scale: sets how many steps of a queue run at once here.
        cancel: has a running job of Oban cancelled.
        announced: called with a queue that has new jobs, before its producer polls.
    """

    ident: str
    queues: Collection[str]
    scale: Callable[[str, int], None]
    cancel: Callable[[int], None]
    announced: Callable[[str], None]

    def read(self, payload: Mapping[str, Any], sender: str) -> dict[str, Any] | None:
        """Do what a signal asks for; return what Oban's own loops are to hear of it, if anything.

        Args:
            payload: the signal.
            sender: who sent it, for people.

        Raises:
            ValueError: it is not a signal.
        """
        ident, queue, action = payload.get("ident", "any"), payload.get("queue", "*"), payload.get("action")
        if not isinstance(queue, str) or not isinstance(action, str):
            raise ValueError("a signal has an action, and the name of a queue")  # noqa: TRY004 - see Notifications
        if ident not in ("any", self.ident):
            return None
        if action == "pkill":
            self._cancel(payload.get("job_id"), sender)
            return None
        if queue != "*" and queue not in self.queues:
            return None
        what = "Every queue" if queue == "*" else f"Queue {queue}"
        action = _MEANT.get(action, action)
        if action == "pause":
            log.warning("%s is paused here by a signal on Oban's channel, sent by %s.", what, sender)
        elif action == "resume":
            log.info("%s goes on here, by a signal on Oban's channel, sent by %s.", what, sender)
        elif action == "scale":
            self._scale(queue, payload.get("limit"), sender)
            return None
        else:
            return None
        return {"action": action, "queue": queue, "ident": "any"}

    def _scale(self, queue: str, limit: object, sender: str) -> None:
        if type(limit) is not int or not 1 <= limit <= _MAX_LIMIT or queue == "*":
            raise ValueError(f"a limit is a whole number from 1 to {_MAX_LIMIT}, for one queue")
        log.info("Queue %s runs %d steps at once here, by a signal sent by %s.", queue, limit, sender)
        self.scale(queue, limit)

    def _cancel(self, job_id: object, sender: str) -> None:
        if type(job_id) is not int or not 0 < job_id < 2**63:
            raise ValueError("a signal to cancel names a job")
        log.debug("Job %d is to be cancelled, by a signal sent by %s.", job_id, sender)
        self.cancel(job_id)


class Notifications:
    """Passes notifications on to Oban's loops.

    It takes the place of the notifier's own `_dispatch`, which any payload that it cannot decode would end, and
    the listening with it.

    Args:
        notifier: Oban's.
        signals: what is done about signals.
    """

    def __init__(self, notifier: Any, signals: Signals) -> None:
        self._notifier = notifier
        self._signals = signals
        self._tasks: set[asyncio.Task[None]] = set()
        self._message: dict[str, float] = {}

    async def dispatch(self, notify: Any) -> None:
        """Pass one notification on; never raises."""
        sender = f"the server process {notify.pid}"
        try:
            channel, payload = self._read(notify, sender)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the listening
            self._say(notify, sender, error)
            return
        if payload is None:
            return
        for callback in list(self._notifier._subscriptions.get(channel, {}).values()):  # noqa: SLF001
            self._call(callback, channel, dict(payload))

    def _read(self, notify: Any, sender: str) -> tuple[str, Mapping[str, Any] | None]:
        """Return channel and payload; None when there is nothing to pass on.

        Raises:
            Exception: it cannot be read.
        """
        from oban._notifier import decode_payload

        channel = self._notifier._from_full_channel(notify.channel)  # noqa: SLF001
        payload = decode_payload(notify.payload)
        if not isinstance(payload, dict):
            raise ValueError("it is no JSON object")  # noqa: TRY004 - one kind of error for what cannot be read
        if channel == "insert":
            if not isinstance(queue := payload.get("queue"), str):
                raise ValueError("it names no queue")
            self._signals.announced(queue)
        if channel == "signal":
            return channel, self._signals.read(payload, sender)
        return channel, payload

    def _call(self, callback: Any, channel: str, payload: dict[str, Any]) -> None:
        try:
            if not inspect.iscoroutinefunction(callback):
                callback(channel, payload)
                return
            task = asyncio.create_task(callback(channel, payload))
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("A notification on %s could not be followed: %s", channel, error)
            return
        self._tasks.add(task)
        task.add_done_callback(self._followed)

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("A notification on Oban's channel could not be followed: %s", error)

    def _say(self, notify: Any, sender: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._message.get(notify.channel, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return
        self._message[notify.channel] = now
        log.warning(
            "A notification on %s, sent by %s, was dropped because it cannot be read (%s): %.*r",
            notify.channel,
            sender,
            " ".join(str(error).split()) or type(error).__name__,
            _MAX_SHOWN,
            notify.payload,
        )
