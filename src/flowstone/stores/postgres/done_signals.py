"""One listening connection for all threads that wait for the end of steps and runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.stores.postgres.counting import DONE_CHANNEL, SEPARATOR
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.listener import Listener

_IDLE_SECONDS = 30.0
_CLOSE_SECONDS = 1.0


class DoneSignals:
    """Wakes waiting threads when a notification names what they wait for.

    Notifications are hints: whoever is woken reads the tables, and polls them from time to time anyway.

    Args:
        database: where to listen.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closed = False
        self._listener: Listener | None = None
        self._begin()
        renew_after_fork(self, DoneSignals._begin)

    def _begin(self) -> None:
        if self._listener is not None:
            self._listener.leave_to_parent()
            keep_of_parent(self._listener)
        self._lock = threading.Lock()
        self._waiting: dict[threading.Event, frozenset[str]] = {}
        self._listener = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def subscribe(self, keys: Sequence[str]) -> Iterator[threading.Event]:
        """Give an event that is set when one of these keys is named; subscribe before reading the tables."""
        event = threading.Event()
        with self._lock:
            self._waiting[event] = frozenset(keys)
            if self._thread is None and not self._closed:
                self._listener = self._database.listen([DONE_CHANNEL])
                self._thread = threading.Thread(
                    target=self._listen, args=(self._listener,), name="flowstone-done", daemon=True
                )
                self._thread.start()
        try:
            yield event
        finally:
            with self._lock:
                del self._waiting[event]

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._closed = True
            listener, thread, self._listener, self._thread = self._listener, self._thread, None, None
        if listener is not None and thread is not None:
            listener.close()
            thread.join(_CLOSE_SECONDS)

    def _listen(self, listener: Listener) -> None:
        while not self._closed:  # ends with the process at the latest
            arrived = listener.wait(_IDLE_SECONDS)
            named = {key for one in arrived for key in one.payload.split(SEPARATOR)}
            with self._lock:
                for event, keys in self._waiting.items():
                    # an empty answer may mean that the connection was cut: everybody reads the tables
                    if not arrived or not keys.isdisjoint(named):
                        event.set()
