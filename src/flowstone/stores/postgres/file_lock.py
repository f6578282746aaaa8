"""Locks between processes that the kernel releases whatever happens to their holder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_POLL_SECONDS = 0.02


class FileLock:
    """An advisory lock on a file, held by this object and not by the process.

    The kernel drops it when the last descriptor is closed, also by SIGKILL. Child processes that inherit the
    descriptor on purpose (`fileno`) hold the same lock on.

    Args:
        path: file to lock; made when missing, never removed.

    Raises:
        OSError: the file cannot be opened or made.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as directory:
        ...     first, second = FileLock(Path(directory, "lock")), FileLock(Path(directory, "lock"))
        ...     first.try_exclusive(), second.try_exclusive(), first.close(), second.try_exclusive()
        ...     second.close()
        (True, False, None, True)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        """Return the descriptor, to be inherited by a child that shall hold the lock too."""
        return self._descriptor

    def try_exclusive(self) -> bool:
        """Take the lock alone if nobody else has it; a shared lock of this object may be lost when not."""
        return self._flock(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Take the lock together with others unless another process has it alone."""
        return self._flock(fcntl.LOCK_SH)

    def wait_exclusive(self, timeout_seconds: float) -> bool:
        """Take the lock alone, waiting for others; False when they did not leave in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_exclusive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def close(self) -> None:
        """Let go; closing twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
