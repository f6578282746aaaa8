"""How values are stored and turned into bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol, Self, runtime_checkable

from flowstone.core.by_reference import ScanKind
from flowstone.core.limits import LimitLike
from flowstone.core.output import OutputAddress, Publication, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import Project
from flowstone.core.step import Target


@runtime_checkable
class IOManager(Protocol):
    """Stores the values of assets and loads them again.

    A value is written under an address of its own attempt and becomes visible only when the success of that
    attempt commits; so `store` may be interrupted at any point without harm. Implementations must be safe
    to call from several threads at once.
    """

    @property
    def name(self) -> str:
        """Name under which the app knows this manager; recorded with every output."""

    @property
    def shared(self) -> bool:
        """Whether other processes can load what this one stored."""

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Store `value` for one attempt and describe where it lies."""

    def load(self, stored: StoredOutput) -> object:
        """Return the value that `store` described."""

    def discard(self, stored: StoredOutput) -> None:
        """Delete a version that is no longer needed; deleting what is gone is not an error."""


type KeepVersions = Callable[[Sequence[str]], Collection[str]]
"""Takes names of versions, returns those that are committed or may still be; see `OutputAddress.fenced_version`.

A manager that writes under versions without a token passes these.
"""


@runtime_checkable
class SweepableIO(Protocol):
    """An IO manager that can find what attempts left behind that died between storing and committing."""

    def sweep(self, *, older_than_seconds: float, keep: KeepVersions | None = None) -> int:
        """Delete leftovers and return how many.

        Args:
            older_than_seconds: spare what was written more recently, where the manager knows when that was.
            keep: names the versions to spare among those found; None deletes only what can never be needed.
        """


@runtime_checkable
class FindableIO(Protocol):
    """An IO manager that can say whether it still has values, without loading them."""

    def find(self, stored: Sequence[StoredOutput]) -> Sequence[bool]:
        """Return for each value, in their order, whether it is there."""


@runtime_checkable
class BulkDiscardIO(Protocol):
    """An IO manager that deletes many values at once, where each by itself would be a transaction or a request.

    Pruning deletes millions of values; without this it takes a commit for each of them.
    """

    def discard_many(self, stored: Sequence[StoredOutput]) -> None:
        """Delete versions that are no longer needed; deleting what is gone is not an error."""


@runtime_checkable
class NamesDatasets(Protocol):
    """An IO manager that knows the name by which catalogs of data know what it keeps."""

    def dataset(self, asset: str) -> tuple[str, str] | None:
        """Return namespace and name of an asset's values, as the naming rules of OpenLineage make them.

        None says that they have no name there, as those in memory.
        """


