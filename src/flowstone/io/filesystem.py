"""Values as files below one directory: safe names, and files that appear whole or not at all.

The escaped form of a name uses lowercase letters, digits and `- _ . + % ~ @` only, so that file systems that fold
case, normalise Unicode, strip trailing dots or reserve device names all keep distinct texts distinct. A file is
written beside its name, synced and renamed (`replacing`). `FilesystemIO`, at the end, puts names and files
together.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import batched
from pathlib import Path
from typing import BinaryIO, NamedTuple

from flowstone.core.by_reference import ScanKind
from flowstone.core.declaring import is_text, shown
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import NO_PARTITION, PartitionKey
from flowstone.core.project import DEFAULT_PROJECT, InProject
from flowstone.errors import ConfigurationError, FlowStoneError, StorageError, StorageFailure
from flowstone.io.by_reference import Session, StoredTable, as_scan, is_scannable, scan, scanned_kind
from flowstone.io.encoding import Codec, check_serializer, copy_encoded, corrupt, encode, not_ours, serializer_for
from flowstone.protocols import KeepVersions, Serializer

_MAX_REASON = 500


class Failure(NamedTuple):
    """A kind of failure and what to do about it."""

    kind: StorageFailure
    remedy: str


_FULL = Failure("full", "Free space or raise the quota; the previous version is still readable.")
_DENIED = Failure("denied", "Give the user that runs this process the right to read and write there.")
_READ_ONLY = Failure("read_only", "Mount it writable, or choose another root.")
_MISSING = Failure("missing", "Materialize the asset again, or restore the file from a backup.")
_BLOCKED = Failure("other", "Something else lies where a folder or file is expected; move it away.")
_TOO_LONG = Failure("too_large", "Use a shorter root, asset name or partition key.")
_OTHER = Failure("other", "Look at the disk and its mount; the previous version is still readable.")

_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _READ_ONLY,
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _BLOCKED,
    errno.EISDIR: _BLOCKED,
    errno.EEXIST: _BLOCKED,
    errno.ENAMETOOLONG: _TOO_LONG,
}


def storage_error(action: str, asset: str, partition: str, error: OSError) -> StorageError:
    """Return the StorageError for what the operating system said.

    Args:
        action: `"store"`, `"load"` or `"delete"`.
        asset: asset name.
        partition: encoded partition key.
        error: what was raised.

    Example:
        >>> storage_error("store", "numbers", "", OSError(errno.ENOSPC, "No space left on device")).kind
        'full'
    """
    failure = _BY_ERRNO.get(error.errno or 0, _OTHER)
    why = str(error)
    if len(why) > _MAX_REASON:
        why = f"{why[:_MAX_REASON]}..."
    return StorageError(action, asset, partition, why, kind=failure.kind, remedy=failure.remedy)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "clock$", "conin$", "conout$"}
    | {f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789"}
)
_EMPTY = "@"
_JOINT = "~/~"
# File systems allow 255 bytes; encrypted ones 143. The joint marks and an extension have to fit too.
_MAX_SEGMENT = 120
_TOKEN = re.compile(r"[a-z0-9\-_.]|\+[a-z]|(?:%[0-9a-f]{2})+")
# Most names: of one segment, no dot at either end. They are their own escaped form unless they are reserved.
_SIMPLE = re.compile(rf"[a-z0-9\-_](?:[a-z0-9\-_.]{{0,{_MAX_SEGMENT - 2}}}[a-z0-9\-_])?")


def escape(text: str) -> str:
    """Return `text` as a relative path: one segment, or several joined by `~/~` when it is long.

    Distinct texts give paths that differ even on a file system that ignores case or normalises Unicode.
    Capital letters become `+` and the small letter, other characters `%xx` for each byte of their UTF-8.

    Args:
        text: anything, including the empty text, NUL, slashes and lone surrogates.

    Example:
        >>> escape("2024-01-01"), escape("../Etc"), escape("con"), escape("")
        ('2024-01-01', '%2e.%2f+etc', '%63on', '@')
    """
    if _SIMPLE.fullmatch(text) and text.partition(".")[0] not in _RESERVED:
        return text
    if not text:
        return _EMPTY
    pieces = [_escape_character(character) for character in text]
    if text.partition(".")[0] in _RESERVED or text[0] == ".":
        pieces[0] = _percent(text[0])
    if text[-1] == ".":
        pieces[-1] = _percent(".")
    escaped = "".join(pieces)
    return _JOINT.join(escaped[start : start + _MAX_SEGMENT] for start in range(0, len(escaped), _MAX_SEGMENT))


def unescape(path: str) -> str:
    """Return the text that `escape` turned into `path`.

    Args:
        path: an escaped path.

    Raises:
        ValueError: `escape` never returns this path.

    Example:
        >>> unescape(escape("a/B|ü"))
        'a/B|ü'
    """
    if path == _EMPTY:
        return ""
    try:
        text = _decode(path.replace(_JOINT, ""))
    except UnicodeDecodeError:
        text = ""
    # Only the form that `escape` chooses is valid, so that no two paths stand for one text.
    if not text or escape(text) != path:
        raise ValueError(f"{path!r} is not an escaped path")
    return text


def split_location(location: str) -> list[str]:
    """Split a path of several escaped texts into the escaped texts.

    Example:
        >>> split_location("a/b~/~c/d")
        ['a', 'b~/~c', 'd']
    """
    return re.split(r"(?<!~)/", location)


def file_name(version: str, extension: str) -> str:
    """Return the path of a version within its folder; the first dot starts the extension.

    Example:
        >>> file_name("step.7-1", ".json")
        'step%2e7-1.json'
    """
    return escape(version).replace(".", "%2e") + extension


def version_of(name: str) -> str:
    """Return the version whose `file_name` is `name`.

    Raises:
        ValueError: no version has this file name.

    Example:
        >>> version_of("step%2e7-1.json")
        'step.7-1'
    """
    stem, dot, extension = name.partition(".")
    try:
        version = "" if stem == _EMPTY else _decode(stem.replace(_JOINT, ""))
    except UnicodeDecodeError:
        version = ""
    if file_name(version, dot + extension) != name or not re.fullmatch(r"(\.[a-z0-9]+)*", dot + extension):
        raise ValueError(f"{name!r} is not the file name of a version")
    return version


def _percent(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def _escape_character(character: str) -> str:
    if character in _PLAIN:
        return character
    if character in _UPPER:
        return "+" + character.lower()
    return _percent(character)


def _decode(escaped: str) -> str:
    """Decode what is understood; callers compare the result with what it would be escaped to."""
    return "".join(_unescape_token(token) for token in _TOKEN.findall(escaped))


def _unescape_token(token: str) -> str:
    if token[0] == "+":
        return token[1].upper()
    if token[0] == "%":
        return bytes.fromhex(token.replace("%", "")).decode("utf-8", "surrogatepass")
    return token


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
    try:
        path.mkdir()
    except FileNotFoundError:
        make_directory(path.parent, durable=durable)
        path.mkdir(exist_ok=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if durable:
        sync_directory(path.parent)


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


# "@" alone is the escaped empty text and "@" starts nothing else, so no partition key gets this folder.
UNPARTITIONED = "@unpartitioned"
# for the same reason no asset gets the folder of a project
OF_PROJECT = "@project-"
_PAGE = 1000
_DAY_SECONDS = 86_400.0


class Place(NamedTuple):
    """The parts of a location below a root: of a file, or of an object."""

    asset: str
    partition_key: PartitionKey
    version: str
    extension: str
    project: str = DEFAULT_PROJECT

    @classmethod
    def of(cls, address: OutputAddress, extension: str) -> Place:
        """Return where an attempt writes; its token is part of the name, see `OutputAddress.fenced_version`."""
        return cls(
            address.asset, address.partition_key, address.version, f".{address.token}{extension}", address.project
        )

    @property
    def fenced_version(self) -> str:
        """The version with the token of its attempt; without one for what earlier versions of FlowStone wrote."""
        token = self.extension.split(".")[1] if self.extension else ""
        return f"{self.version}.{token}" if token.isdecimal() else self.version

    @property
    def asset_directory(self) -> str:
        """The path of all that is stored of the asset, below the root."""
        top = "" if self.project == DEFAULT_PROJECT else f"{OF_PROJECT}{self.project}/"
        return top + escape(self.asset)

    @property
    def location(self) -> str:
        """The path below the root."""
        directory = escape(self.partition_key) if self.partition_key else UNPARTITIONED
        return f"{self.asset_directory}/{directory}/{file_name(self.version, self.extension)}"

    @classmethod
    def parse(cls, location: str) -> Place | None:
        """Return the parts; None unless the location is exactly what `location` gives for them."""
        segments = split_location(location)
        project = segments.pop(0).removeprefix(OF_PROJECT) if len(segments) == 4 else DEFAULT_PROJECT
        if len(segments) != 3:
            return None
        asset, directory, file = segments
        try:
            place = cls(
                unescape(asset),
                NO_PARTITION if directory == UNPARTITIONED else PartitionKey(unescape(directory)),
                version_of(file),
                "".join(file.partition(".")[1:]),
                project,
            )
        except ValueError:
            return None
        return place if place.location == location else None


class FilesystemIO(InProject):
    """Stores each value as a file `<root>/<asset>/<partition>/<version>.<token><extension>`.

    Projects other than the default one have a folder `<root>/@project-<name>` each.

    The fencing token of the attempt is part of the name, so no attempt ever writes what another one published. A
    file is written beside its final name, synced and renamed, so it is there as a whole or not at all;
    writing streams, so memory does not grow with the encoded size. Names are escaped reversibly (see
    `flowstone.io.filesystem`): no partition key can leave the root or collide with another one. Loading verifies
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
        ('numbers/2024/1-1.1.json', [1, 2, 3])
    """

    def __init__(
        self,
        root: Path | str,
        *,
        serializer: Serializer | None = None,
        durable: bool = True,
        name: str = "filesystem",
    ) -> None:
        check_serializer(serializer)
        given: object = root
        if not isinstance(given, str | os.PathLike) or not is_text(os.fspath(given)):
            raise ConfigurationError(f"FilesystemIO({shown(given)}): give a directory.")
        kind: object = durable
        if not isinstance(kind, bool):
            raise ConfigurationError(f"FilesystemIO(durable={shown(durable)}): give True or False.")
        # Absolute from here on, so that a later os.chdir does not move the values.
        self._root = Path(root).absolute()
        self._serializer = serializer
        self._durable = durable
        self._name = name
        self.codec = Codec(name, serializer, target_of)

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    @property
    def shared(self) -> bool:
        """True: any process that sees the folder can load the values."""
        return True

    def dataset(self, asset: str) -> tuple[str, str]:
        """Return the name of an asset's values in catalogs of data: the folder in which they lie."""
        return "file", str(self._root / Place(asset, NO_PARTITION, "", "", self._project.name).asset_directory)

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
        serializer = serializer_for(value, self._serializer)
        place = Place.of(address, serializer.extension)
        with self._new_file(place) as file:
            return encode(value, serializer, file, address=address, io=self._name, location=place.location)

    def store_encoded(self, file: BinaryIO, encoded: StoredOutput, address: OutputAddress) -> StoredOutput:
        """Write the bytes of a value that was encoded elsewhere to a file of their own; see `store`."""
        place = Place.of(address, self.codec.extension_of(encoded))
        with self._new_file(place) as target:
            copy_encoded(file, encoded, target, address)
        return replace(encoded, location=place.location)

    @contextlib.contextmanager
    def _new_file(self, place: Place) -> Iterator[BinaryIO]:
        try:
            path = self._root / place.location
            make_directory(path.parent, durable=self._durable)
            self._refuse_outside(path.parent, "store", place)
            with replacing(path, durable=self._durable) as file:
                yield file
        except FlowStoneError:
            raise  # some are an OSError too
        except OSError as error:
            raise storage_error("store", place.asset, place.partition_key, error) from error

    def load(self, stored: StoredOutput) -> object:
        """Read a value back.

        Raises:
            StorageError: the file is gone, unreadable, not what was stored, or outside of the root.
            UnsafePickleError: a pickle that this manager has no key for, or that was tampered with.
        """
        kind = scanned_kind(stored)
        if kind is not None:
            return self.scan(stored, kind, {})
        with self.open_encoded(stored) as file:
            return self.codec.decode(file, stored)

    @contextlib.contextmanager
    def open_encoded(self, stored: StoredOutput) -> Iterator[BinaryIO]:
        """Open the file of a value, which is not verified yet, or raise a StorageError."""
        place = _place_of(stored, "load")
        try:
            path = self._root / stored.location
            self._refuse_outside(path, "load", place)
            with path.open("rb") as file:
                yield file
        except FlowStoneError:
            raise  # some are an OSError too
        except OSError as error:
            raise storage_error("load", place.asset, place.partition_key, error) from error

    def scan(self, stored: StoredOutput, kind: ScanKind, session: Session) -> object:
        """Return a scan of a table that is read when and as far as it is needed.

        The size of the file is verified, its SHA-256 is not: that would read all of it.

        Raises:
            StorageError: the file is gone, unreadable, not as large as what was stored, or outside of the root.
            SerializationError: the value is no table.
        """
        if not is_scannable(stored):
            return as_scan(self.load(stored), kind, session)
        place = _place_of(stored, "load")
        path = self._root / stored.location
        try:
            self._refuse_outside(path, "load", place)
            if path.stat().st_size != stored.size_bytes:
                raise corrupt(stored, place.asset, place.partition_key)
            found = scan(StoredTable(str(path)), kind, session)
        except FlowStoneError:
            raise
        except OSError as error:
            raise storage_error("load", place.asset, place.partition_key, error) from error
        return as_scan(self.load(stored), kind, session) if found is None else found

    def discard(self, stored: StoredOutput) -> None:
        """Delete the file of a version, if it is still there.

        Raises:
            StorageError: it cannot be deleted.
        """
        place = _place_of(stored, "delete")
        try:
            path = self._root / stored.location
            self._refuse_outside(path, "delete", place)
            path.unlink(missing_ok=True)
        except FlowStoneError:
            raise  # some are an OSError too
        except NotADirectoryError:
            return
        except OSError as error:
            raise storage_error("delete", place.asset, place.partition_key, error) from error

    def find(self, stored: Sequence[StoredOutput]) -> list[bool]:
        """Return for each value whether its file is there.

        Raises:
            StorageError: a location is not one that this manager gives.
        """
        places = [_place_of(one, "find") for one in stored]
        return [(self._root / place.location).is_file() for place in places]

    def erase(self, asset: str, partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Delete the files of versions of a partition, temporary ones included, and its folder when that is empty.

        Returns:
            How many files were deleted.

        Raises:
            StorageError: one cannot be deleted.
        """
        place = Place(asset, partition_key, "0-0", "", self._project.name)
        directory = (self._root / place.location).parent
        gone, deleted = set(versions), 0
        try:
            for path in list(directory.iterdir()) if directory.is_dir() else ():
                if _version_in(path) in gone:
                    self._refuse_outside(path, "delete", place)
                    path.unlink(missing_ok=True)
                    deleted += 1
            with suppress(OSError):  # not empty, or gone already
                directory.rmdir()
        except FlowStoneError:
            raise
        except OSError as error:
            raise storage_error("delete", asset, partition_key, error) from error
        return deleted

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
                directories[:] = [name for name in directories if project_of(name) == self._project.name]
            for name in names:
                path = directory / name
                temporary = is_temporary(path)
                final = final_name(path) if temporary else name
                place = Place.parse((directory / final).relative_to(self._root).as_posix()) if final else None
                if (temporary or place is not None) and is_older(path, older_than_seconds):
                    yield place.fenced_version if place is not None else "", path

    def _refuse_outside(self, path: Path, action: str, place: Place) -> None:
        """Refuse a path that symbolic links lead out of the root."""
        below, depth = path, len(self._root.parts)
        while len(below.parts) > depth and not below.is_symlink():
            below = below.parent
        # a path that is below the root by its text (`Place`) lies there unless it has a link below the root
        if len(below.parts) > depth and not path.resolve().is_relative_to(self._root.resolve()):
            raise StorageError(
                action,
                place.asset,
                place.partition_key,
                "the location was refused, a symbolic link leads out of the root",
                kind="unsafe",
                remedy="The recorded location or the folder was changed; check both, then materialize it again.",
            )


def _place_of(stored: StoredOutput, action: str) -> Place:
    place = Place.parse(stored.location)
    if place is None:
        raise not_ours(stored, action)
    return place


def target_of(stored: StoredOutput) -> tuple[str, str]:
    """Return the asset and the partition key of a value, by the location that `FilesystemIO` gave it."""
    place = _place_of(stored, "load")
    return place.asset, place.partition_key


def _delete(paths: Iterable[Path]) -> int:
    deleted = 0
    for path in list(paths):
        with suppress(OSError):  # deleted by another process meanwhile, or denied: the next sweep tries again
            path.unlink()
            deleted += 1
    return deleted


def _version_in(path: Path) -> str | None:
    """Return the version that a file, or a temporary one, is of; None when its name says none."""
    name = final_name(path) if is_temporary(path) else path.name
    try:
        return version_of(name) if name else None
    except ValueError:
        return None


def project_of(directory: str) -> str:
    """Return the project to which a folder below the root belongs."""
    return directory.removeprefix(OF_PROJECT) if directory.startswith(OF_PROJECT) else DEFAULT_PROJECT
