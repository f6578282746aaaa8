"""Errors of values, serializers and storage."""

from __future__ import annotations

from typing import Literal, Self

from flowstone.errors.root import FlowStoneError


class SerializationError(FlowStoneError, TypeError):
    """A value cannot be turned into bytes by the chosen serializer.

    Args:
        problem: what is wrong with the value.
        path: where in the value, such as `$["rows"][3]`.
        type_name: qualified type of the offending part.
        remedy: what to do instead.
        target: asset and partition whose value it is, when known.
    """

    def __init__(self, problem: str, *, path: str, type_name: str, remedy: str, target: str = "") -> None:
        self.problem = problem
        self.path = path
        self.type_name = type_name
        self.remedy = remedy
        self.target = target
        prefix = f"The value of {target} cannot be stored: " if target else ""
        super().__init__(f"{prefix}{problem} at {path} (type {type_name}). {remedy}")

    def for_asset(self, asset: str, partition: str) -> Self:
        """Return the same error, naming the asset and partition whose value it is."""
        target = f"{asset!r}" + (f" [{partition}]" if partition else "")
        return type(self)(
            self.problem, path=self.path, type_name=self.type_name, remedy=self.remedy, target=target
        )


type StorageFailure = Literal[
    "full", "denied", "read_only", "missing", "corrupt", "too_large", "unavailable", "unsafe", "other"
]


class StorageError(FlowStoneError, OSError):
    """An IO manager could not store, load or delete a value.

    Args:
        action: `"store"`, `"load"` or `"delete"`.
        asset: name of the asset, or what is known of the value.
        partition: encoded partition key; empty without partitions.
        why: what happened, for people.
        kind: what happened, for programs; `"full"` and `"unavailable"` may pass by themselves.
        remedy: what to do next.
    """

    def __init__(
        self,
        action: str,
        asset: str,
        partition: str,
        why: str,
        *,
        kind: StorageFailure = "other",
        remedy: str = "",
    ) -> None:
        self.action = action
        self.asset = asset
        self.partition = partition
        self.why = why
        self.kind = kind
        target = asset + (f" [{partition}]" if partition else "")
        super().__init__(f"Could not {action} {target}: {why}." + (f" {remedy}" if remedy else ""))


class UnsafePickleError(FlowStoneError, PermissionError):
    """A pickle was found where pickles are not allowed, or its signature is wrong."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Refused to unpickle: {why}. Pickle runs code on loading; allow it explicitly with "
            "PickleSerializer(key=...) and the key it was written with, or store the value in another format."
        )
