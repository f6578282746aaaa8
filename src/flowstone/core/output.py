"""What an IO manager is told when it stores, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from flowstone.core.project import DEFAULT_PROJECT

type JsonValue = bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None


class OutputAddress(NamedTuple):
    """Where one attempt of one step may write.

    The address is unique per attempt, so that an attempt that lost its lease can never overwrite what
    another one published.

    Args:
        asset: asset name.
        partition: encoded partition key; the empty string for an asset without partitions.
        run_id: run the step belongs to.
        step_id: the step, unique over all runs.
        attempt: 1 for the first attempt.
        token: fencing token of the attempt; a later attempt has a larger one.
        project: project of the app. Steps are numbered in each project by itself, so places that several projects
            share (a folder, a bucket) must part by it.

    Example:
        >>> OutputAddress("numbers", "", "run", "step", 1, 7).version
        'step-1'
    """

    asset: str
    partition: str
    run_id: str
    step_id: str
    attempt: int
    token: int
    project: str = DEFAULT_PROJECT

    @property
    def version(self) -> str:
        """Name of the version that this attempt writes, unique over all runs and attempts."""
        return f"{self.step_id}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """A stored value: enough to find it again from any process, as plain JSON.

    Args:
        io: name of the IO manager that wrote it; the same name loads it.
        location: opaque to everybody but that manager.
        serializer: name of the serializer that wrote the bytes; None when no bytes were written.
        size_bytes: size of the encoded value; None when it was not encoded.
        content_hash: SHA-256 (hex) of the encoded value; None when it was not encoded.
        value_type: qualified name of the Python type that was stored.
        metadata: small facts for people, such as a row count.
        payload: encoded bytes that travel with the committing transaction instead of being written by the
            manager itself. Not part of the JSON form.

    Example:
        >>> stored = StoredOutput("filesystem", "a/b.json", "json", 2, None, "builtins.list")
        >>> StoredOutput.from_json(stored.to_json()) == stored
        True
    """

    io: str
    location: str
    serializer: str | None = None
    size_bytes: int | None = None
    content_hash: str | None = None
    value_type: str = "builtins.object"
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    payload: bytes | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form, without the payload."""
        return {
            "io": self.io,
            "location": self.location,
            "serializer": self.serializer,
            "size_bytes": self.size_bytes,
            "content_hash": self.content_hash,
            "value_type": self.value_type,
            "metadata": self.metadata,
        }

    @classmethod
    def from_json(cls, document: dict[str, JsonValue], payload: bytes | None = None) -> StoredOutput:
        """Rebuild what `to_json` returned.

        Args:
            document: the JSON form.
            payload: the bytes that travelled with the commit, when they were read along.
        """
        return replace(cls(**document), payload=payload)  # type: ignore[arg-type]


def type_name(value: object) -> str:
    """Return the qualified name of a value's type.

    Example:
        >>> type_name([])
        'builtins.list'
    """
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
