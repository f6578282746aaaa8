"""Every error that FlowStone raises on purpose, in one tree.

Each error carries what it is about as attributes, also inherits the builtin that a reader would have
caught without knowing FlowStone, and builds its own message: what happened, where, why, what to do next.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Literal, Self


class FlowStoneError(Exception):
    """Base of all errors raised by FlowStone.

    Example:
        >>> issubclass(UnknownAssetError, FlowStoneError)
        True
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string.

    Args:
        name: what was written.
        known: the names that exist.

    Example:
        >>> did_you_mean("numbres", ["numbers", "doubled"])
        " Did you mean 'numbers'?"
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def _join(items: Iterable[str], *, limit: int = 10) -> str:
    listed = list(items)
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"


# --- declarations -------------------------------------------------------------------------------------------


class DefinitionError(FlowStoneError, ValueError):
    """An asset, job or app was declared in a way that cannot work.

    Args:
        message: what is wrong and what to do.
        where: `file:line` of the declaration, when known.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{message} ({where})" if where else message)


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


# --- lookups ------------------------------------------------------------------------------------------------


class UnknownAssetError(FlowStoneError, LookupError):
    """No asset of the app carries this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no asset named {name!r}.{did_you_mean(name, known)} "
            f"Known assets: {_join(known) or 'none'}."
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
        super().__init__(f"{partition!r} is not a partition{of}.{' ' + hint if hint else ''}")


