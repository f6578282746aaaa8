"""A ready-made sensor for files that appear or change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from flowstone.core.automation.sensing import Definition, SensorContext, SensorResult
from flowstone.core.automation.sensor import DEFAULT_EVERY_SECONDS, DEFAULT_TIMEOUT_SECONDS, Sensor
from flowstone.core.declaring import known_options
from flowstone.core.partition import Partition
from flowstone.core.selection import Selection
from flowstone.errors import DefinitionError
from flowstone.io.sources.listing import FindsFiles, FoundFile, Listing, LocalListing, ObjectListing
from flowstone.io.sources.taking import DEFAULT_LIMIT, Taken, Watching, identity_of, refusal, result_of
from flowstone.io.sources.watermark import Place, Watermark

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
