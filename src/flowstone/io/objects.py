"""Values as objects of a bucket: S3, Google Cloud Storage, Azure, and what fsspec reaches.

`ObjectIO` names, verifies and sweeps; `_Obstore` and `_Fsspec` below it say the same few things to the two kinds
of clients, and `failure_of`, at the end, says what their errors mean. An object appears as a whole or not at all,
because its bytes lie complete on this machine before the first of them is sent.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from flowstone.core.by_reference import ScanKind
from flowstone.core.clean import clean_text
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import DEFAULT_PROJECT, InProject
from flowstone.errors import (
    ConfigurationError,
    FlowStoneError,
    MissingExtraError,
    StorageError,
    StorageFailure,
)
from flowstone.io.by_reference import Session, StoredTable, as_scan, is_scannable, scan, scanned_kind
from flowstone.io.encoding import check_extension, corrupt, decode, encode, serializer_for
from flowstone.io.filesystem import OF_PROJECT, UNPARTITIONED, Place, escape, outside, storage_error
from flowstone.protocols import KeepVersions, Serializer

_MIB = 1024 * 1024
_KEPT_IN_MEMORY = 16 * _MIB
_MAX_PARTS = 9_000  # S3 takes 10,000
_MAX_LOCATION = 800  # S3, GCS and Azure take 1,024 bytes, the prefix included
_PARTS_AT_ONCE = 4
_PAGE = 1_000
_LONG = "@long-"
_MAX_REASON = 300
_FOLDERS_FIRST = frozenset({"file", "local", "sftp", "ssh", "smb", "hdfs", "ftp", "dir"})
"""Protocols of fsspec where a directory has to be there before what lies in it."""
_PRIVATE = frozenset({"memory"})


class _Listed(NamedTuple):
    """An object as a listing shows it."""

    key: str
    modified: datetime | None


class _Client(Protocol):
    """What `ObjectIO` says to a storage; keys are below its prefix."""

    shared: bool

    def put(self, key: str, file: BinaryIO, size_bytes: int, part_bytes: int) -> None:
        """Store the rest of a file as one object."""

    def pieces(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object."""

    def size(self, key: str) -> int | None:
        """Return the size of an object; None when there is none."""

    def where(self, key: str) -> tuple[str, Any]:
        """Return the path of an object, and the file system of fsspec that opens it, or what has its methods."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are gone are no error."""

    def list(self, directory: str) -> Iterator[_Listed]:
        """Yield the objects below a directory."""


