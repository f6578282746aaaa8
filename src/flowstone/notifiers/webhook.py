"""`webhook`: messages as JSON, posted to a URL, with a signature that the receiver can check."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flowstone.core.clean import hide_values
from flowstone.core.declaring import duration, is_host, is_storable, known_options, shown, whole_number
from flowstone.core.notification import Message
from flowstone.errors import DefinitionError, NotSentError

type Body = Callable[[Message], Mapping[str, Any]]
"""Makes the JSON that is posted of a message."""

_TRIES = 3
_FIRST_PAUSE_SECONDS = 0.5
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which it makes sense to try at once again; after others the delivery tries much later."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset({"content-type", "content-length", "host", "user-agent"})


class WebhookSender:
    """Posts messages; made by `webhook`."""

    name = "webhook"

    def __init__(
        self,
        url: SplitResult,
        *,
        secret: str | None,
        headers: Mapping[str, str],
        body: Body | None,
        timeout_seconds: float,
        tries: int,
        context: ssl.SSLContext | None,
    ) -> None:
        self._url = url
        self._secret = secret
        self._headers = dict(headers)
        self._body = body
        self._timeout = timeout_seconds
        self._tries = tries
        self._context = context

    def __repr__(self) -> str:
        return f"webhook({self._url.scheme}://{self._url.hostname})"  # a path may hold a token, as Slack's does

    def send(self, message: Message) -> None:
        """Post it; raises why the receiver did not take it.

        Raises:
            NotSentError: the receiver answered with something else than 2xx.
            OSError: it does not answer.
            TypeError: `body` returned no dict, or something in it that is not JSON; ValueError: such as NaN.
        """
        document: object = message.to_json() if self._body is None else self._body(message)
        if not isinstance(document, Mapping):
            raise TypeError(f"webhook(body=...): it returned {shown(document)}; return a dict.")
        body = json.dumps(dict(document), allow_nan=False).encode()
        pause = _FIRST_PAUSE_SECONDS
        for left in reversed(range(self._tries)):
            try:
                status, reason = self._post(body, message.id)
            except (OSError, http.client.HTTPException):
                if not left:
                    raise
            else:
                if 200 <= status < 300:
                    return
                if status not in _AGAIN or not left:
                    raise NotSentError(f"The receiver answered {status} {reason}".rstrip() + ".")
            time.sleep(pause)
            pause *= 2

    def _post(self, body: bytes, message_id: str) -> tuple[int, str]:
        headers = {
            **self._headers,
            "Content-Type": "application/json",
            "User-Agent": "flowstone",
            "X-FlowStone-Id": message_id,
        }
        if self._secret is not None:
            headers["X-FlowStone-Signature"] = signature(self._secret, body, at=int(time.time()))
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        more: dict[str, Any] = {"context": self._context} if self._url.scheme == "https" else {}
        connection = kind(self._url.hostname or "", self._url.port, timeout=self._timeout, **more)
        try:
            target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.reason
        finally:
            connection.close()


def signature(secret: str, body: bytes, *, at: int) -> str:
    """Return the header that signs a body at a time.

    Example:
        >>> signature("s3cret", b"{}", at=0)[:12]
        't=0,v1=4f082'
    """
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


def is_signed(header: str, body: bytes, secret: str, *, max_age_seconds: float = 300.0) -> bool:
    """Whether a body came from an app that knows the secret, and lately: for those who receive webhooks in Python.

    Args:
        header: the header `X-FlowStone-Signature`.
        body: the body, as it came.
        secret: the secret.
        max_age_seconds: how old it may be; what was recorded and is sent again later is refused.

    Example:
        >>> body = b'{"id": "7"}'
        >>> is_signed(signature("s3cret", body, at=int(time.time())), body, "s3cret")
        True
        >>> is_signed("t=0,v1=00", body, "s3cret")
        False
    """
    at, separator, _ = header.removeprefix("t=").partition(",v1=")
    if not separator or not header.isascii() or not at.isdigit() or len(at) > 12:
        return False
    is_new = abs(time.time() - int(at)) <= max_age_seconds
    return hmac.compare_digest(signature(secret, body, at=int(at)).encode(), header.encode()) and is_new


@known_options("webhook")
def webhook(
    url: str,
    *,
    secret: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: Body | None = None,
    timeout_seconds: float = 10.0,
    tries: int = _TRIES,
    context: ssl.SSLContext | None = None,
) -> WebhookSender:
    """Return a sender that posts messages as JSON.

    Args:
        url: where to, `https://...` (or `http://...`); redirects are not followed.
        secret: signs the body, see `is_signed`; never shown.
        headers: more headers, such as an authorization.
        body: makes the JSON of a message, for receivers that expect something of their own: Slack and Mattermost
            take `lambda message: {"text": message.subject}`. By default `message.to_json()`.
        timeout_seconds: how long the receiver may take to connect, and to answer.
        tries: how often it is posted at once, with growing pauses, when the receiver is away or overloaded; after
            that the delivery tries again later.
        context: TLS context, such as one that trusts an authority of your own.

    Raises:
        DefinitionError: the URL or an option cannot work.

    Example:
        >>> webhook("https://example.com/hooks/7", secret="from the environment")
        webhook(https://example.com)
    """
    seconds = duration(timeout_seconds, minimum=0.001, maximum=600.0)
    if seconds is None:
        raise DefinitionError(f"webhook(timeout_seconds={shown(timeout_seconds)}): give 0.001 to 600 seconds.")
    number = whole_number(tries, minimum=1, maximum=10)
    if number is None:
        raise DefinitionError(f"webhook(tries={shown(tries)}): give a whole number from 1 to 10.")
    given: object = secret
    if given is not None and not (isinstance(given, str) and given and is_storable(given)):
        raise DefinitionError("webhook(secret=...): give text that is not empty, without NUL and half characters.")
    if body is not None and not callable(body):
        raise DefinitionError(f"webhook(body={shown(body)}): give a function of a message that returns a dict.")
    trusts: object = context
    if trusts is not None and not isinstance(trusts, ssl.SSLContext):
        raise DefinitionError(
            f"webhook(context={shown(trusts)}): give ssl.create_default_context(cafile=...), or leave it out."
        )
    parts = _parts(url)
    if secret:
        hide_values([secret])
    if len(parts.path) > 1 or parts.query:  # a bare host is no secret, and stands in many a text
        hide_values([url])
    return WebhookSender(
        parts,
        secret=secret,
        headers=_headers(headers),
        body=body,
        timeout_seconds=seconds,
        tries=number,
        context=context,
    )


def _parts(url: object) -> SplitResult:
    remedy = "give an address, such as https://example.com/hooks/7."
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        raise DefinitionError(f"webhook(url=...): this is no address; {remedy}")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for one that is none
    except ValueError as error:
        raise DefinitionError(f"webhook(url=...): {error}; {remedy}") from None
    if parts.scheme not in ("http", "https") or not is_host(parts.hostname) or parts.port == 0:
        raise DefinitionError(f"webhook(url=...): no host, or neither http nor https; {remedy}")
    if parts.username is not None:
        raise DefinitionError("webhook(url=...): give user and password as headers={'Authorization': ...}.")
    return parts


def _headers(given: object) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DefinitionError(f"webhook(headers={type(given).__name__}): give a dict of texts.")
    for name, value in given.items():
        texts = isinstance(name, str) and isinstance(value, str)
        if not texts or not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise DefinitionError("webhook(headers=...): names and values are lines of ASCII text.")
        if name.lower() in _OURS or name.lower().startswith("x-flowstone-"):
            raise DefinitionError(f"webhook(headers={{{name!r}: ...}}): this header is ours.")
    hide_values([value for value in given.values() if len(value) > 7])
    return dict(given)
