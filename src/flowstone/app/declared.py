"""What the author of an app declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowstone.config import Settings
from flowstone.core.asset import Asset
from flowstone.core.automation.schedule import Schedule
from flowstone.core.automation.sensor import Sensor
from flowstone.core.check import Check
from flowstone.core.declaring import shown
from flowstone.engine.approvals import Notifier
from flowstone.errors import ConfigurationError
from flowstone.protocols import Executor, Hook, IOManager

_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "assets": ((Asset,), "assets, as @asset makes them"),
    "checks": ((Check,), "checks, as @check makes them"),
    "schedules": ((Schedule,), "Schedule objects"),
    "sensors": ((Sensor,), "sensors, as @sensor makes them"),
}

type ExecutorLike = Executor | Callable[[], Executor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Everything that was passed to `FlowStone(...)`, under the same names."""

    assets: Iterable[Asset]
    checks: Iterable[Check] = ()
    io: Mapping[str, IOManager] = field(default_factory=dict)
    default_io: str | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    hooks: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = ()
    executors: Mapping[str, ExecutorLike] = field(default_factory=dict)
    notifiers: Sequence[Notifier] = ()


def check_declared(**given: Any) -> None:
    """Refuse what cannot be what `FlowStone(...)` asks for, in words of whoever wrote it.

    Args:
        **given: the options by name.

    Raises:
        ConfigurationError: names the option and what it takes.
    """
    for option, (kinds, what) in _KINDS.items():
        listed = given.get(option)
        if isinstance(listed, str | bytes | Mapping | Asset) or not isinstance(listed, Iterable):
            raise ConfigurationError(f"FlowStone({option}={shown(listed)}): give a list of {what}.")
        if option in ("schedules", "sensors") and isinstance(listed, list | tuple):
            for one in listed:
                if not isinstance(one, kinds):
                    raise ConfigurationError(f"FlowStone({option}=[{shown(one)}]): give a list of {what}.")
    for option in ("io", "resources", "executors"):
        named = given.get(option)
        if named is None:
            continue
        if not isinstance(named, Mapping) or not all(isinstance(name, str) and name for name in named):
            raise ConfigurationError(f"FlowStone({option}={shown(named)}): give a mapping of names to objects.")
    for name, executor in (given.get("executors") or {}).items():
        if not callable(executor) and not all(hasattr(executor, one) for one in ("bind", "execute", "schedule")):
            what = "give an executor, or a function that makes one."
            raise ConfigurationError(f"FlowStone(executors={{{name!r}: {shown(executor)}}}): {what}")
    for name, manager in (given.get("io") or {}).items():
        if isinstance(manager, type) or not all(hasattr(manager, one) for one in ("name", "store", "load")):
            raise ConfigurationError(f"FlowStone(io={{{name!r}: {shown(manager)}}}): give an IO manager object.")
    notifiers = given.get("notifiers")
    if not isinstance(notifiers, Iterable) or not all(map(callable, notifiers)):
        raise ConfigurationError(f"FlowStone(notifiers={shown(notifiers)}): give a list of functions.")
    settings = given.get("settings")
    if settings is not None and not isinstance(settings, Settings):
        raise ConfigurationError(f"FlowStone(settings={shown(settings)}): give Settings(...).")
