"""What an asset returns whose data lies elsewhere: a reference, recorded as a version without bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flowstone.core.clean import MAX_OF_OUTPUTS, clean_metadata, mask_secrets
from flowstone.core.declaring import is_storable, shown
from flowstone.core.output import JsonValue

PUBLISHED = "published"
"""Name of the IO manager that keeps references, recorded with each; no other may have it."""

_MAX_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class Published:
    """A reference to data that an asset made elsewhere: a table, a model of dbt, a version of a Delta table.

    An asset that returns it commits a version like any other, with lineage, history, checks and metadata, but
    without bytes: `flow.load` and the assets that read it get the reference. FlowStone never opens, changes or
    deletes what it refers to; who writes it sees to it that repeating the step does no harm.

    Args:
        location: where the data lies: a name, a path or a URL without a password or a signature.
        version: which state of it this is, if it has versions: text or a whole number. A location with a version
            is data that does not change: what is published again with the same version is unchanged. Without one,
            each version committed counts as new data.
        metadata: small facts for people and programs, recorded with the version.

    Raises:
        ValueError: a location or version cannot be recorded; says why.
        SerializationError: `metadata` has no plain JSON form.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def orders():
        ...     return Published("warehouse.sales.orders", version=17, metadata={"rows": 1200})
        >>> flow = FlowStone.for_testing([orders])
        >>> print(flow.materialize("orders").value)
        warehouse.sales.orders@17
        >>> flow.load("orders").version, flow.load("orders").metadata
        ('17', {'rows': 1200})
    """

    location: str
    version: str | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict, hash=False)

    def __init__(
        self, location: str, version: str | int | None = None, metadata: Mapping[str, object] | None = None
    ) -> None:
        object.__setattr__(self, "location", _text("location", location))
        if isinstance(version, int) and not isinstance(version, bool):
            version = str(version)
        object.__setattr__(self, "version", None if version is None else _text("version", version))
        facts = {} if metadata is None else clean_metadata(metadata, max_characters=MAX_OF_OUTPUTS)
        object.__setattr__(self, "metadata", facts)
        if _has_password(self.location):
            raise ValueError(
                "Published(location=...): the URL has a password or a key in it, and a location is recorded and "
                "shown. Leave these out; whoever reads the data knows them from its own settings."
            )

    def __str__(self) -> str:
        """The location, with the version behind an `@`; `Published.parse` reads it."""
        if self.version is None:
            return f"{self.location}@" if "@" in self.location else self.location
        return f"{self.location}@{self.version.replace('%', '%25').replace('@', '%40')}"

    @classmethod
    def parse(cls, text: str, metadata: Mapping[str, object] | None = None) -> Published:
        """Return the reference that was written as text.

        Args:
            text: what `str(...)` of a reference gave.
            metadata: what was recorded with it.

        Example:
            >>> Published.parse("s3://lake/orders@12").version
            '12'
        """
        location, at, version = text.rpartition("@")
        if not at:
            return cls(text, None, metadata)
        return cls(location, version.replace("%40", "@").replace("%25", "%") or None, metadata)


def catalog_scheme(scheme: str) -> str:
    """Return the scheme of a URL as catalogs of data write it: of several names for one storage it is one.

    Example:
        >>> catalog_scheme("s3a"), catalog_scheme("https")
        ('s3', 'https')
    """
    return _SCHEMES.get(scheme, scheme)


_SCHEMES = {
    "s3a": "s3",
    "s3n": "s3",
    "gcs": "gs",
    "postgresql": "postgres",
    "abfs": "abfss",
    "wasb": "wasbs",
}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not is_storable(value):
        what = "text that is not empty" if name == "location" else "text, a whole number or None"
        raise ValueError(f"Published({name}={shown(value)}): give {what}.")
    if len(value) > _MAX_CHARACTERS:
        raise ValueError(f"Published({name}=...): {len(value):,} characters; {_MAX_CHARACTERS:,} is the most.")
    return str.__str__(value)


def _has_password(location: str) -> bool:
    """Whether a URL has a password, or is signed for whoever has it."""
    try:
        url = urlsplit(location)
        password = url.password
    except ValueError:  # what is no URL has none
        return False
    signed = any(name.lower() == "sig" for name, _ in parse_qsl(url.query))
    return password is not None or signed or mask_secrets(url.query) != url.query
