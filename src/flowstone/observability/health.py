"""What a worker answers over HTTP: `/live`, `/ready` and `/metrics`, from threads of its own.

Nothing that steps do waits for it, and it answers while they run. It says nothing of what is computed and changes
nothing, so it needs no login; still it listens on this machine alone unless it is given another address.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flowstone.errors import ConfigurationError
from flowstone.observability.metrics import CONTENT_TYPE

_REQUEST_SECONDS = 10.0
_MAX_AT_ONCE = 16

type Probe = Callable[[], str | None]
"""Returns what is wrong; None when nothing is."""


class HealthServer:
    """Answers probes and scrapes.

    Args:
        host: address to listen on.
        port: port; 0 for any that is free.
        live: whether this process still works; one that does not is to be ended.
        ready: whether it takes work.
        metrics: returns the metrics, or the part of them that is asked for.

    Raises:
        ConfigurationError: it cannot listen there.

    Example:
        >>> with HealthServer("127.0.0.1", 0, live=lambda: None, ready=lambda: "not yet", metrics=str) as server:
        ...     server.address.startswith("http://127.0.0.1:")
        True
    """

    def __init__(
        self, host: str, port: int, *, live: Probe, ready: Probe, metrics: Callable[[str | None], str]
    ) -> None:
        probes = {"/live": live, "/ready": ready}
        try:
            self._server = _Server((host, port), _handler(probes, metrics))
        except OSError as error:
            raise ConfigurationError(
                f"--health-port {port}: cannot listen on {host}: {error.strerror or error}. Give another port, or "
                "0 for any that is free."
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="flowstone-health", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Answer nothing more."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> HealthServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, *arguments: Any) -> None:
        self._room = threading.BoundedSemaphore(_MAX_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, as long as there are not too many of them."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no matter of ours."""


def _handler(probes: dict[str, Probe], metrics: Callable[[str | None], str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "flowstone", ""
        timeout = _REQUEST_SECONDS  # of a client that says nothing

        def do_GET(self) -> None:
            self._answer(*self._found())

        do_HEAD = do_GET  # noqa: N815

        def _found(self) -> tuple[int, str, str]:
            url = urlsplit(self.path)
            if url.path == "/metrics":
                part = parse_qs(url.query).get("from", [None])[-1]
                try:
                    return 200, CONTENT_TYPE, metrics(part)
                except ValueError as error:
                    return 400, "text/plain; charset=utf-8", f"{error}\n"
            probe = probes.get(url.path)
            if probe is None:
                return 404, "text/plain; charset=utf-8", f"There is /metrics, {' and '.join(probes)} here.\n"
            wrong = probe()
            document = {"status": "ok"} if wrong is None else {"status": "failing", "reason": wrong}
            return (200 if wrong is None else 503), "application/json", json.dumps(document) + "\n"

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode("utf-8", "replace")
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes come every few seconds: none of them is worth a line."""

    return Handler
