"""Side effects that can be counted from any process: files in one directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

DIRECTORY = "FLOWSTONE_CONFORMANCE_DIR"
"""Environment variable with the directory in which assets under test leave their marks."""

_POLL_SECONDS = 0.005


class Marks:
    """Marks that assets leave and tests count, in the same process or in others.

    Args:
        directory: where they are; by default what the environment variable names.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     marks = Marks(Path(directory))
        ...     marks.leave("numbers")
        ...     marks.count("numbers"), marks.count("others")
        (1, 0)
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._root = Path(os.environ[DIRECTORY]) if directory is None else directory

    def leave(self, name: str) -> None:
        """Leave one more mark of this name."""
        directory = self._root / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / uuid4().hex).touch()

    def count(self, name: str) -> int:
        """Return how many marks of this name there are."""
        directory = self._root / name
        return len(list(directory.iterdir())) if directory.is_dir() else 0

    def clear(self, name: str) -> None:
        """Forget the marks of this name."""
        directory = self._root / name
        for mark in directory.iterdir() if directory.is_dir() else ():
            mark.unlink(missing_ok=True)

    def wait(self, name: str, *, count: int = 1, timeout_seconds: float = 30.0) -> bool:
        """Wait for that many marks; return whether they came in time."""
        return wait_until(lambda: self.count(name) >= count, timeout_seconds=timeout_seconds)

    @contextmanager
    def crowd(self, name: str) -> Iterator[None]:
        """Take part in a crowd, whose size at its largest `largest` returns."""
        directory = self._root / f"{name}-present"
        directory.mkdir(parents=True, exist_ok=True)
        mine = directory / uuid4().hex
        mine.touch()
        present = len(list(directory.iterdir()))
        sizes = self._root / f"{name}-sizes"
        sizes.mkdir(exist_ok=True)
        (sizes / str(present)).touch()
        try:
            yield
        finally:
            mine.unlink(missing_ok=True)

    def largest(self, name: str) -> int:
        """Return how large the crowd ever was."""
        directory = self._root / f"{name}-sizes"
        return max((int(one.name) for one in directory.iterdir()), default=0) if directory.is_dir() else 0


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 30.0) -> bool:
    """Wait until a condition holds; return whether it did in time.

    Example:
        >>> wait_until(lambda: True)
        True
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
