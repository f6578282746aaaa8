"""A cancellation token that sets itself when time is up."""

from __future__ import annotations

import time

from flowstone.core.context import CancellationToken


class Deadline(CancellationToken):
    """Asks for a stop after a time, by this process's clock; it needs no thread for that.

    Args:
        seconds: after which it is set.

    Example:
        >>> Deadline(3600).is_cancelled, Deadline(0).is_cancelled
        (False, True)
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._at = time.monotonic() + seconds

    @property
    def is_cancelled(self) -> bool:
        """Whether time is up, or a stop was requested."""
        if time.monotonic() >= self._at:
            self.cancel("timeout")
        return super().is_cancelled

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a stop is asked for or time is up, at most `timeout_seconds`; return whether it is."""
        left = max(0.0, self._at - time.monotonic())
        super().wait(min(timeout_seconds, left))
        return self.is_cancelled

    def raise_if_cancelled(self, asset: str = "the sensor") -> None:
        """Raise StepCancelledError when time is up or a stop was asked for."""
        if self.is_cancelled:
            super().raise_if_cancelled(asset)
