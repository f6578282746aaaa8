"""`apprise`: messages through the package of that name, to the hundred services that it knows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from flowstone.core.clean import hide_values
from flowstone.core.declaring import is_text, known_options
from flowstone.core.notification import Message
from flowstone.errors import DefinitionError, MissingExtraError, NotSentError


class AppriseSender:
    """Sends messages to addresses of apprise; made by `apprise`."""

    name = "apprise"

    def __init__(self, targets: Any, kinds: tuple[str, ...]) -> None:
        self._targets = targets
        self._kinds = kinds

    def __repr__(self) -> str:
        return f"apprise({', '.join(self._kinds)})"

    def send(self, message: Message) -> None:
        """Send it to each of the addresses.

        Raises:
            NotSentError: one of them did not take it; the log of apprise says why.
        """
        text = message.text
        kind = "success" if message.good else "failure"
        if not self._targets.notify(body=text, title=message.subject, notify_type=kind, body_format="text"):
            raise NotSentError(f"apprise could not send it to all of {', '.join(self._kinds)}; its log says why.")


@known_options("apprise")
def apprise(urls: str | Iterable[str]) -> AppriseSender:
    """Return a sender to addresses of apprise, such as `slack://...`, `tgram://...`, `msteams://...`.

    Args:
        urls: an address, or several; they hold tokens, so take them from the environment.

    Raises:
        MissingExtraError: the extra `apprise` is not installed.
        DefinitionError: apprise does not understand an address.
    """
    try:
        from apprise import Apprise
    except ImportError as error:
        raise MissingExtraError("apprise", "apprise", "The sender `apprise`") from error
    given: object = urls
    listed = [urls] if isinstance(urls, str) else list(urls) if isinstance(given, Iterable) else []
    if not listed or not all(is_text(one) for one in listed):
        raise DefinitionError("apprise(urls=...): give an address such as slack://..., or a list of these.")
    hide_values(listed)
    targets = Apprise()
    kinds = tuple(one.partition(":")[0] for one in listed)
    quiet = logging.getLogger("apprise")
    level = quiet.level
    for kind, one in zip(kinds, listed, strict=True):
        quiet.setLevel(logging.CRITICAL)  # it would log the address with its token
        try:
            understood = targets.add(one)
        finally:
            quiet.setLevel(level)
        if not understood:
            raise DefinitionError(f"apprise(urls=[{kind}:...]): apprise does not understand this address.")
    return AppriseSender(targets, kinds)
