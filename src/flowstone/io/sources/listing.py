"""Which files there are: in a local directory, or in an object store through an fsspec-like object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

_SECOND = 1_000_000_000
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_VERSIONS = ("ETag", "etag", "VersionId", "generation", "content_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file that is there.

    Args:
        path: relative to what is watched, with `/` between its parts.
        size: in bytes.
        modified_ns: when its content was last written, as its writer has it, in nanoseconds since 1970.
        changed_ns: when it came to be there as it is, by the clock of the storage; files are taken in this order.
        version: what else distinguishes this content from another, such as the ETag of an object.
    """

    path: str
    size: int
    modified_ns: int
    changed_ns: int
    version: str = ""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@runtime_checkable
class Listing(Protocol):
    """Anything that lists files; write your own for a store that no adapter here knows."""

    def files(self, *, recursive: bool) -> Iterable[FoundFile]:
        """Return every file that is there, in any order; with `recursive` those below as well."""


@runtime_checkable
class FindsFiles(Protocol):
    """The part of fsspec's `AbstractFileSystem` that is used: `find`."""

    def find(self, path: str, maxdepth: int | None = None, *, detail: bool = False) -> Mapping[str, object]:
        """Return what is below a path, by path; with `detail` with size and times."""


class LocalListing:
    """The files of a directory.

    The order is that of `st_ctime`, which the kernel sets when a file is written, moved in or copied, and which
    nobody can set back: a file that is moved in with an old modification time is a new one all the same.

    Args:
        directory: what is watched.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)

    def files(self, *, recursive: bool) -> Iterator[FoundFile]:
        """See `Listing`.

        Raises:
            OSError: the directory cannot be read.
        """
        waiting = [(str(self._directory), "")]
        while waiting:
            directory, prefix = waiting.pop()
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if recursive:
                            waiting.append((entry.path, f"{prefix}{entry.name}/"))
                    else:
                        with suppress(FileNotFoundError):  # it was there a moment ago, or is a broken link
                            if entry.is_file():
                                yield _local(entry, prefix + entry.name)


def _local(entry: os.DirEntry[str], path: str) -> FoundFile:
    status = entry.stat()
    changed = status.st_ctime_ns
    if entry.is_symlink():  # the link may be newer than what it leads to
        changed = max(changed, entry.stat(follow_symlinks=False).st_ctime_ns)
    return FoundFile(path=path, size=status.st_size, modified_ns=status.st_mtime_ns, changed_ns=changed)


class ObjectListing(Listing):
    """The objects below a prefix, through an fsspec-like filesystem.

    Args:
        filesystem: has `find(path, maxdepth=..., detail=True)`.
        prefix: what is watched, such as `bucket/incoming`.
    """

    def __init__(self, filesystem: FindsFiles, prefix: str) -> None:
        self._filesystem = filesystem
        self._prefix = prefix

    def files(self, *, recursive: bool) -> Iterator[FoundFile]:
        forget = getattr(self._filesystem, "invalidate_cache", None)
        if callable(forget):  # fsspec remembers listings, and would never see anything new
            forget()
        found = self._filesystem.find(self._prefix, maxdepth=None if recursive else 1, detail=True)
        start = self._prefix.partition("://")[2] or self._prefix
        for name, about in found.items():
            if isinstance(about, Mapping) and about.get("type", "file") == "file":
                yield _object(_below(name, start), about)


def _object(path: str, about: Mapping[str, object]) -> FoundFile:
    written = next((about[key] for key in _TIMES if about.get(key) is not None), None)
    modified_ns = _nanoseconds(written, path)
    version = next((str(about[key]) for key in _VERSIONS if about.get(key) is not None), "")
    size = about.get("size")
    return FoundFile(
        path=path,
        size=size if isinstance(size, int) else 0,
        modified_ns=modified_ns,
        changed_ns=modified_ns,
        version=version,
    )


def _below(name: str, start: str) -> str:
    return name.lstrip("/").removeprefix(start.strip("/")).lstrip("/") or name


def _nanoseconds(moment: object, path: str) -> int:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        whole = aware.replace(microsecond=0)
        return round(whole.timestamp()) * _SECOND + aware.microsecond * 1000
    if isinstance(moment, int | float):
        return round(moment * _SECOND)
    raise ValueError(
        f"The filesystem does not say when {path!r} was modified (none of {', '.join(_TIMES)}), and without that "
        "new files cannot be distinguished from old ones. Write a Listing of your own that does."
    )
