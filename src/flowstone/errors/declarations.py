"""Errors in what is declared or given: names, partitions, values, serializers, routes, sensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Literal, Self

from flowstone.errors.root import FlowStoneError, did_you_mean, join_names, option_hint


class DefinitionError(FlowStoneError, ValueError):
    """An asset, job or app was declared in a way that cannot work.

    Args:
        message: what is wrong and what to do.
        where: `file:line` of the declaration, when known.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{message} ({where})" if where else message)


class UnknownOptionError(DefinitionError, TypeError):
    """A declaration was given an option that does not exist."""

    def __init__(self, about: str, option: str, known: Iterable[str], *, where: str | None = None) -> None:
        self.option = option
        listed = sorted(known)
        super().__init__(
            f"{about}: there is no option {option!r}.{option_hint(option, listed)} Options: {', '.join(listed)}.",
            where=where,
        )


class DuplicateAssetError(DefinitionError):
    """Two assets carry one name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        super().__init__(
            f"Two assets are named {name!r}: one at {first}, one at {second}. "
            "Rename one of them, or pass @asset(name=...)."
        )


class CycleError(DefinitionError):
    """Assets depend on each other in a circle."""

    def __init__(self, path: Sequence[str], where: Sequence[str]) -> None:
        self.path = tuple(path)
        places = ", ".join(f"{name} at {place}" for name, place in zip(path, where, strict=False))
        super().__init__(
            f"Assets depend on each other in a circle: {' -> '.join(path)}. "
            f"Remove one of these dependencies ({places})."
        )


class UnknownDependencyError(DefinitionError):
    """An asset depends on a name that no asset carries."""

    def __init__(self, asset: str, dependency: str, known: Iterable[str], *, where: str) -> None:
        self.asset = asset
        self.dependency = dependency
        super().__init__(
            f"Asset {asset!r} depends on {dependency!r}, which is not an asset of this app."
            f"{did_you_mean(dependency, known)} Add it to FlowStone([...]), or give the parameter a default "
            "value if it is not meant as a dependency.",
            where=where,
        )


class UnknownAssetError(FlowStoneError, LookupError):
    """No asset of the app carries this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no asset named {name!r}.{did_you_mean(name, known)} "
            f"Known assets: {join_names(known) or 'none'}."
        )


class SelectionError(FlowStoneError, ValueError):
    """A selection expression cannot be understood or selects nothing."""

    def __init__(self, expression: str, problem: str) -> None:
        self.expression = expression
        super().__init__(f"The selection {expression!r} cannot be used: {problem}")


class PartitionError(FlowStoneError, ValueError):
    """A partition value or definition cannot be used."""


class UnknownPartitionError(PartitionError, LookupError):
    """The asset has no such partition."""

    def __init__(self, partition: object, *, asset: str | None = None, hint: str = "") -> None:
        self.partition = partition
        self.asset = asset
        of = f" of asset {asset!r}" if asset else ""
        super().__init__(f"{_shown(partition)} is not a partition{of}.{' ' + hint if hint else ''}")


def _shown(partition: object) -> str:
    """Write dates and times as people type them; text and everything else as it is in code."""
    if type(partition) is datetime and partition.tzinfo is not None:
        return partition.isoformat(timespec="auto" if partition.second or partition.microsecond else "minutes")
    if type(partition) is date:
        return partition.isoformat()
    if type(partition) is tuple and len(partition) > 1:
        return f"({', '.join(map(_shown, partition))})"
    return repr(partition)


class IncompletePartitionError(PartitionError):
    """A partition is asked for that is not over, or that reads one that is not over.

    Args:
        target: the partition that was asked for, as people read it.
        unfinished: what is not over: the same, or an input of it.
        until: when it is over; None when that is no moment.
    """

    def __init__(self, target: str, unfinished: str, until: datetime | None) -> None:
        self.target = target
        self.unfinished = unfinished
        self.until = until
        when = f" until {until:%Y-%m-%d %H:%M %Z}".rstrip() if until is not None else ""
        reads = "" if target == unfinished else f" {target} reads it."
        super().__init__(
            f"{unfinished} is not over{when}, so its data is not complete.{reads} Wait, or say "
            "allow_incomplete=True (--allow-incomplete): then it is computed from what is there so far, and again "
            "when it is over. "
            "@asset(allow_incomplete=True) allows it once and for all."
        )


class UnknownExecutorError(FlowStoneError, LookupError):
    """No executor carries this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no executor named {name!r}.{did_you_mean(name, known)} Known: {join_names(known)}. "
            "Others register under the entry point group 'flowstone.executors'."
        )


class RunNotFoundError(FlowStoneError, LookupError):
    """No run or step carries this id."""

    def __init__(self, kind: str, identifier: str) -> None:
        self.identifier = identifier
        super().__init__(f"There is no {kind} with id {identifier!r}. `flowstone runs` lists the latest ones.")


class UnknownAutomationError(FlowStoneError, LookupError):
    """No schedule or sensor of the app carries this name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no {kind} named {name!r}.{did_you_mean(name, known)} "
            f"Declared: {join_names(known) or f'none; pass FlowStone(..., {kind}s=[...])'}."
        )


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


class PublishingError(FlowStoneError, RuntimeError):
    """A version could not be made visible in the transaction that was to commit it, which commits nothing then."""


class UnsafePickleError(FlowStoneError, PermissionError):
    """A pickle was found where pickles are not allowed, or its signature is wrong."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Refused to unpickle: {why}. Pickle runs code on loading; allow it explicitly with "
            "PickleSerializer(key=...) and the key it was written with, or store the value in another format."
        )


class RouteError(FlowStoneError, ValueError):
    """An asset chose branches that it does not declare, or declares branches and chose nothing.

    It is not tried again: the next attempt would run the same code.

    Args:
        asset: the asset that decides.
        unknown: what it chose and does not declare.
        routes: the branches that it declares.
        returned: type of what it returned instead of a Route; empty when it returned one.
        where: its file and line.
    """

    def __init__(
        self, asset: str, unknown: Sequence[str], routes: Sequence[str], *, where: str, returned: str = ""
    ) -> None:
        self.asset = asset
        self.unknown = tuple(unknown)
        self.routes = tuple(routes)
        self.where = where
        declared = join_names(map(repr, routes))
        if returned:
            message = (
                f"Asset {asset!r} declares routes ({declared}) but returned {returned}. Return "
                f"Route({routes[0]!r}, value=...), or Route(value=...) to choose nobody."
            )
        elif not routes:
            listed = ", ".join(map(repr, unknown)) or "..."
            message = (
                f"Asset {asset!r} returned a Route but declares no routes. Declare the branches it may "
                f"choose: @asset(routes=[{listed}])."
            )
        else:
            message = (
                f"Asset {asset!r} chose {join_names(map(repr, unknown))}, which is not among its routes."
                f"{did_you_mean(unknown[0], routes)} Declared: {declared}."
            )
        super().__init__(f"{message} ({where})")


class SensorError(FlowStoneError, ValueError):
    """A sensor answered with what cannot work; nothing of its answer was placed, its cursor stays.

    Args:
        sensor: its name.
        problem: what is wrong, and what to do.
        where: `file:line` of the sensor, when known.
    """

    def __init__(self, sensor: str, problem: str, *, where: str = "") -> None:
        self.sensor = sensor
        self.where = where
        super().__init__(f"Sensor {sensor!r}{f' ({where})' if where else ''}: {problem}")
