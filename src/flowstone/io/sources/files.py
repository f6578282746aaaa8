"""`new_files`: a ready-made sensor for files that appear or change.

`Listing` is which files there are, in a local directory or behind an fsspec-like object; `Watching` and `Taken`
turn what is new into one run for each partition that something new belongs to; the sensor itself is at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from flowstone.core.automation.sensor import (
    DEFAULT_EVERY_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Definition,
    Sensor,
    SensorContext,
    SensorResult,
    seconds_of,
)
from flowstone.core.declaring import known_options
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.selection import Selection
from flowstone.errors import DefinitionError, PartitionError, SensorError
from flowstone.io.sources.watermark import Place, Watermark, moved

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
        """Yield the files of the directory; see `Listing`.

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
    modified_ns = _modified_nanoseconds(written, path)
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


def _modified_nanoseconds(moment: object, path: str) -> int:
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


_MAX_KEY = 1000
DEFAULT_LIMIT = 1000
_MAX_LIMIT = 10_000
MAX_AGAIN = 300
"""How many things that could not be used are looked at again, the newest."""
_MAX_SETTLE_SECONDS = 31 * 86_400.0


@dataclass(frozen=True, slots=True)
class Watching:
    """Options that ready-made sensors share, checked.

    Args:
        settle: what is younger than this is left for later.
        limit: most things to take at once.
        add_to: dynamic partitions to which `partition(...)` is added first.
    """

    settle: timedelta
    limit: int
    add_to: Definition | None

    @classmethod
    def of(
        cls, name: str, *, settle: timedelta | float, limit: int, add_to: Definition | None, has_partition: bool
    ) -> Self:
        """Check the options of a sensor.

        Args:
            name: of the sensor.
            settle: as it was given.
            limit: as it was given.
            add_to: as it was given.
            has_partition: whether something says which partition a new thing belongs to.

        Raises:
            DefinitionError: one of them cannot work.
        """
        seconds = seconds_of(settle)
        if not 0 <= seconds <= _MAX_SETTLE_SECONDS:
            raise refusal(name, f"settle={settle!r}: give 0 seconds to 31 days")
        if isinstance(limit, bool) or limit not in range(1, _MAX_LIMIT + 1):
            raise refusal(name, f"limit={limit!r}: give 1 to {_MAX_LIMIT:,}")
        if add_to is not None and not has_partition:
            raise refusal(name, "add_to=... needs partition=..., which says which key a new thing stands for")
        return cls(timedelta(seconds=seconds), limit, add_to)


def refusal(name: str, problem: str) -> DefinitionError:
    """Return the error for a sensor that cannot be declared.

    Example:
        >>> str(refusal("inbox", "give a directory"))
        "Sensor 'inbox' cannot be declared: give a directory."
    """
    return DefinitionError(f"Sensor {name!r} cannot be declared: {problem.rstrip('.')}.")


class Taken[T](NamedTuple):
    """A new thing, where it stands, and what names exactly this version of it."""

    thing: T
    place: Place
    identity: str
    again: bool = False
    """Whether it was taken before and could not be used then."""


def result_of[T](
    context: SensorContext,
    mark: Watermark | None,
    taken: list[Taken[T]],
    partition: Callable[[T], Partition] | None,
    add_to: Definition | None,
) -> SensorResult:
    """Return what a sensor answers after it took these new things, which come in their order.

    Args:
        context: of the evaluation.
        mark: where it stood.
        taken: what is new.
        partition: which partition a thing belongs to; one for which it is None asks for nothing.
        add_to: dynamic partitions to which those partitions are added.

    One thing that cannot be used does not hold up the others: it is left out, said, and looked at again.
    """
    newest: dict[str, tuple[Partition, Taken[T]]] = {}
    unusable: dict[str, str] = {}
    for one in taken:
        try:
            key = partition(one.thing) if partition is not None else None
            if partition is None or key is not None:
                # by its text, for 1 and True are equal, and so are two spellings of an instant
                newest[_encode(context.name, key, one)] = key, one
        except Exception as error:  # noqa: BLE001 - a function of the user
            unusable[_name(one)] = f"left out: {one.identity}: {type(error).__name__}: {error}"
            if not one.again:
                context.logger.warning("%s is left out: %s: %s", one.identity, type(error).__name__, error)
    after = moved(mark, [one.place for one in taken if not one.again])
    names = {one.identity: _name(one) for _, one in newest.values()}

    def cursor(run_keys: Collection[str] = ()) -> str | None:
        again = [*unusable, *(names[key] for key in run_keys if key in names)][-MAX_AGAIN:]
        return None if after is None else replace(after, again=tuple(dict.fromkeys(again))).to_cursor()

    nothing = [] if newest or unusable else ["nothing new"]
    return SensorResult(
        requests=[context.request(partition=key, run_key=one.identity) for key, one in newest.values()],
        cursor=cursor(),
        add_partitions=[] if add_to is None else [(add_to, key) for key, _ in newest.values()],
        skip_reason="; ".join([*unusable.values(), *nothing]) or None,
        left_out=cursor,
    )


def _name(taken: Taken[Any]) -> str:
    return str(taken.place.tie)


def identity_of(parts: Iterable[str]) -> str:
    """Return a run key for exactly these parts: readable, and not longer than run keys may be.

    Example:
        >>> identity_of(["inbox/a.csv", "17"])
        'inbox/a.csv 17'
    """
    # as partitions are written: whatever a file name is made of, the text can be kept, and names only it
    key = " ".join(encode_partition(part)[2:] for part in parts)
    return key if len(key.encode()) <= _MAX_KEY else f"sha256 {sha256(key.encode()).hexdigest()}"


