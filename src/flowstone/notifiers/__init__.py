"""Senders of notifications: `email`, `webhook` and, through the package of that name, `apprise`.

Each is an object with a `name` and a method `send(message)`; see `flowstone.protocols.Sender` for one of your own.
"""

from __future__ import annotations

from flowstone.notifiers.apprise import apprise
from flowstone.notifiers.email import email
from flowstone.notifiers.webhook import is_signed, webhook

__all__ = ["apprise", "email", "is_signed", "webhook"]