class ObjectIO(InProject):
    """Stores each value as an object `<prefix>/<asset>/<partition>/<version>.<token><extension>` of a bucket.

    The names are those of `FilesystemIO` with the fencing token of the attempt, so no attempt ever writes what
    another one published, not even one that lost its lease and goes on. A value is encoded to a temporary file
    first (in memory up to 16 MiB), then sent with one request or in parts that become an object together; nothing
    is renamed. Loading verifies size and SHA-256.

    Args:
        store: a URL such as `"s3://bucket/values"`, `"gs://..."`, `"az://..."`; a store of obstore; or a file
            system of fsspec.
        prefix: directory in the bucket, below that of the URL; of a file system of fsspec the whole path, with the
            bucket.
        options: of the store that a URL stands for, such as `{"endpoint": ..., "region": ...}`; what is not given
            is read from the environment as usual (`AWS_ACCESS_KEY_ID`, ...).
        part_bytes: larger values are sent in parts of this size.
        serializer: format of all values; None chooses by the value (see `choose_serializer`).
        name: name under which the app knows it.

    Raises:
        ConfigurationError: the store is none, or its options cannot be.
        MissingExtraError: obstore is not installed.

    Example:
        >>> objects = ObjectIO("memory:///")
        >>> stored = objects.store([1, 2, 3], OutputAddress("numbers", "2024", "run", 1, attempt=1, token=7))
        >>> stored.location, objects.load(stored)
        ('numbers/2024/1-1.7.json', [1, 2, 3])
    """

    def __init__(
        self,
        store: object,
        *,
        prefix: str = "",
        options: Mapping[str, Any] | None = None,
        part_bytes: int = 16 * _MIB,
        serializer: Serializer | None = None,
        name: str = "objects",
    ) -> None:
        if not 5 * _MIB <= part_bytes <= 1024 * _MIB:
            raise ConfigurationError(
                f"ObjectIO: part_bytes={part_bytes!r} must be from {5 * _MIB} (S3 takes no smaller parts) to "
                f"{1024 * _MIB}."
            )
        check_extension(serializer)
        if re.search(r"(^|/)\.{1,2}(/|$)|//", prefix):
            raise ConfigurationError(
                f"ObjectIO: prefix={prefix!r} must be a directory such as 'flowstone/values'."
            )
        self._client = _client(store, prefix, options)
        self._part_bytes = part_bytes
        self._serializer = serializer
        self._name = name

    def __repr__(self) -> str:
        return f"ObjectIO({self._client!r}, name={self._name!r})"

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    @property
    def shared(self) -> bool:
        """Whether other processes see the values: False for a store in memory."""
        return self._client.shared

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Write `value` to an object of its own.

        Raises:
            SerializationError: the value cannot be written exactly; nothing was sent.
            StorageError: the storage refused it or does not answer; nothing of it can be read.
        """
        serializer = serializer_for(value, self._serializer)
        location = _location(Place.of(address, serializer.extension))
        # the whole value lies here before the first byte is sent: what fails on the way to it never gets a name
        with tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY) as spool:
            file = cast("BinaryIO", spool)
            try:
                stored = encode(value, serializer, file, address=address, io=self._name, location=location)
                file.seek(0)
            except FlowStoneError:
                raise
            except OSError as error:
                raise storage_error("store", address.asset, address.partition_key, error) from error
            size = stored.size_bytes or 0
            try:
                self._client.put(location, file, size, max(self._part_bytes, size // _MAX_PARTS))
            except BaseException as error:
                # some clients publish what they have when they fail
                with suppress(Exception):
                    self._client.delete([location])
                if not isinstance(error, Exception):
                    raise
                raise failure_of("store", address.asset, address.partition_key, error) from error
        return stored

    def load(self, stored: StoredOutput) -> object:
        """Read a value back.

        Raises:
            StorageError: the object is gone, is not what was stored, or the storage does not answer.
            UnsafePickleError: a pickle that this manager has no key for, or that was tampered with.
        """
        kind = scanned_kind(stored)
        if kind is not None:
            return self.scan(stored, kind, {})
        place = _place(stored, "load")
        with tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY) as spool:
            file = cast("BinaryIO", spool)
            received = 0
            try:
                for piece in self._client.pieces(stored.location):
                    received += file.write(piece)
                    if stored.size_bytes is not None and received > stored.size_bytes:
                        break  # what follows cannot make it right
            except Exception as error:
                raise failure_of("load", place.asset, place.partition_key, error) from error
            return decode(file, stored, self._serializer, target=place.asset, partition=place.partition_key)

    def scan(self, stored: StoredOutput, kind: ScanKind, session: Session) -> object:
        """Return a scan of a table, whose parts are fetched when they are needed.

        The size of the object is verified, its SHA-256 is not: that would fetch all of it.

        Raises:
            StorageError: the object is gone, not as large as what was stored, or the storage does not answer.
            SerializationError: the value is no table.
        """
        if not is_scannable(stored):
            return as_scan(self.load(stored), kind, session)
        place = _place(stored, "load")
        try:
            size = self._client.size(stored.location)
            if size is None:
                raise FileNotFoundError(f"there is no object {stored.location!r}")
            if size != stored.size_bytes:
                raise corrupt(stored, place.asset, place.partition_key)
            found = scan(StoredTable(*self._client.where(stored.location)), kind, session)
        except FlowStoneError:
            raise
        except Exception as error:
            raise failure_of("load", place.asset, place.partition_key, error) from error
        return as_scan(self.load(stored), kind, session) if found is None else found

    def discard(self, stored: StoredOutput) -> None:
        """Delete the object of a version, if it is still there, or raise a StorageError."""
        self.discard_many([stored])

    def discard_many(self, stored: Sequence[StoredOutput]) -> None:
        """Delete the objects of versions with as few requests as the storage allows; see `discard`."""
        places = [_place(one, "delete") for one in stored]
        try:
            self._client.delete([one.location for one in stored])
        except Exception as error:
            one = (
                (places[0].asset, places[0].partition_key) if len(places) == 1 else (f"{len(places)} versions", "")
            )
            raise failure_of("delete", *one, error) from error

    def find(self, stored: Sequence[StoredOutput]) -> list[bool]:
        """Return for each value whether its object is there, in its size.

        Raises:
            StorageError: a location is not one that this manager gives, or the storage does not answer.
        """
        for one in stored:
            _place(one, "find")
        if not stored:
            return []
        try:
            with ThreadPoolExecutor(min(8, len(stored))) as pool:
                sizes = list(pool.map(self._client.size, [one.location for one in stored]))
        except Exception as error:
            raise failure_of("find", f"{len(stored)} versions", "", error) from error
        return [
            size is not None and one.size_bytes in (None, size) for one, size in zip(stored, sizes, strict=True)
        ]

    def erase(self, asset: str, partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Delete the objects of versions of a partition, whatever their tokens.

        Returns:
            How many were deleted.

        Raises:
            StorageError: one cannot be deleted.
        """
        directory = _location(Place(asset, partition_key, "0-0", "", self._project.name)).rpartition("/")[0]
        gone = set(versions)
        try:
            keys = [
                one.key
                for one in self._client.list(directory)
                if (place := _parse(one.key)) is not None and place.version in gone
            ]
            self._client.delete(keys)
        except Exception as error:
            raise failure_of("delete", asset, partition_key, error) from error
        return len(keys)

    def sweep(self, *, older_than_seconds: float, keep: KeepVersions | None = None) -> int:
        """Delete the objects of versions that nobody wants.

        What a writer that was killed had sent of a large value is no object and shows in no listing; let a
        lifecycle rule of the bucket abort multipart uploads that are a day old.

        Args:
            older_than_seconds: only objects last written longer ago, by the clock of the storage.
            keep: takes versions, returns those that are committed or may still be; None deletes nothing, because
                an object is never half there.

        Returns:
            How many objects were deleted.

        Raises:
            StorageError: the storage refused or does not answer.
        """
        if keep is None:
            return 0
        deleted = 0
        before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        project = self._project.name
        directory = "" if project == DEFAULT_PROJECT else f"{OF_PROJECT}{project}"
        try:
            for page in batched(self._versions(directory, before), _PAGE):
                kept = set(keep(sorted({version for version, _ in page})))
                doomed = [key for version, key in page if version not in kept]
                self._client.delete(doomed)
                deleted += len(doomed)
        except FlowStoneError:
            raise
        except Exception as error:
            raise failure_of("delete", "versions without a commit", "", error) from error
        return deleted

    def may_pass(self, error: Exception) -> bool:
        """Whether storing again right away may succeed: only when the storage did not answer properly."""
        return isinstance(error, StorageError) and error.kind == "unavailable"

    def _versions(self, directory: str, before: datetime) -> Iterator[tuple[str, str]]:
        """Yield the versions of this project that were written before, with their keys."""
        for one in self._client.list(directory):
            place = _parse(one.key)
            if place is None or place.project != self._project.name:
                continue  # not ours, or of a project whose steps are not known here
            if one.modified is not None and one.modified < before:
                yield place.fenced_version, one.key


