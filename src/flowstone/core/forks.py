"""What a forked copy of this process makes anew: locks that nobody there will release, threads that it lacks.

After `os.fork` (gunicorn with preload, `multiprocessing` with the start method fork) the child has copies of all
objects and none of the threads. Whoever holds a lock, a thread, a connection or a child process registers here.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

_LOCK_SECONDS = 5.0

_registered: weakref.WeakKeyDictionary[Any, tuple[Callable[[Any], None], bool]] = weakref.WeakKeyDictionary()
_of_the_parent: list[object] = []
_held: list[Any] = []
copies = 0
"""How many forks lie between this process and the first one: another number, another process."""


def renew_after_fork[T](owner: T, renew: Callable[[T], None], *, hold: bool = False) -> None:
    """Have an object made anew in every forked child, for as long as it lives.

    Args:
        owner: the object; weakly referenced and hashable.
        renew: called with it in the child, before anything else of the child runs. It must not block, and must not
            use, close or finish what belongs to the parent; see `keep_of_parent`.
        hold: whether to hold its lock (`owner.changed`) during the fork, so that the child sees nothing half done.

    Example:
        >>> class Cache:
        ...     lock = None
        >>> renew_after_fork(Cache(), lambda cache: setattr(cache, "lock", None))
    """
    _registered[owner] = renew, hold


def keep_of_parent(*things: object) -> None:
    """Keep what belongs to the parent alive in the child, so that its destruction does nothing to the parent."""
    _of_the_parent.extend(things)


def _hold_locks() -> None:
    for owner, (_, hold) in list(_registered.items()):
        if hold and owner.changed.acquire(timeout=_LOCK_SECONDS):
            _held.append(owner.changed)


def _release_locks() -> None:
    while _held:
        _held.pop().release()


def _renew_all() -> None:
    global copies  # noqa: PLW0603 - a fact about the process
    copies += 1
    _release_locks()
    for owner, (renew, _) in list(_registered.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_locks, after_in_parent=_release_locks, after_in_child=_renew_all)
