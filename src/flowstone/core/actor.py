"""Who asks: the person or program on whose behalf a run is requested or an action is taken.

Verbs do not take a name each; whoever speaks for a person (the command line, a page, a token of the JSON API) says
so once around its calls, and what is recorded names that person.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

AUTOMATION = "automation"
"""How schedules, sensors and conditions ask."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or program, and the way by which it speaks.

    Args:
        name: a login name, the name of a token, or of an automation.
        via: `api` (Python), `cli`, `web`, `json` (the JSON API), or `automation`.

    Example:
        >>> str(Actor("ann", "web"))
        'ann (web)'
    """

    name: str
    via: str = "api"

    def __str__(self) -> str:
        return f"{self.name} ({self.via})"


actor_variable: ContextVar[Actor | None] = ContextVar("flowstone_actor", default=None)
"""What `current_actor` reads, for where a call would count."""


def current_actor() -> Actor | None:
    """Return on whose behalf this code runs; None when nobody said so."""
    return actor_variable.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """do what follows on behalf of an actor.

    Example:
        >>> with acting(Actor("ann", "cli")):
        ...     print(current_actor())
        ann (cli)
        >>> current_actor() is None
        True
    """
    token = actor_variable.set(actor)
    try:
        yield
    finally:
        actor_variable.reset(token)