def _location(place: Place) -> str:
    """Return where a value lies; a partition key that is too long for a name in a bucket is hashed."""
    location = place.location
    if len(location) <= _MAX_LOCATION:
        return location
    digest = hashlib.sha256(escape(place.partition_key).encode()).hexdigest()
    short = place._replace(partition_key=PartitionKey("")).location.split("/")
    location = "/".join([*short[:-2], f"{_LONG}{digest}", short[-1]])
    if len(location) > _MAX_LOCATION:
        raise StorageError(
            "store",
            place.asset,
            place.partition_key,
            f"its name has {len(location)} characters, and buckets take 1,024 bytes",
            kind="too_large",
            remedy="Use a shorter asset name.",
        )
    return location


def _parse(location: str) -> Place | None:
    """Return the parts of a location, without a partition that was hashed; None unless this manager gives it."""
    return Place.parse(re.sub(rf"(?<=/){_LONG}[0-9a-f]{{64}}(?=/[^/]+$)", UNPARTITIONED, location))


def _place(stored: StoredOutput, action: str) -> Place:
    place = _parse(stored.location)
    if place is None:
        raise outside(action, f"location {stored.location!r}", "", "it is not one that this manager gives")
    return place


def _client(store: object, prefix: str, options: Mapping[str, Any] | None) -> _Client:
    """Return what speaks to a storage.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(store, str):
        return _Obstore(_from_url(store, options), prefix.strip("/"))
    if options is not None:
        raise ConfigurationError("ObjectIO: options are those of a URL; give a store its options yourself.")
    if type(store).__module__.partition(".")[0] == "obstore" and not isinstance(store, type):
        return _Obstore(store, prefix.strip("/"))
    needed = ("open", "pipe_file", "cat_file", "find", "info", "rm_file")
    if isinstance(store, type) or not all(callable(getattr(store, one, None)) for one in needed):
        raise ConfigurationError(
            f"ObjectIO({type(store).__name__} ...): give a URL such as 's3://bucket/values', a store of obstore, "
            "or a file system of fsspec."
        )
    if getattr(store, "asynchronous", False):
        raise ConfigurationError("ObjectIO: give a file system of fsspec without asynchronous=True.")
    return _Fsspec(store, prefix.rstrip("/"))


def _from_url(url: str, options: Mapping[str, Any] | None) -> object:
    if "://" not in url:
        raise ConfigurationError(
            f"ObjectIO({url!r}): give a URL such as 's3://bucket/values'; a directory takes FilesystemIO."
        )
    try:
        import obstore.exceptions
        import obstore.store
    except ModuleNotFoundError as error:
        raise MissingExtraError("obstore", "objects", "ObjectIO") from error
    given = dict(options or {})
    endpoint = str(given.get("endpoint") or given.get("aws_endpoint") or "")
    client_options: Any = {"allow_http": True} if endpoint.startswith("http://") else None
    # the client tries again by itself; its usual three minutes would hold a thread of a worker for ten
    retry: Any = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
    try:
        if url.startswith("memory:"):
            return obstore.store.from_url(url)
        if url.startswith("file:"):
            return obstore.store.from_url(url, **given)
        config: Any = given
        return obstore.store.from_url(url, config=config, client_options=client_options, retry_config=retry)
    except (obstore.exceptions.BaseError, ValueError, TypeError) as error:
        why = clean_text(str(error).partition("\n")[0], limit=_MAX_REASON)
        raise ConfigurationError(f"ObjectIO({clean_text(url)!r}): {why}") from error


class _Obstore:
    """Speaks through obstore, which tries again by itself what may be tried again."""

    def __init__(self, store: Any, prefix: str) -> None:
        import obstore

        self._api = obstore
        self._store = store
        self._prefix = f"{prefix}/" if prefix else ""
        self.shared = type(store).__name__ != "MemoryStore"

    def __repr__(self) -> str:
        return f"{self._store!r}, prefix={self._prefix.rstrip('/')!r}"

    def put(self, key: str, file: BinaryIO, size_bytes: int, part_bytes: int) -> None:
        key = self._prefix + key
        if size_bytes <= part_bytes:
            self._api.put(self._store, key, file.read(), use_multipart=False)
        else:
            self._api.put(
                self._store,
                key,
                file,
                use_multipart=True,
                chunk_size=part_bytes,
                max_concurrency=_PARTS_AT_ONCE,
            )

    def pieces(self, key: str) -> Iterator[bytes]:
        for piece in self._api.get(self._store, self._prefix + key).stream(min_chunk_size=_MIB):
            yield bytes(piece)

    def size(self, key: str) -> int | None:
        try:
            return int(self._api.head(self._store, self._prefix + key)["size"])
        except FileNotFoundError:
            return None

    def where(self, key: str) -> tuple[str, Any]:
        return self._prefix + key, _Reading(self._store)

    def delete(self, keys: Sequence[str]) -> None:
        if not (paths := [self._prefix + key for key in keys]):
            return
        try:
            self._api.delete(self._store, paths)
        except FileNotFoundError:  # which may have kept the rest from being deleted
            for path in paths:
                with suppress(FileNotFoundError):
                    self._api.delete(self._store, path)

    def list(self, directory: str) -> Iterator[_Listed]:
        for page in self._api.list(self._store, prefix=self._prefix + directory or None, chunk_size=_PAGE):
            for one in page:
                yield _Listed(one["path"].removeprefix(self._prefix), one["last_modified"])


class _Reading:
    """As much of a file system of fsspec as pyarrow needs to read; it can be pickled, as obstore's stores can."""

    protocol = "obstore"

    def __init__(self, store: Any) -> None:
        self._store = store

    def info(self, path: str) -> dict[str, object]:
        import obstore

        return {"name": path, "size": obstore.head(self._store, path)["size"], "type": "file"}

    def isfile(self, path: str) -> bool:
        try:
            return bool(self.info(path))
        except FileNotFoundError:
            return False

    def open(self, path: str, mode: str = "rb") -> BinaryIO:
        import obstore

        assert mode == "rb"
        return io.BufferedReader(_Seekable(obstore.open_reader(self._store, path)), _MIB)


