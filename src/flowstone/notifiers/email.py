"""`email`: messages as mail, through any SMTP server."""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Iterable
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Literal

from flowstone.core.clean import hide_values
from flowstone.core.declaring import duration, is_host, known_options, shown, whole_number
from flowstone.core.notification import Message
from flowstone.errors import DefinitionError

log = logging.getLogger("flowstone.notifications")

type Security = Literal["starttls", "tls", "none"]
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_MAX_SUBJECT = 150


class EmailSender:
    """Sends messages as mail; made by `email`."""

    name = "email"

    def __init__(
        self,
        to: Iterable[Address],
        *,
        sender: Address,
        host: str,
        port: int,
        security: str,
        user: str | None,
        password: str | None,
        timeout_seconds: float,
        context: ssl.SSLContext | None,
    ) -> None:
        self._to = tuple(to)
        self._sender = sender
        self._host, self._port = host, port
        self._security = security
        self._user, self._password = user, password
        self._timeout = timeout_seconds
        self._context = context

    def __repr__(self) -> str:
        return f"email({', '.join(one.addr_spec for one in self._to)})"

    def send(self, message: Message) -> None:
        """Send it; raises what the server says."""
        mail = self.mail(message)
        if self._security == "tls":
            context = self._context or ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        with server:
            if self._security == "starttls":
                server.starttls(context=self._context or ssl.create_default_context())
            if self._user is not None:
                server.login(self._user, self._password or "")
            refused = server.send_message(mail)
        if refused:
            # the others have it; sending it once more would send it to them again
            log.warning("The server takes no mail for %s; the others have it.", ", ".join(sorted(refused)))

    def mail(self, message: Message) -> EmailMessage:
        """Return the mail of a message; the same id each time, by which a mailbox knows that it is the same."""
        mail = EmailMessage()
        mail["Subject"] = _one_line(message.subject)
        mail["From"] = self._sender
        mail["To"] = self._to
        mail["Date"] = format_datetime(message.created_at)
        domain = self._sender.domain or "flowstone"
        mail["Message-ID"] = f"<{message.project}.{message.id}.{message.created_at:%Y%m%d%H%M%S}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # nobody's absence answers
        mail.set_content(message.text)
        return mail


def _one_line(text: str) -> str:
    """Return text that can be nothing but a subject: short, and encoded words in it stay what they read as."""
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    text = text if len(text) <= _MAX_SUBJECT else text[: _MAX_SUBJECT - 1] + "…"
    return text.replace("=?", "= ?")


@known_options("email")
def email(
    to: str | Iterable[str],
    *,
    sender: str,
    host: str = "localhost",
    port: int | None = None,
    security: Security = "starttls",
    user: str | None = None,
    password: str | None = None,
    timeout_seconds: float = 30.0,
    context: ssl.SSLContext | None = None,
) -> EmailSender:
    """Return a sender of mail.

    Args:
        to: an address, or several.
        sender: the address from which mail comes.
        host: the SMTP server.
        port: its port; by default the usual one of `security`.
        security: `starttls` (port 587), `tls` from the beginning (465), or `none` (25), as for a server on this
            machine.
        user: name to log in with; None does not.
        password: the password; never shown, and masked wherever it stands in a text.
        timeout_seconds: how long the server may take for each answer.
        context: TLS context, such as one that trusts an authority of your own.

    Raises:
        DefinitionError: an address or an option cannot work.

    Example:
        >>> email("ann@example.com", sender="flow@example.com", host="mail.example.com")
        email(ann@example.com)
    """
    recipients: object = to
    if not isinstance(recipients, Iterable):
        raise DefinitionError(f"email(to={shown(to)}): give an address, or a list of these.")
    addresses: list[object] = [to] if isinstance(to, str) else [*to]
    if not addresses:
        raise DefinitionError("email(to=[]): give at least one address.")
    kind: object = security
    if not isinstance(kind, str) or kind not in _PORTS:
        raise DefinitionError(f'email(security={shown(security)}): give "starttls", "tls" or "none".')
    if not is_host(host):
        raise DefinitionError(f'email(host={shown(host)}): give the name of a server, such as "mail.example.com".')
    number = _PORTS[security] if port is None else whole_number(port, minimum=1, maximum=65535)
    if number is None:
        raise DefinitionError(f"email(port={shown(port)}): give a whole number from 1 to 65535.")
    seconds = duration(timeout_seconds, minimum=0.001, maximum=600.0)
    if seconds is None:
        raise DefinitionError(f"email(timeout_seconds={shown(timeout_seconds)}): give 0.001 to 600 seconds.")
    texts: tuple[tuple[str, object], ...] = (("user", user), ("password", password))
    for option, given in texts:
        if given is not None and not isinstance(given, str):
            raise DefinitionError(f"email({option}=...): give text.")
        if isinstance(given, str) and not given.isascii():
            # smtplib can send no others, and would fail at each mail
            raise DefinitionError(f"email({option}=...): give ASCII characters; Python's smtplib sends no others.")
    if user is not None and password is None:
        raise DefinitionError("email(user=...): give password= as well; from the environment, not from the code.")
    if user is not None and security == "none" and host not in ("localhost", "127.0.0.1", "::1"):
        raise DefinitionError('email(user=..., security="none"): that would send the password in the clear.')
    trusts: object = context
    if trusts is not None and not isinstance(trusts, ssl.SSLContext):
        raise DefinitionError(
            f"email(context={shown(trusts)}): give ssl.create_default_context(cafile=...), or leave it out."
        )
    if password:
        hide_values([password])
    return EmailSender(
        [_address("to", one) for one in addresses],
        sender=_address("sender", sender),
        host=host,
        port=number,
        security=security,
        user=user,
        password=password,
        timeout_seconds=seconds,
        context=context,
    )


def _address(option: str, given: object) -> Address:
    if isinstance(given, str) and given.isprintable():
        name, _, rest = given.rpartition("<")
        plain = rest.removesuffix(">").strip() if name or given.startswith("<") else given.strip()
        try:
            found = Address(name.strip().strip('"'), addr_spec=plain)
        except (MessageError, ValueError, IndexError, AttributeError):
            found = None
        if found is not None and found.username and found.domain and plain.count("@") == 1:
            return found
    raise DefinitionError(f'email({option}={shown(given)}): give an address, such as "ann@example.com".')