def _encode[T](sensor: str, key: Partition, taken: Taken[T]) -> str:
    try:
        return encode_partition(key)
    except PartitionError as error:
        raise SensorError(sensor, f"partition(...) of {taken.identity!r} is no partition: {error}") from error


DEFAULT_SETTLE_SECONDS = 5.0


@known_options("new_files()")
def new_files(
    source: str | os.PathLike[str] | Listing,
    *,
    name: str,
    selection: Selection,
    pattern: str = "*",
    recursive: bool = False,
    partition: Callable[[FoundFile], Partition] | None = None,
    filesystem: FindsFiles | None = None,
    add_to: Definition | None = None,
    settle: timedelta | float = DEFAULT_SETTLE_SECONDS,
    limit: int = DEFAULT_LIMIT,
    every: timedelta | float = DEFAULT_EVERY_SECONDS,
    timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
    paused: bool = False,
) -> Sensor:
    """Return a sensor that runs a selection for new and changed files: one run for each of their partitions.

    Args:
        source: a directory; a prefix, with `filesystem`; or a `Listing` of your own.
        name: name of the sensor.
        selection: what to run.
        pattern: which names count, such as `*.csv`; hidden files only if it begins with a dot.
        recursive: whether files in subdirectories count.
        partition: which partition a file belongs to; one for which it returns None asks for nothing.
        filesystem: an fsspec-like object with `find(path, maxdepth=..., detail=True)`; `source` is a prefix then.
        add_to: dynamic partitions, by name or definition, to which `partition(...)` is added first.
        settle: what is younger than this (timedelta or seconds) is left for later, because it may be half written,
            or something older may still come to light.
        limit: most things to take at once, 1 to 10,000; the rest is taken the next time.
        every: see `sensor`; so are `timeout` and `paused`.

    Raises:
        DefinitionError: an option cannot work.

    Example:
        >>> new_files("inbox", name="inbox", selection="orders", pattern="*.csv").every_seconds
        30.0
    """
    options = Watching.of(name, settle=settle, limit=limit, add_to=add_to, has_partition=partition is not None)
    if not pattern or "/" in pattern:
        raise refusal(name, f"pattern={pattern!r} is for the last part of a name; recursive=True looks below")
    files = _Files(_listing(source, filesystem), pattern, recursive, options)

    def poll(context: SensorContext) -> SensorResult:
        mark = Watermark.from_cursor(context.cursor, sensor=name)
        return result_of(context, mark, files.new(mark, context.now), partition, options.add_to)

    return Sensor(
        poll,
        name=name,
        selection=selection,
        description="New files.",
        every=every,
        timeout=timeout,
        paused=paused,
    )


class _Files:
    """The files that one sensor watches."""

    def __init__(self, listing: Listing, pattern: str, recursive: bool, options: Watching) -> None:
        self._listing = listing
        self._pattern = pattern
        self._recursive = recursive
        self._settle_ns = options.settle // timedelta(microseconds=1) * 1000
        self._limit = options.limit

    def new(self, mark: Watermark | None, now: datetime) -> list[Taken[FoundFile]]:
        """Return the first files after the mark that have settled."""
        # Read before listing: a file that appears while the directory is read, behind where the reading is,
        # is younger than this. Were a still younger one taken, the watermark would pass the first.
        latest = min(_nanoseconds(now), time.time_ns()) - self._settle_ns
        again = frozenset(mark.again if mark is not None else ())
        found, once_more = [], []
        for file in self._counting():
            taken = Taken(file, Place(file.changed_ns, file.path), _identity(file))
            if file.changed_ns <= latest and (mark is None or _is_new(file, mark)):
                found.append(taken)
            elif file.path in again:
                once_more.append(taken._replace(again=True))
        found.sort(key=lambda taken: (taken.thing.changed_ns, taken.thing.path))
        return [*sorted(once_more, key=lambda taken: taken.thing.path), *found[: self._limit]]

    def _counting(self) -> Iterator[FoundFile]:
        hidden = self._pattern.startswith(".")
        for file in self._listing.files(recursive=self._recursive):
            if fnmatchcase(file.name, self._pattern) and (hidden or not file.name.startswith(".")):
                yield file


def _is_new(file: FoundFile, mark: Watermark) -> bool:
    assert isinstance(mark.at, int)
    return file.changed_ns >= mark.at and mark.is_before(Place(file.changed_ns, file.path))


def _identity(file: FoundFile) -> str:
    return identity_of(
        [file.path, str(file.modified_ns), str(file.size), *([file.version] if file.version else [])]
    )


def _nanoseconds(moment: datetime) -> int:
    whole = moment.replace(microsecond=0)
    return round(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def _listing(source: str | os.PathLike[str] | Listing, filesystem: FindsFiles | None) -> Listing:
    if isinstance(source, str | os.PathLike):
        return LocalListing(source) if filesystem is None else ObjectListing(filesystem, os.fspath(source))
    if filesystem is not None:
        raise DefinitionError("Give new_files(...) a prefix with filesystem=..., or a Listing, not both.")
    if not isinstance(source, Listing):
        raise DefinitionError(
            f"new_files({source!r}): give a directory, a prefix with filesystem=..., or a Listing."
        )
    return source
