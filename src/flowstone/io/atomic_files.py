"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PREFIX = "."
_SUFFIX = ".tmp"
_MAX_NAME = 255  # bytes, on every file system in use
# Folders cannot be synced on every file system; there is nothing to gain from failing then.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Args:
        path: the final file; its folder exists.
        durable: wait until content and name have reached the disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with replacing(Path(directory, "a"), durable=False) as file:
        ...         _ = file.write(b"1")
        ...     Path(directory, "a").read_bytes()
        b'1'
    """
    temporary = path.with_name(_temporary_name(path.name))
    try:
        # "xb" opens with 0o666 less the umask, unlike the tempfile module, so others can read the value.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def _temporary_name(name: str) -> str:
    """Return a name that says which file it will be, as far as it fits."""
    rest = f"{secrets.token_hex(8)}{_SUFFIX}"
    full = f"{_PREFIX}{name}.{rest}"
    return full if len(full.encode()) <= _MAX_NAME else f"{_PREFIX}{rest}"


def final_name(temporary: Path) -> str | None:
    """Return the name that a temporary file would have got; None when it does not show it.

    Example:
        >>> final_name(Path(".7-1.json.0123456789abcdef.tmp"))
        '7-1.json'
    """
    name = temporary.name.removeprefix(_PREFIX).removesuffix(_SUFFIX).rpartition(".")[0]
    return name or None


def make_directory(path: Path, *, durable: bool) -> None:
    """Create a folder and those above it; with `durable`, wait until their names have reached the disk."""
    missing = [path]
    while not missing[-1].exists() and missing[-1].parent != missing[-1]:
        missing.append(missing[-1].parent)
    path.mkdir(parents=True, exist_ok=True)
    if durable:
        for directory in missing[1:]:
            sync_directory(directory)


def sync_directory(path: Path) -> None:
    """Wait until the names in a folder have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def temporary_files(root: Path, *, older_than_seconds: float) -> Iterator[Path]:
    """Find what `replacing` left behind when its process was killed.

    Args:
        root: folder to search with everything below it.
        older_than_seconds: age since the last write; younger ones may still be written to.
    """
    for path in root.rglob(f"{_PREFIX}*{_SUFFIX}"):
        if is_older(path, older_than_seconds):
            yield path


def is_temporary(path: Path) -> bool:
    """Return whether a file has the name of a temporary one."""
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)


def is_older(path: Path, seconds: float) -> bool:
    """Return whether the file exists and was last written longer ago than this."""
    try:
        return time.time() - path.stat().st_mtime > seconds
    except FileNotFoundError:
        return False
