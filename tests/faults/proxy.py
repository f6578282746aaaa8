"""A proxy between workers and PostgreSQL that harms connections where it hurts most: around a commit."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_CHUNK = 65536


class Harm(Enum):
    """What is done to a connection that commits."""

    NONE = "none"
    CUT_BEFORE = "cut before the server gets the commit"
    CUT_AFTER = "cut when the server has committed, before its answer"
    HOLD = "swallow the answer, and cut when the harm is over"


class Proxy:
    """Forwards connections from a socket of its own to that of a server.

    Args:
        directory: where its socket lies.
        dsn: the server, on a Unix socket.
    """

    def __init__(self, directory: Path, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._target = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.dsn = parts._replace(query=f"host={quote(str(directory), safe='')}&port=5432").geturl()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(f"{directory}/.s.PGSQL.5432")
        self._listening.listen(64)
        self._links: list[_Link] = []
        self._harm, self._share = Harm.NONE, 0.0
        # not every so many-th: that could keep step with a loop and always hit the same statement
        self._chance = random.Random(7)
        self.over = threading.Event()
        self.harmed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, harm: Harm, *, share: float = 1.0) -> None:
        """Do this to such a share of the commits from now on; ends the harm that was set before."""
        self.over.set()
        self.over = threading.Event()
        self._harm, self._share = harm, share

    def next_harm(self) -> Harm:
        """Return what happens to the commit that just came."""
        harm = self._harm
        if harm is Harm.NONE or self._chance.random() >= self._share:
            return Harm.NONE
        self.harmed += 1
        return harm

    def cut_all(self) -> None:
        """Cut every connection."""
        for link in self._links:
            link.cut()

    def close(self) -> None:
        self.set(Harm.NONE)
        self._listening.close()
        self.cut_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._target)
                except OSError:
                    client.close()
                    continue
                self._links.append(_Link(self, client, server))


class _Link:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._pending = Harm.NONE
        threading.Thread(target=self._up, daemon=True).start()
        threading.Thread(target=self._down, daemon=True).start()

    def cut(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _up(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(_CHUNK):
                if b"COMMIT\0" in data:
                    self._pending = self._proxy.next_harm()
                    if self._pending is Harm.CUT_BEFORE:
                        break
                self._server.sendall(data)
        self.cut()

    def _down(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(_CHUNK):
                if self._pending is Harm.HOLD:
                    self._proxy.over.wait()
                if self._pending is not Harm.NONE:
                    break
                self._client.sendall(data)
        self.cut()
        with suppress(OSError):
            self._client.close()


@contextmanager
def proxy_to(dsn: str, directory: Path) -> Iterator[Proxy]:
    """A proxy that is gone afterwards."""
    proxy = Proxy(directory, dsn)
    try:
        yield proxy
    finally:
        proxy.close()
