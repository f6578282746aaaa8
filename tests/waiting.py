"""Waiting for what other processes and threads do, and for their end."""

from __future__ import annotations

from collections.abc import Callable

import psutil

from flowstone.testing.marks import wait_until


def eventually(holds: Callable[[], bool], *, timeout_seconds: float = 60.0) -> None:
    """Wait until a condition holds, and fail when it does not in a time that is long for any machine."""
    assert wait_until(holds, timeout_seconds=timeout_seconds), f"it did not come to pass in {timeout_seconds:g} s"


def is_gone(pid: int) -> bool:
    """Whether a process ended; it may be a zombie when nobody collects orphans here."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
