"""Real servers for the tests of senders: one of mail, one of HTTP, on free ports of this machine."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class MailServer:
    """What a server of mail received, and how it behaves."""

    port: int = 0
    received: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    """Whether each of them came over TLS."""
    refused: set[str] = field(default_factory=set)
    away: int = 0
    """So many messages are refused for now before one is taken."""

    @property
    def mails(self) -> list[EmailMessage]:
        return [
            cast("EmailMessage", message_from_bytes(one.original_content or b"", policy=policy.default))
            for one in self.received
        ]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.away:
            self.away -= 1
            return "451 try again later"
        self.received.append(envelope)
        self.encrypted.append(bool(session.ssl) or server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"


class _OnFreePort(Controller):
    """A controller that keeps the port it was given: that of aiosmtpd connects to port 0 itself."""

    def __init__(self, handler: MailServer, **options: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        handler.port = self._socket.getsockname()[1]
        super().__init__(handler, hostname="127.0.0.1", port=handler.port, **options)

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._socket, ssl=self.ssl_context)


@contextmanager
def mail_server(
    *, password: str | None = None, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[MailServer]:
    """Run a server of mail.

    Args:
        password: the one that it lets in, over TLS alone when it speaks that.
        starttls: it takes mail only after STARTTLS.
        tls: it speaks TLS from the beginning.
    """

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        known = isinstance(data, LoginPassword) and data.password.decode() == password
        return AuthResult(success=known, handled=False)

    handler = MailServer()
    options: dict[str, Any] = {"ssl_context": tls}
    if starttls is not None:
        options |= {"tls_context": starttls, "require_starttls": True}
    if password is not None:
        options |= {"authenticator": authenticate, "auth_required": True}
        options["auth_require_tls"] = starttls is not None
    controller = _OnFreePort(handler, **options)
    controller.start()
    try:
        yield handler
    finally:
        controller.stop()


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HookServer:
    """What a server of HTTP received, and what it answers."""

    port: int = 0
    scheme: str = "http"
    received: list[Received] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Status of the next answers; 200 when there are none left."""
    before: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hooks/7?x=1"


@contextmanager
def hook_server(*, tls: ssl.SSLContext | None = None) -> Iterator[HookServer]:
    """Run a server of HTTP, or of HTTPS."""
    found = HookServer(scheme="http" if tls is None else "https")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.before()
            found.received.append(Received(self.path, dict(self.headers.items()), body))
            status = found.answers.pop(0) if found.answers else 200
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
