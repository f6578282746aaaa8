"""Which attempts a worker has taken and not started, for the process that outlives it by a moment."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

_SLOTS = 16_384
_BYTES = 8


class UnstartedAttemptsBoard:
    """Fencing tokens in memory that is shared with the process of the heartbeat.

    Noting a token costs a fraction of a microsecond and no system call. When this process is killed, the other one
    reads what is left and records it, so that attempts which only waited for a thread are released. What
    finds no room is not noted: such an attempt counts, as if it had begun.

    Example:
        >>> board = UnstartedAttemptsBoard()
        >>> board.add([7, 8])
        >>> board.remove([7])
        >>> board.tokens()
        [8]
        >>> board.close()
    """

    def __init__(self) -> None:
        self.descriptor = _shared_file()
        os.ftruncate(self.descriptor, _SLOTS * _BYTES)
        self._memory = mmap.mmap(self.descriptor, _SLOTS * _BYTES)
        self._tokens = memoryview(self._memory).cast("q")
        # the operations of list and dict that are used here are atomic: several threads share them
        self._free = list(range(_SLOTS))
        self._slots: dict[int, int] = {}

    def add(self, tokens: Iterable[int]) -> None:
        """Note attempts that were taken."""
        for token in tokens:
            try:
                slot = self._free.pop()
            except IndexError:
                return
            self._slots[token] = slot
            self._tokens[slot] = token

    def remove(self, tokens: Iterable[int]) -> None:
        """Forget attempts that start, or were released."""
        for token in tokens:
            slot = self._slots.pop(token, None)
            if slot is not None:
                self._tokens[slot] = 0
                self._free.append(slot)

    def tokens(self) -> list[int]:
        """Return what is noted."""
        return [token for token in self._tokens if token]

    def close(self) -> None:
        """Give the memory back; nothing is noted afterwards."""
        self._free.clear()
        self._slots.clear()
        self._tokens.release()
        self._memory.close()
        os.close(self.descriptor)


def _shared_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("flowstone-unstarted")
    descriptor, path = tempfile.mkstemp(prefix="flowstone-unstarted-")
    Path(path).unlink()
    return descriptor