@runtime_checkable
class ErasableIO(Protocol):
    """An IO manager that can delete all that attempts stored for a partition, committed or not.

    Others are asked to `discard` what was committed; what attempts left that died in between is theirs to sweep.
    """

    def erase(self, asset: str, partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Delete every trace of some versions of a partition; return how many values that were."""


@runtime_checkable
class PublishingIO(Protocol):
    """An IO manager whose values others read under a name of their own: a table that is selected from.

    `store` writes what nobody sees yet, under the version of its attempt. What is in use becomes visible by
    `publish`: in the committing transaction where that is possible, right after it elsewhere. An attempt that
    lost its lease is refused by the commit and publishes nothing; putting an earlier version in use again
    publishes that one, and taking a version out of use publishes that there is none.
    """

    @property
    def in_transaction(self) -> bool:
        """Whether `publish` takes the connection of the committing transaction, as in the app's own database."""

    def publish(self, publication: Publication, connection: object | None) -> bool:
        """Replace what is visible of exactly this partition, as a whole or not at all.

        It may be called again with the same publication, also after it was done. One with an older token of the
        same issuer than the last one is refused: a newer one is visible.

        Args:
            publication: what is to be visible.
            connection: the connection of the committing transaction when `in_transaction`; else None.

        Returns:
            Whether this publication is visible now; False when it was refused.
        """


class Publisher(Protocol):
    """What a store calls when it changes which version is in use."""

    def concerns(self, stored: StoredOutput) -> bool:
        """Return whether readers outside see values of this IO manager."""

    def within(self, publications: Sequence[Publication], connection: object) -> list[Publication]:
        """Publish in the open transaction what can be; return what is to be noted in it and published after it."""

    def after(self, targets: Sequence[Target]) -> None:
        """Publish what was noted for these targets; called after the commit, never raises."""


class PublicationStore(Protocol):
    """What is committed and not yet visible where others read it; see `PublishingIO`."""

    def issuer(self) -> str:
        """Return the name under which this store draws tokens; those of two stores cannot be compared."""

    def pending(
        self, targets: Sequence[Target] | None = None, *, limit: int = 100, after: int = 0
    ) -> list[Publication]:
        """Return what is to be published, of these targets or of all, the oldest first.

        Args:
            targets: of which targets.
            limit: how many at most.
            after: only those with a later token, for the next page.
        """

    def done(self, publication: Publication) -> None:
        """Forget a publication that is visible, unless a newer one of its target was noted meanwhile."""


@runtime_checkable
class ScannableIO(Protocol):
    """An IO manager that gives out tables that are read when and as far as they are needed.

    Of others the value is loaded, and made a scan in memory.
    """

    def scan(self, stored: StoredOutput, kind: ScanKind, session: dict[str, Any]) -> object:
        """Return a scan of a stored table, for a parameter whose annotation asks for it.

        Args:
            stored: the table.
            kind: the library of the scan.
            session: what the scans of one step share, such as a connection under `"duckdb"`.
        """


class ValueCodec(Protocol):
    """Values to bytes and back for one IO manager, in any process: it can be pickled, and holds no connection."""

    def encode(self, value: object, file: BinaryIO, address: OutputAddress) -> StoredOutput:
        """Write a value front to back, and describe it but for its location."""

    def decode(self, file: BinaryIO, stored: StoredOutput) -> object:
        """Verify the bytes of a value, and return it; the file can be sought."""

    def can_decode(self, stored: StoredOutput) -> bool:
        """Whether the bytes alone make the value: not those of a scan, which reads where they lie."""


@runtime_checkable
class EncodedIO(Protocol):
    """An IO manager that takes and gives values as bytes, made and read in another process.

    A step in a process of its own reads and returns large values so: the process that started it, which talks to
    the storage, never holds them.
    """

    @property
    def codec(self) -> ValueCodec:
        """What encodes and decodes its values."""

    def store_encoded(self, file: BinaryIO, encoded: StoredOutput, address: OutputAddress) -> StoredOutput:
        """Store a file that the codec wrote, whatever its position; as `store` would have stored the value.

        Args:
            file: the bytes.
            encoded: what the codec said of them.
            address: of the attempt.
        """

    def open_encoded(self, stored: StoredOutput) -> AbstractContextManager[BinaryIO]:
        """Open the bytes of a stored value, not verified yet; a file that can be sought."""


@runtime_checkable
class RetryingIO(Protocol):
    """An IO manager that says which of its failures pass by themselves.

    Of others these are StorageErrors of the kinds `full`, `unavailable` and `other`, and every other OSError.
    """

    def may_pass(self, error: Exception) -> bool:
        """Whether storing again right away may succeed."""


@runtime_checkable
class KeepsObjects(Protocol):
    """An IO manager that keeps the objects themselves, in this process.

    It encodes nothing, and what fails once would fail again. It is asked when the app is built.
    """

    @property
    def keeps_objects(self) -> bool:
        """Whether it does so."""


@runtime_checkable
class InternalIO(Protocol):
    """An IO manager that an app has whatever it declares: nobody chooses it by name, and it keeps no bytes."""

    @property
    def internal(self) -> bool:
        """True."""


@runtime_checkable
class LimitingIO(Protocol):
    """An IO manager that bounds how many steps of its assets run at once in the whole fleet."""

    @property
    def limits(self) -> Mapping[str, LimitLike]:
        """Limits by name, which each of its assets gets beside its own; see `@asset(concurrency=)`."""
        ...


@runtime_checkable
class OfProjectIO(Protocol):
    """An IO manager whose storage several projects share: an app asks for the one of its own project."""

    def in_project(self, project: Project) -> Self:
        """Return this manager for the values of a project."""


@runtime_checkable
class Serializer(Protocol):
    """Turns values into bytes and back, streaming through binary files."""

    @property
    def name(self) -> str:
        """Name recorded with every value that it wrote."""

    @property
    def extension(self) -> str:
        """File name ending: a dot and small letters or digits."""

    def accepts(self, value: object) -> bool:
        """Whether this is a natural format for the value (used to choose automatically)."""

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the value front to back (the file cannot be sought).

        Raises:
            SerializationError: the value cannot be represented exactly.
        """

    def read(self, file: BinaryIO) -> object:
        """Read back what `write` wrote; the file can be sought and its content was verified."""
