"""Resources: declared once, opened on first use, closed on shutdown."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.automation.sensor import Sensor
from flowstone.core.check import Check
from flowstone.core.context import Resources
from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.errors import DefinitionError, ResourceError, did_you_mean

_NONE: Mapping[str, Any] = {}


class ResourcePool:
    """Opens each resource at most once per process and gives assets what they require.

    A declared resource is either an object (used as it is), a function without parameters (called on first
    use), or a function that returns a context manager (entered on first use, left on close).

    Args:
        declared: name to object or function.

    Example:
        >>> pool = ResourcePool({"answer": lambda: 42})
        >>> pool.get("answer")
        42
        >>> pool.close()
    """

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self._declared = dict(declared)
        self._opened: dict[str, Any] = {}
        self._stack = ExitStack()
        self._begin()
        renew_after_fork(self, ResourcePool._begin)

    def _begin(self) -> None:
        # what the parent opened is neither used nor closed by a forked child, which opens its own
        keep_of_parent(self._opened, self._stack)
        self._opened, self._stack = {}, ExitStack()
        # one lock per resource would let two open at once; opening is rare, and order of closing matters
        self._lock = threading.RLock()

    def check(self, assets: Iterable[Asset], others: Iterable[Check | Sensor] = ()) -> None:
        """Refuse assets, checks and sensors that require what is not declared.

        Raises:
            DefinitionError: naming the asset, check or sensor, file and line.
        """
        owners: list[Asset | Check | Sensor] = [*assets, *others]
        for owner in owners:
            kind = next(one.__name__ for one in (Asset, Check, Sensor) if isinstance(owner, one))
            for name in owner.requires:
                if name not in self._declared:
                    raise DefinitionError(
                        f"{kind} {owner.name!r} requires the resource {name!r}, which is not declared."
                        f"{did_you_mean(name, self._declared)} Pass FlowStone(..., resources={{{name!r}: ...}}).",
                        where=owner.where,
                    )

    def get(self, name: str) -> Any:
        """Return an opened resource.

        Raises:
            ResourceError: it is unknown, or opening it failed.
        """
        opened = self._opened
        if name in opened:
            return opened[name]
        with self._lock:
            if name not in opened:
                opened[name] = self._open(name)
            return opened[name]

    @property
    def names(self) -> Collection[str]:
        """Names of the declared resources."""
        return self._declared.keys()

    def for_asset(self, asset: Asset, substitutes: Mapping[str, str] = _NONE) -> Mapping[str, Any]:
        """Return the resources that an asset requires, opened.

        Args:
            asset: the asset.
            substitutes: required name to the name of the resource that stands in for it in this run.
        """
        if not asset.requires:
            return Resources(_NONE, asset.name) if asset.takes_context else _NONE
        return Resources({name: self.get(substitutes.get(name, name)) for name in asset.requires}, asset.name)

    def close(self) -> None:
        """Close what was opened, last opened first; the pool can be used again afterwards."""
        with self._lock:
            self._opened.clear()
            stack, self._stack = self._stack, ExitStack()
        stack.close()

    def _open(self, name: str) -> Any:
        if name not in self._declared:
            raise ResourceError(f"There is no resource {name!r}.{did_you_mean(name, self._declared)}")
        declared = self._declared[name]
        if not callable(declared):
            return declared
        try:
            made = declared()
            if isinstance(made, AbstractContextManager):
                return self._stack.enter_context(made)
            return made
        except Exception as error:
            raise ResourceError(
                f"The resource {name!r} could not be opened: {type(error).__name__}: {error}"
            ) from error
