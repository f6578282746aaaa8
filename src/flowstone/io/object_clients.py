"""Clients of object storages: obstore and fsspec behind one protocol, and what their errors mean.

`client_of` returns what speaks to a storage; `_Obstore` and `_Fsspec` do so, and `failure_of`, at the end, says
what they raise.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from flowstone.core.clean import clean_text
from flowstone.core.declaring import named_values
from flowstone.errors import (
    ConfigurationError,
    MissingExtraError,
    StorageError,
    StorageFailure,
)
from flowstone.io.filesystem import storage_error

MIB = 1024 * 1024
_PARTS_AT_ONCE = 4
_PAGE = 1_000
_MAX_REASON = 300
_FOLDERS_FIRST = frozenset({"file", "local", "sftp", "ssh", "smb", "hdfs", "ftp", "dir"})
"""Protocols of fsspec where a directory has to be there before what lies in it."""
_PRIVATE = frozenset({"memory"})


class ListedObject(NamedTuple):
    """An object as a listing shows it."""

    key: str
    modified: datetime | None


class ObjectClient(Protocol):
    """What `ObjectIO` says to a storage; keys are below its prefix."""

    shared: bool

    def named(self) -> tuple[str, str] | None:
        """Return how catalogs of data call the place, and the path in it; None when they have no name for it."""

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

    def list(self, directory: str) -> Iterator[ListedObject]:
        """Yield the objects below a directory."""


def client_of(store: object, prefix: str, options: Mapping[str, Any] | None) -> ObjectClient:
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
    given = {} if options is None else named_values(options)
    if given is None:
        raise ConfigurationError(
            "ObjectIO(options=...): give a mapping of names to values, such as {'region': ...}."
        )
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

    def named(self) -> tuple[str, str] | None:
        store, above = self._store, str(getattr(self._store, "prefix", None) or "")
        path = f"{above.strip('/')}/{self._prefix}".lstrip("/")
        match type(store).__name__:
            case "S3Store":
                return f"s3://{store.config['bucket']}", path
            case "GCSStore":
                return f"gs://{store.config['bucket']}", path
            case "AzureStore":
                return _azure(store.config["container_name"], store.config["account_name"]), path
            case "LocalStore":
                return "file", f"/{path}"
        return None

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
        for piece in self._api.get(self._store, self._prefix + key).stream(min_chunk_size=MIB):
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

    def list(self, directory: str) -> Iterator[ListedObject]:
        for page in self._api.list(self._store, prefix=self._prefix + directory or None, chunk_size=_PAGE):
            for one in page:
                yield ListedObject(one["path"].removeprefix(self._prefix), one["last_modified"])


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
        return io.BufferedReader(_Seekable(obstore.open_reader(self._store, path)), MIB)


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

    def named(self) -> tuple[str, str] | None:
        if self._protocols & {"file", "local"}:
            return "file", f"{Path(self._prefix).absolute()}/"
        bucket, _, path = self._prefix.lstrip("/").partition("/")
        if not bucket:
            return None
        if self._protocols & {"s3", "s3a"}:
            return f"s3://{bucket}", path
        if self._protocols & {"gs", "gcs"}:
            return f"gs://{bucket}", path
        if self._protocols & {"abfs", "abfss", "az"}:
            return _azure(bucket, self._files.account_name), path
        return None

    def put(self, key: str, file: BinaryIO, size_bytes: int, part_bytes: int) -> None:
        path = self._prefix + key
        if self._protocols & _FOLDERS_FIRST:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        if size_bytes <= part_bytes:
            self._files.pipe_file(path, file.read())
        else:
            target = self._files.open(path, "wb", block_size=part_bytes)
            try:
                shutil.copyfileobj(file, target, MIB)
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
            while piece := file.read(MIB):
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

    def list(self, directory: str) -> Iterator[ListedObject]:
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
                yield ListedObject(rest.removeprefix(above), _modified(details))

    def _forget(self) -> None:
        """Have listings that the file system keeps read again: other processes write too."""
        with suppress(AttributeError):
            self._files.invalidate_cache()


def _azure(container: str, account: str) -> str:
    return f"abfss://{container}@{account}.dfs.core.windows.net"


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
