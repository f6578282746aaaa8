"""Values as files below one folder."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import batched
from pathlib import Path
from typing import NamedTuple, Self

from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.project import DEFAULT_PROJECT, Project
from flowstone.errors import ConfigurationError, FlowStoneError, StorageError
from flowstone.io.atomic_files import (
    final_name,
    is_older,
    is_temporary,
    make_directory,
    replacing,
    temporary_files,
)
from flowstone.io.choice import choose_serializer
from flowstone.io.encoding import decode, encode
from flowstone.io.failures import storage_error
from flowstone.io.paths import escape, file_name, split_location, unescape, version_of
from flowstone.protocols import KeepVersions, Serializer

# "@" alone is the escaped empty text and "@" starts nothing else, so no partition key gets this folder.
_UNPARTITIONED = "@unpartitioned"
# for the same reason no asset gets the folder of a project
_OF_PROJECT = "@project-"
_PAGE = 1000
_DAY_SECONDS = 86_400.0


class _Place(NamedTuple):
    """The parts of a location."""

    asset: str
    partition: str
    version: str
    extension: str
    project: str = DEFAULT_PROJECT

    @property
    def location(self) -> str:
        top = "" if self.project == DEFAULT_PROJECT else f"{_OF_PROJECT}{self.project}/"
        directory = escape(self.partition) if self.partition else _UNPARTITIONED
        return f"{top}{escape(self.asset)}/{directory}/{file_name(self.version, self.extension)}"

    @classmethod
    def parse(cls, location: str) -> _Place | None:
        """Return the parts; None unless the location is exactly what `location` gives for them."""
        segments = split_location(location)
        project = segments.pop(0).removeprefix(_OF_PROJECT) if len(segments) == 4 else DEFAULT_PROJECT
        if len(segments) != 3:
            return None
        asset, directory, file = segments
        try:
            place = cls(
                unescape(asset),
                "" if directory == _UNPARTITIONED else unescape(directory),
                version_of(file),
                "".join(file.partition(".")[1:]),
                project,
            )
        except ValueError:
            return None
        return place if place.location == location else None


class FilesystemIO:
    """Stores each value as a file `<root>/<asset>/<partition>/<version><extension>`.

    Projects other than the default one have a folder `<root>/@project-<name>` each.

    A file is written beside its final name, synced and renamed, so it is there as a whole or not at all;
    writing streams, so memory does not grow with the encoded size. Names are escaped reversibly (see
    `flowstone.io.paths`): no partition key can leave the root or collide with another one. Loading verifies
    size and SHA-256.

    Args:
        root: folder for the values; created with the first one. Shared between machines, it must be one
            file system mounted by all.
        serializer: format of all values; None chooses by the value (see `choose_serializer`).
        durable: wait until each value has reached the disk before it can be committed. Turn it off only
            where losing the last values with the power is acceptable.
        name: name under which the app knows it.

    Raises:
        ConfigurationError: the serializer's extension cannot be part of a file name.

    Example:
        >>> import tempfile
        >>> address = OutputAddress("numbers", "2024", "run", 1, attempt=1, token=1)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     files = FilesystemIO(directory)
        ...     stored = files.store([1, 2, 3], address)
        ...     stored.location, files.load(stored)
        ('numbers/2024/step-1.json', [1, 2, 3])
    """

    def __init__(
        self,
        root: Path | str,
        *,
        serializer: Serializer | None = None,
        durable: bool = True,
        name: str = "filesystem",
    ) -> None:
        if serializer is not None and not re.fullmatch(r"(\.[a-z0-9]+)+", serializer.extension):
            raise ConfigurationError(
                f"The serializer {serializer.name!r} has the extension {serializer.extension!r}. "
                "Use a dot and small letters or digits, such as '.csv'."
            )
        # Absolute from here on, so that a later os.chdir does not move the values.
        self._root = Path(root).absolute()
        self._serializer = serializer
        self._durable = durable
        self._name = name
        self._project = Project()

    def in_project(self, project: Project) -> Self:
        """Return this manager for the files of a project; an app calls it with its own."""
        manager = copy.copy(self)
        manager._project = project  # noqa: SLF001 - of our own copy
        return manager

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    @property
    def shared(self) -> bool:
        """True: any process that sees the folder can load the values."""
        return True

    @property
    def root(self) -> Path:
        """The folder that holds the values, absolute."""
        return self._root

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Write `value` to a file of its own.

        Raises:
            SerializationError: the value cannot be written exactly; nothing is left behind.
            StorageError: the disk is full, denied, read-only or broken; nothing is left behind.
        """
        serializer = self._serializer or choose_serializer(value)
        place = _Place(address.asset, address.partition, address.version, serializer.extension, address.project)
        try:
            path = self._root / place.location
            make_directory(path.parent, durable=self._durable)
            self._refuse_outside(path.parent, "store", place)
            with replacing(path, durable=self._durable) as file:
                return encode(value, serializer, file, address=address, io=self._name, location=place.location)
        except FlowStoneError:
            raise  # some are an OSError too
        except OSError as error:
            raise storage_error("store", address.asset, address.partition, error) from error

    def load(self, stored: StoredOutput) -> object:
        """Read a value back.

        Raises:
            StorageError: the file is gone, unreadable, not what was stored, or outside of the root.
            UnsafePickleError: a pickle that this manager has no key for, or that was tampered with.
        """
        place = self._place(stored, "load")
        try:
            path = self._root / stored.location
            self._refuse_outside(path, "load", place)
            with path.open("rb") as file:
                return decode(file, stored, self._serializer, target=place.asset, partition=place.partition)
        except FlowStoneError:
            raise  # some are an OSError too
        except OSError as error:
            raise storage_error("load", place.asset, place.partition, error) from error

    def discard(self, stored: StoredOutput) -> None:
        """Delete the file of a version, if it is still there.

        Raises:
            StorageError: it cannot be deleted.
        """
        place = self._place(stored, "delete")
        try:
            path = self._root / stored.location
            self._refuse_outside(path, "delete", place)
            path.unlink(missing_ok=True)
        except FlowStoneError:
            raise  # some are an OSError too
        except NotADirectoryError:
            return
        except OSError as error:
            raise storage_error("delete", place.asset, place.partition, error) from error

    def leftovers(self, *, older_than_seconds: float) -> Iterator[Path]:
        """Find the temporary files of attempts whose process was killed while writing.

        Args:
            older_than_seconds: time since the last write; choose more than any value takes to write.
        """
        return temporary_files(self._root, older_than_seconds=older_than_seconds)

    def sweep(self, *, older_than_seconds: float, keep: KeepVersions | None = None) -> int:
        """Delete what dead attempts left: temporary files, and versions that nobody wants.

        Args:
            older_than_seconds: only files last written longer ago.
            keep: takes versions, returns those that are committed or may still be; None deletes temporary files
                only, by their age alone.

        Returns:
            How many files were deleted.
        """
        if keep is None:
            return _delete(self.leftovers(older_than_seconds=older_than_seconds))
        deleted = 0
        for page in batched(self._versions(older_than_seconds), _PAGE):
            kept = set(keep(sorted({version for version, _ in page if version})))
            # of a temporary file that does not show its version only the age is known
            deleted += _delete(
                path for version, path in page if version not in kept and (version or is_older(path, _DAY_SECONDS))
            )
        return deleted

    def _versions(self, older_than_seconds: float) -> Iterator[tuple[str, Path]]:
        """Yield the old files of this project, and the old temporary ones, with their versions."""
        for directory, directories, names in self._root.walk():
            if directory == self._root:
                # versions are known in their own project only
                directories[:] = [name for name in directories if _project_of(name) == self._project.name]
            for name in names:
                path = directory / name
                temporary = is_temporary(path)
                final = final_name(path) if temporary else name
                place = _Place.parse((directory / final).relative_to(self._root).as_posix()) if final else None
                if (temporary or place is not None) and is_older(path, older_than_seconds):
                    yield place.version if place is not None else "", path

    def _place(self, stored: StoredOutput, action: str) -> _Place:
        place = _Place.parse(stored.location)
        if place is None:
            raise _outside(action, f"location {stored.location!r}", "", "it is not one that this manager gives")
        return place

    def _refuse_outside(self, path: Path, action: str, place: _Place) -> None:
        """Refuse a path that symbolic links lead out of the root."""
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise _outside(action, place.asset, place.partition, "a symbolic link leads out of the root")


def _delete(paths: Iterable[Path]) -> int:
    deleted = 0
    for path in list(paths):
        with suppress(OSError):  # deleted by another process meanwhile, or denied: the next sweep tries again
            path.unlink()
            deleted += 1
    return deleted


def _project_of(directory: str) -> str:
    """Return the project to which a folder below the root belongs."""
    return directory.removeprefix(_OF_PROJECT) if directory.startswith(_OF_PROJECT) else DEFAULT_PROJECT


def _outside(action: str, target: str, partition: str, why: str) -> StorageError:
    return StorageError(
        action,
        target,
        partition,
        f"the location was refused, {why}",
        kind="unsafe",
        remedy="The recorded location or the folder was changed; check both, then materialize it again.",
    )