class _Seekable(io.RawIOBase):
    """An object as a file that pyarrow takes for one."""

    def __init__(self, reader: Any) -> None:
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def readinto(self, target: Any, /) -> int:
        piece = self._reader.read(len(target))
        target[: len(piece)] = bytes(piece)
        return len(piece)


class _Fsspec:
    """Speaks through a file system of fsspec."""

    def __init__(self, files: Any, prefix: str) -> None:
        self._files = files
        self._prefix = f"{prefix}/" if prefix else ""
        protocol = getattr(files, "protocol", ())
        self._protocols = frozenset([protocol] if isinstance(protocol, str) else protocol)
        self.shared = not self._protocols & _PRIVATE

    def __repr__(self) -> str:
        return f"{type(self._files).__name__}, prefix={self._prefix.rstrip('/')!r}"

    def put(self, key: str, file: BinaryIO, size_bytes: int, part_bytes: int) -> None:
        path = self._prefix + key
        if self._protocols & _FOLDERS_FIRST:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        if size_bytes <= part_bytes:
            self._files.pipe_file(path, file.read())
        else:
            target = self._files.open(path, "wb", block_size=part_bytes)
            try:
                shutil.copyfileobj(file, target, _MIB)
                target.close()
            except BaseException:
                _abandon(target)
                raise
        found = self.size(key)
        if found != size_bytes:
            raise ConnectionError(f"{found} of {size_bytes} bytes arrived")

    def pieces(self, key: str) -> Iterator[bytes]:
        # not the cached size of an object that was written again
        self._forget()
        with self._files.open(self._prefix + key, "rb") as file:
            while piece := file.read(_MIB):
                yield piece

    def size(self, key: str) -> int | None:
        self._forget()
        try:
            return int(self._files.info(self._prefix + key)["size"])
        except FileNotFoundError:
            return None

    def where(self, key: str) -> tuple[str, Any]:
        return self._prefix + key, self._files

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with suppress(FileNotFoundError):
                self._files.rm_file(self._prefix + key)
        self._forget()

    def list(self, directory: str) -> Iterator[_Listed]:
        self._forget()
        root = (self._prefix + directory).rstrip("/")
        try:
            found = self._files.find(root, detail=True)
        except FileNotFoundError:
            return
        # some answer with other paths than they are given: absolute ones, or with their root
        above = self._prefix.lstrip("/")
        for path, details in found.items():
            rest = str(path).lstrip("/")
            if rest.startswith(above):
                yield _Listed(rest.removeprefix(above), _modified(details))

    def _forget(self) -> None:
        """Have listings that the file system keeps read again: other processes write too."""
        with suppress(AttributeError):
            self._files.invalidate_cache()


