"""Notifications of PostgreSQL, on a connection that repairs itself."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from flowstone.errors import DatabaseUnavailableError
from flowstone.sql import load_sql

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 0.2
_MAX_DELAY_SECONDS = 15.0
_CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Notification:
    """One message that another session sent with NOTIFY.

    Args:
        channel: name of the channel.
        payload: text, empty when none was sent.
    """

    channel: str
    payload: str


class Listener:
    """Waits for notifications and survives the loss of its connection.

    Notifications sent while the connection was cut are lost, so they are hints and never the truth: whoever
    waits must read the tables after every return of `wait`, also after an empty one. One thread waits;
    `wake` and `close` may be called from any other.

    Args:
        connect: opens an autocommit connection or raises DatabaseUnavailableError.
        channels: names of the channels.
        target: the server, for log lines, without secrets.

    Example:
        >>> def unreachable():
        ...     raise DatabaseUnavailableError("postgresql://db/", "connection refused")
        >>> with Listener(unreachable, ["jobs"], target="postgresql://db/") as listener:
        ...     listener.wait(0.0)
        []
    """

    def __init__(
        self, connect: Callable[[], Connection[TupleRow]], channels: Iterable[str], *, target: str
    ) -> None:
        self._connect = connect
        self._channels = tuple(dict.fromkeys(channels))
        self._target = target
        self._connection: Connection[TupleRow] | None = None
        self._warned = False
        self._delay = 0.0
        self._next_attempt = time.monotonic()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._waiting = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether notifications can arrive right now."""
        return self._connection is not None and not self._connection.closed

    def wait(self, timeout_seconds: float) -> list[Notification]:
        """Wait for notifications.

        It returns early and empty after `wake`, after `close` and after a cut connection was replaced,
        because something may have been missed then. The first call subscribes, and also returns early.

        Args:
            timeout_seconds: longest wait. Opening a connection may take longer, by the connect timeout.

        Returns:
            What arrived, in the order of arrival; empty on timeout and on every early return.
        """
        deadline = time.monotonic() + max(0.0, timeout_seconds)
        with self._waiting:
            if not self._closed:
                if self.connected:
                    return self._receive(deadline)
                self._reconnect(deadline)
            if self._closed:
                self._release()
            return []

    def wake(self) -> None:
        """Make the current or the next `wait` return at once."""
        with suppress(OSError):  # full: it is awake already; closed: nobody waits any more
            self._writer.send(b"\0")

    def close(self) -> None:
        """End the subscription; a `wait` in another thread returns. Closing twice is no error."""
        self._closed = True
        self.wake()
        # while it connects it cannot be woken: then its thread, which sees that it is closed, cleans up
        if self._waiting.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._release()
            finally:
                self._waiting.release()

    def leave_to_parent(self) -> None:
        """In a forked child: close its copies of the sockets; the subscription is the parent's."""
        self._closed = True
        self._reader.close()
        self._writer.close()

    def _release(self) -> None:
        self._drop_connection()
        self._reader.close()
        self._writer.close()

    def _receive(self, deadline: float) -> list[Notification]:
        import psycopg

        connection = self._connection
        assert connection is not None
        try:
            while True:
                # Before sleeping: what came with an earlier answer lies in the driver, not in the socket.
                arrived = [Notification(n.channel, n.payload) for n in connection.notifies(timeout=0)]
                remaining = deadline - time.monotonic()
                if arrived or remaining <= 0 or self._sleep(remaining, connection.fileno()):
                    return arrived
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._report_cut(error)
            return []

    def _reconnect(self, deadline: float) -> None:
        pause = min(self._next_attempt, deadline) - time.monotonic()
        if pause > 0 and self._sleep(pause):
            return
        if time.monotonic() < self._next_attempt:
            return
        try:
            self._connection = self._subscribed()
        except DatabaseUnavailableError as error:
            self._report_cut(error)
            return
        if self._warned:
            log.info("Listening again on %s.", self._target)
        self._warned, self._delay = False, 0.0

    def _subscribed(self) -> Connection[TupleRow]:
        import psycopg
        from psycopg.sql import SQL, Identifier

        connection = self._connect()
        try:
            for channel in self._channels:
                connection.execute(SQL(load_sql("database/listen")).format(channel=Identifier(channel)))
        except psycopg.Error as error:
            connection.close()
            raise DatabaseUnavailableError(self._target, str(error)) from error
        return connection

    def _report_cut(self, error: Exception) -> None:
        self._drop_connection()
        self._next_attempt = time.monotonic() + self._delay
        self._delay = min(max(_FIRST_DELAY_SECONDS, self._delay * 2), _MAX_DELAY_SECONDS)
        if not self._warned:
            self._warned = True
            log.warning(
                "Notifications from %s are cut (%s); polling goes on, reconnecting in the background.",
                self._target,
                " ".join(str(error).split()),
            )

    def _sleep(self, seconds: float, *sockets: int) -> bool:
        """Sleep until `seconds` passed, a socket has something to read, or another thread woke us (then True)."""
        with selectors.DefaultSelector() as selector:
            for readable in (self._reader.fileno(), *sockets):
                selector.register(readable, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(seconds)}
        if self._reader.fileno() not in ready:
            return False
        self._reader.recv(4096)
        return True

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
