"""Errors in asking for work to be placed."""

from __future__ import annotations

from collections.abc import Iterable

from flowstone.errors.root import FlowStoneError, command, join_names


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
            f"{join_names(sorted(declared)) or 'nothing beyond execute and schedule'}."
        )


class ExecutorUnavailableError(FlowStoneError, RuntimeError):
    """The executor that was asked for by name cannot work here."""

    def __init__(self, executor: str, why: str, remedy: str) -> None:
        self.executor = executor
        super().__init__(f"The executor {executor!r} is not available: {why}. {remedy}")


class OptionsError(FlowStoneError, TypeError):
    """Per-call options are unknown, too large or cannot be serialized."""


class RunConflictError(FlowStoneError, RuntimeError):
    """What was asked for with a config, or parts, of its own is under way with others, and cannot be joined."""

    def __init__(self, asset: str, partition: str, run_id: str) -> None:
        self.asset = asset
        self.partition = partition
        self.run_id = run_id
        target = f"{asset!r} [{partition}]" if partition else repr(asset)
        super().__init__(
            f"{target} is computed by run {run_id!r} with another config, other resources or another IO "
            f"manager than this request names. Wait for it (flow.runs.wait({run_id!r})) or cancel it "
            f"(`{command('cancel', run_id)}`), and ask again; a request that names none of them joins it."
        )


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
