"""Values as objects of a bucket: S3, Google Cloud Storage, Azure, and what fsspec reaches.

`ObjectIO` names, verifies and sweeps; what it says to a storage goes through `object_clients`. An object appears
as a whole or not at all, because its bytes lie complete on this machine before the first of them is sent.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any, BinaryIO, cast

from flowstone.core.by_reference import ScanKind
from flowstone.core.declaring import is_storable, shown, whole_number
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import NO_PARTITION, PartitionKey
from flowstone.core.project import DEFAULT_PROJECT, InProject
from flowstone.errors import (
    ConfigurationError,
    FlowStoneError,
    StorageError,
)
from flowstone.io.by_reference import Session, StoredTable, as_scan, is_scannable, scan, scanned_kind
from flowstone.io.encoding import Codec, check_encoded, check_serializer, corrupt, encode, not_ours, serializer_for
from flowstone.io.filesystem import OF_PROJECT, UNPARTITIONED, Place, escape, storage_error
from flowstone.io.object_clients import MIB, client_of, failure_of
from flowstone.protocols import KeepVersions, Serializer

_KEPT_IN_MEMORY = 16 * MIB
_MAX_PARTS = 9_000  # S3 takes 10,000
_MAX_LOCATION = 800  # S3, GCS and Azure take 1,024 bytes, the prefix included
_PAGE = 1_000
_LONG = "@long-"
_PREFIX = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))(?!.*//)[^\x00-\x1f\x7f]{0,700}", re.DOTALL)
"""What the keys of all objects may begin with: no name of a directory that is not one, no control characters."""


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
        part_bytes: int = 16 * MIB,
        serializer: Serializer | None = None,
        name: str = "objects",
    ) -> None:
        size = whole_number(part_bytes, minimum=5 * MIB, maximum=1024 * MIB)
        if size is None:
            raise ConfigurationError(
                f"ObjectIO: part_bytes={shown(part_bytes)} must be from {5 * MIB} (S3 takes no smaller parts) to "
                f"{1024 * MIB}."
            )
        check_serializer(serializer)
        given: object = prefix
        if not isinstance(given, str) or not _PREFIX.fullmatch(given) or not is_storable(given):
            raise ConfigurationError(
                f"ObjectIO: prefix={shown(prefix)} must be a directory such as 'flowstone/values'."
            )
        self._client = client_of(store, prefix, options)
        self._part_bytes = size
        self._serializer = serializer
        self._name = name
        self.codec = Codec(name, serializer, target_of)

    def __repr__(self) -> str:
        return f"ObjectIO({self._client!r}, name={self._name!r})"

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    def dataset(self, asset: str) -> tuple[str, str] | None:
        """Return the name of an asset's values in catalogs of data: the bucket, and the directory in it."""
        named = self._client.named()
        if named is None:
            return None
        return named[0], named[1] + Place(asset, NO_PARTITION, "", "", self._project.name).asset_directory

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
            self._put(file, stored, address)
        return stored

    def store_encoded(self, file: BinaryIO, encoded: StoredOutput, address: OutputAddress) -> StoredOutput:
        """Write the bytes of a value that was encoded elsewhere to an object of their own.

        Raises:
            StorageError: see `store`.
        """
        check_encoded(file, encoded, address)
        stored = replace(encoded, location=_location(Place.of(address, self.codec.extension_of(encoded))))
        self._put(file, stored, address)
        return stored

    def _put(self, file: BinaryIO, stored: StoredOutput, address: OutputAddress) -> None:
        size = stored.size_bytes or 0
        try:
            self._client.put(stored.location, file, size, max(self._part_bytes, size // _MAX_PARTS))
        except BaseException as error:
            # some clients publish what they have when they fail
            with suppress(Exception):
                self._client.delete([stored.location])
            if not isinstance(error, Exception):
                raise
            raise failure_of("store", address.asset, address.partition_key, error) from error

    def load(self, stored: StoredOutput) -> object:
        """Read a value back.

        Raises:
            StorageError: the object is gone, is not what was stored, or the storage does not answer.
            UnsafePickleError: a pickle that this manager has no key for, or that was tampered with.
        """
        kind = scanned_kind(stored)
        if kind is not None:
            return self.scan(stored, kind, {})
        with self.open_encoded(stored) as file:
            return self.codec.decode(file, stored)

    @contextmanager
    def open_encoded(self, stored: StoredOutput) -> Iterator[BinaryIO]:
        """Open the bytes of a value, which are not verified yet: on disk when there are many of them.

        Raises:
            StorageError: the object is gone, or the storage does not answer.
        """
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
            yield file

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
        raise not_ours(stored, action)
    return place


def target_of(stored: StoredOutput) -> tuple[str, str]:
    """Return the asset and the partition key of a value, by the location that `ObjectIO` gave it."""
    place = _place(stored, "load")
    return place.asset, place.partition_key
