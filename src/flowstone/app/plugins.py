"""What installed packages register: IO managers, computes and resources under the names that assets use.

A package says `[project.entry-points."flowstone.io"]`, `"flowstone.compute"` or `"flowstone.resources"`, then
`name = "module:object"`. Only what an app names and does not declare itself is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from flowstone.compute.select import COMPUTE_MEMBERS
from flowstone.core.declaring import no_such_part
from flowstone.errors import ConfigurationError
from flowstone.protocols import Compute, IOManager

IO_GROUP = "flowstone.io"
COMPUTE_GROUP = "flowstone.compute"
RESOURCES_GROUP = "flowstone.resources"


def registered_names(group: str) -> list[str]:
    """Return the names that installed packages register in a group.

    Example:
        >>> registered_names("flowstone.nothing")
        []
    """
    return sorted({point.name for point in entry_points(group=group)})


def registered_io(name: str) -> IOManager | None:
    """Return the IO manager that a package registers under a name; None when none does.

    The entry point is an IO manager, or a class or function without parameters that makes one.

    Raises:
        ConfigurationError: it cannot be imported or made, calls itself something else, or two packages have it.
    """
    point = _find(IO_GROUP, name)
    if point is None:
        return None
    loaded = _made(point, "IO manager", ("name", "shared", "store", "load", "discard"))
    if loaded.name != name:
        raise _broken(point, f"calls itself {loaded.name!r}, and that name is recorded with every value")
    manager: IOManager = loaded
    return manager


def registered_compute(name: str) -> Compute | None:
    """Return the compute that a package registers under a name; None when none does.

    The entry point is a compute, or a class or function without parameters that makes one.

    Raises:
        ConfigurationError: it cannot be imported or made, or two packages have it.
    """
    point = _find(COMPUTE_GROUP, name)
    compute: Compute | None = None if point is None else _made(point, "compute", COMPUTE_MEMBERS)
    return compute


def registered_resource(name: str) -> Any:
    """Return what a package registers as a resource under a name; None when none does.

    As in `FlowStone(resources=...)` it is an object, or a function that makes one or returns a context manager.

    Raises:
        ConfigurationError: it cannot be imported, is nothing, or two packages register it.
    """
    point = _find(RESOURCES_GROUP, name)
    if point is None:
        return None
    loaded = _load(point)
    if loaded is None:
        raise _broken(point, "is None")
    return loaded


def _find(group: str, name: str) -> EntryPoint | None:
    # one package may be found twice, beside its own sources
    found = list({point.value: point for point in entry_points(group=group, name=name)}.values())
    if len(found) > 1:
        values = " and ".join(sorted(repr(point.value) for point in found))
        raise ConfigurationError(
            f"Several packages register {name!r} in {group}: {values}. Uninstall one, or declare the one that "
            "you mean when you make FlowStone(...)."
        )
    return found[0] if found else None


def _made(point: EntryPoint, kind: str, members: Iterable[str]) -> Any:
    loaded = _load(point)
    if inspect.isroutine(loaded) or isinstance(loaded, type):
        try:
            loaded = loaded()
        except Exception as error:
            raise _broken(point, f"failed with {type(error).__name__}: {error}") from error
    if problem := no_such_part(kind, loaded, members):
        raise _broken(point, f"cannot be used: {problem}")
    return loaded


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise _broken(point, f"cannot be imported ({type(error).__name__}: {error})") from error


def _broken(point: EntryPoint, why: str) -> ConfigurationError:
    package = point.dist.name if point.dist is not None else "the package"
    return ConfigurationError(
        f"The entry point {point.name!r} of {point.group} ({point.value!r}) {why}. "
        f"Check {package}, which registers it."
    )