def _abandon(target: Any) -> None:
    """Let go of a file that is being written without publishing what it has: closing would, its destructor too."""
    with suppress(Exception):
        target.discard()
    with suppress(Exception):
        target.closed = True


def _modified(details: Mapping[str, Any]) -> datetime | None:
    """Return when an object was written; each file system of fsspec has a name of its own for it."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "modified", "created"):
        found = details.get(name)
        if isinstance(found, int | float):
            return datetime.fromtimestamp(found, UTC)
        if isinstance(found, str):
            with suppress(ValueError):
                found = datetime.fromisoformat(found)
        if isinstance(found, datetime):
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


_FULL = re.compile(r"InsufficientStorage|QuotaExceeded|StorageFull|\b507\b")
_TOO_LARGE = re.compile(r"EntityTooLarge|KeyTooLong|\b413 ")
_REFUSED = re.compile(r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|\b40[13] ")
_SILENT = re.compile(
    r"HTTP error|error sending request|timed? ?out|[Cc]onnect|\b5\d\d |SlowDown|InternalError|ServiceUnavailable|"
    r"\b429 |IncompleteBody|RequestTimeout|reset by peer"
)
_REMEDIES: Mapping[StorageFailure, str] = {
    "full": "Raise the quota or free space; the previous version is still readable.",
    "denied": "Check the credentials and the rights to get, put, list and delete objects there.",
    "too_large": "Store less in one value, or use a shorter asset name.",
    "unavailable": "Check the endpoint and the network; the previous version is still readable.",
    "other": "The previous version is still readable.",
}


def failure_of(action: str, asset: str, partition: str, error: Exception) -> StorageError:
    """Return the StorageError for what a client of a storage raised.

    Args:
        action: `"store"`, `"load"`, `"find"` or `"delete"`.
        asset: asset name, or what is known of the value.
        partition: encoded partition key.
        error: what was raised.

    Example:
        >>> failure_of("store", "numbers", "", ConnectionResetError("reset by peer")).kind
        'unavailable'
    """
    if isinstance(error, StorageError):
        return error
    text = str(error)
    why = clean_text(text.partition("\n")[0].strip() or type(error).__name__, limit=_MAX_REASON)
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in text:
        if action == "load" and "NoSuchBucket" not in text:
            remedy = "Materialize the asset again, or restore the object from a backup."
        else:
            remedy = "Create the bucket, or correct its name."
        return StorageError(action, asset, partition, why, kind="missing", remedy=remedy)
    kind: StorageFailure = "other"
    names = {one.__name__ for one in type(error).__mro__}
    if isinstance(error, PermissionError) or names & {"PermissionDeniedError", "UnauthenticatedError"}:
        kind = "denied"
    elif isinstance(error, ConnectionError | TimeoutError):
        kind = "unavailable"
    elif isinstance(error, OSError) and error.errno is not None:
        return storage_error(action, asset, partition, error)
    else:
        for pattern, meant in _MEANT:
            if pattern.search(text):
                kind = meant
                break
    return StorageError(action, asset, partition, why, kind=kind, remedy=_REMEDIES[kind])


_MEANT: tuple[tuple[re.Pattern[str], StorageFailure], ...] = (
    (_FULL, "full"),
    (_TOO_LARGE, "too_large"),
    (_REFUSED, "denied"),
    (_SILENT, "unavailable"),
)