class UnknownExecutorError(FlowStoneError, LookupError):
    """No executor carries this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        known = sorted(known)
        super().__init__(
            f"There is no executor named {name!r}.{did_you_mean(name, known)} Known: {_join(known)}. "
            "Others register under the entry point group 'flowstone.executors'."
        )


class RunNotFoundError(FlowStoneError, LookupError):
    """No run or step carries this id."""

    def __init__(self, kind: str, identifier: str) -> None:
        self.identifier = identifier
        super().__init__(f"There is no {kind} with id {identifier!r}. `flowstone runs` lists the latest ones.")


# --- running ------------------------------------------------------------------------------------------------


class DependencyNotReadyError(FlowStoneError, RuntimeError):
    """Inputs of an asset have no committed materialization yet."""

    def __init__(self, asset: str, partition: str, missing: Sequence[tuple[str, str]]) -> None:
        self.asset = asset
        self.partition = partition
        self.missing = tuple(missing)
        target = f"{asset!r}" + (f" [{partition}]" if partition else "")
        listed = _join(f"{name} [{key}]" if key else name for name, key in missing)
        option = f" --partition {partition!r}" if partition else ""
        super().__init__(
            f"{target} cannot run yet: no committed materialization of {listed}. Build what is missing with "
            f"flow.materialize_all({asset!r}, ...) or `flowstone materialize +{asset}{option}`."
        )


class StepFailedError(FlowStoneError, RuntimeError):
    """A step ended without a materialization and its original exception is not in this process.

    Raised by executors whose work runs elsewhere; `error` is the recorded text with its traceback.
    """

    def __init__(self, asset: str, partition: str, state: str, error: str | None) -> None:
        self.asset = asset
        self.partition = partition
        self.state = state
        self.error = error
        target = f"{asset!r}" + (f" [{partition}]" if partition else "")
        super().__init__(f"{target} ended as {state}." + (f"\n{error}" if error else ""))


class MaterializationTimeoutError(FlowStoneError, TimeoutError):
    """An asset ran longer than its timeout."""

    def __init__(self, asset: str, seconds: float) -> None:
        self.asset = asset
        self.seconds = seconds
        super().__init__(
            f"Asset {asset!r} did not finish within its timeout of {seconds:g} s. "
            "Raise @asset(timeout=...) or make the work smaller."
        )


class WaitTimeoutError(FlowStoneError, TimeoutError):
    """Waiting ended; the work itself goes on."""

    def __init__(self, what: str, seconds: float, handle: str) -> None:
        self.handle = handle
        super().__init__(
            f"{what} was not over within {seconds:g} s; it goes on running. Ask again with "
            f"`flowstone status {handle}`, stop it with `flowstone cancel {handle}`."
        )


class StaleAttemptError(FlowStoneError, RuntimeError):
    """An attempt tried to publish after it had been replaced by another one (fencing)."""

    def __init__(self, asset: str, attempt: int) -> None:
        self.asset = asset
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} of {asset!r} was superseded; its result was not published.")


class StepCancelledError(FlowStoneError, RuntimeError):
    """The work was cancelled before it was over."""

    def __init__(self, asset: str) -> None:
        self.asset = asset
        super().__init__(f"{asset!r} was cancelled.")


class WorkerCrashedError(FlowStoneError, RuntimeError):
    """The process in which an asset ran died before the asset was done.

    Args:
        asset: name of the asset.
        exit_code: as `subprocess` tells it: negative for the number of a signal.
        stderr: the last that the process wrote to standard error.
    """

    def __init__(self, asset: str, exit_code: int, stderr: str = "") -> None:
        self.asset = asset
        self.exit_code = exit_code
        self.stderr = stderr
        self.signal_name = _signal_name(-exit_code) if exit_code < 0 else None
        how = f"killed by {self.signal_name}" if self.signal_name else f"exit code {exit_code}"
        meaning = _SIGNAL_MEANING.get(self.signal_name or "", "")
        if not self.signal_name:
            meaning = "code called os._exit, or a library ended the process"
        usually = f", which usually means: {meaning}" if meaning else ""
        tail = f"\nThe last lines of its stderr:\n{stderr.rstrip()}" if stderr.strip() else ""
        super().__init__(f"The process of asset {asset!r} died ({how}){usually}.{tail}")


_SIGNAL_MEANING = {
    "SIGKILL": "out of memory (the kernel ended it), or somebody sent kill -9",
    "SIGSEGV": "a bug in C code of a library (stack overflow by deep recursion included)",
    "SIGABRT": "a C library gave up, for example for want of memory",
    "SIGBUS": "a memory-mapped file became shorter, or the disk is full",
    "SIGILL": "a library was built for another processor",
    "SIGFPE": "a division by zero in C code of a library",
    "SIGTERM": "somebody or something stopped it",
    "SIGXCPU": "its limit of processor time was reached",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class IsolatedFailureError(FlowStoneError, RuntimeError):
    """An asset raised, in a process of its own, an exception that could not be brought from there.

    Args:
        asset: name of the asset.
        type_name: qualified class of the exception.
        text: its message.
    """

    def __init__(self, asset: str, type_name: str, text: str) -> None:
        self.asset = asset
        self.type_name = type_name
        self.text = text
        super().__init__(f"{type_name}: {text} (raised by {asset!r} in its own process; it cannot be pickled)")


# --- values -------------------------------------------------------------------------------------------------


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


# --- placing work -------------------------------------------------------------------------------------------


class ConfigurationError(FlowStoneError, ValueError):
    """A setting is missing, unknown or contradictory."""


class AppLoadError(ConfigurationError):
    """The app that a command names cannot be imported or built."""

    def __init__(self, target: str, why: str, *, where: str | None = None) -> None:
        self.target = target
        self.where = where
        place = f" ({where})" if where else ""
        super().__init__(f"The app {target!r} cannot be loaded: {why}{place}.")


class CapabilityError(FlowStoneError, NotImplementedError):
    """An executor was asked for something that it does not declare."""

    def __init__(self, executor: str, capability: str, declared: Iterable[str]) -> None:
        self.executor = executor
        self.capability = capability
        super().__init__(
            f"The executor {executor!r} does not offer {capability!r}; it declares: "
            f"{_join(sorted(declared)) or 'nothing beyond execute and schedule'}."
        )


class ExecutorUnavailableError(FlowStoneError, RuntimeError):
    """The executor that was asked for by name cannot work here."""

    def __init__(self, executor: str, why: str, remedy: str) -> None:
        self.executor = executor
        super().__init__(f"The executor {executor!r} is not available: {why}. {remedy}")


class OptionsError(FlowStoneError, TypeError):
    """Per-call options are unknown, too large or cannot be serialized."""


class MissingExtraError(FlowStoneError, ImportError):
    """An optional package is needed that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'flowstone[{extra}]'"
        )


class ResourceError(FlowStoneError, RuntimeError):
    """A resource is unknown or could not be opened."""


# --- the database -------------------------------------------------------------------------------------------


class DatabaseError(FlowStoneError, RuntimeError):
    """The database cannot be used as it is."""


class DatabaseUnavailableError(DatabaseError, ConnectionError):
    """The database does not answer."""

    def __init__(self, target: str, why: str) -> None:
        self.target = target
        super().__init__(
            f"PostgreSQL at {target} does not answer: {why}. Check that the server runs and that "
            "FLOWSTONE_DATABASE_URL is right; `flowstone doctor` looks at each part."
        )


class SchemaVersionError(DatabaseError):
    """The tables are older or newer than this version of FlowStone."""

    def __init__(self, problem: str, *, remedy: str = "Run `flowstone db upgrade`.") -> None:
        super().__init__(f"{problem} {remedy}")


class MigrationChangedError(DatabaseError):
    """A migration that was applied differs from the one in this version."""

    def __init__(self, name: str, applied: str, found: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name} was applied with checksum {applied} but this version carries {found}. "
            "An applied migration must never change: install the version that applied it, or restore the file."
        )


class EmbeddedDatabaseError(DatabaseError):
    """The embedded PostgreSQL could not be started or joined."""
