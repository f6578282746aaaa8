"""References to data that lies elsewhere, as an IO manager: the reference is the record."""

from __future__ import annotations

import hashlib

from flowstone.core.output import OutputAddress, StoredOutput, type_name
from flowstone.core.published import PUBLISHED, Published
from flowstone.errors import SerializationError


class PublishedIO:
    """Keeps what assets return as `Published(...)`, whatever IO manager they name; every app has one.

    Example:
        >>> references = PublishedIO()
        >>> address = OutputAddress("orders", "", "run", 1, attempt=1, token=1)
        >>> stored = references.store(Published("sales.orders", 17), address)
        >>> stored.location, references.load(stored).version
        ('sales.orders@17', '17')
    """

    name = PUBLISHED
    internal = True
    """Nobody may choose it by name."""
    shared = True

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Describe a reference; a version that is named is the data version as well.

        Raises:
            SerializationError: it is something else.
        """
        if not isinstance(value, Published):
            raise SerializationError(
                f'Asset {address.asset!r} has io="{PUBLISHED}", which only knows references',
                path="$",
                type_name=type_name(value),
                remedy="Return Published(location, version), or leave io out.",
            )
        location = str(value)
        digest = None if value.version is None else hashlib.sha256(location.encode()).hexdigest()
        return StoredOutput(
            self.name,
            location,
            content_hash=digest,
            value_type=type_name(value),
            metadata=dict(value.metadata),
        )

    def load(self, stored: StoredOutput) -> Published:
        """Return the reference, with the metadata that was recorded."""
        return Published.parse(stored.location, stored.metadata)

    def discard(self, stored: StoredOutput) -> None:
        """Do nothing: what it refers to belongs to whoever wrote it."""
