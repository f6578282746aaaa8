"""Resources: declared once, opened on first use, closed on shutdown."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.automation.sensor import Sensor
from flowstone.core.check import Check
from flowstone.core.context import Resources
from flowstone.core.declaring import place_of
from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.errors import DefinitionError, ResourceError, did_you_mean

_NONE: Mapping[str, Any] = {}


class ResourcePool:
    """Opens each resource at most once per process and gives assets what they require.

    A declared resource is either an object (used as it is), a function (called on first use), or a function that
    returns a context manager (entered on first use, left on close). A parameter of such a function is the name of
    another resource: that one is opened before it, and closed after it.

    Args:
        declared: name to object or function.

    Example:
        >>> pool = ResourcePool({"answer": lambda: 42})
        >>> pool.get("answer")
        42
        >>> pool.close()
        >>> ResourcePool({"url": "db://x", "client": lambda url: f"client of {url}"}).get("client")
        'client of db://x'
    """

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self._declared = dict(declared)
        self._needs = {name: needs for name, one in declared.items() if (needs := _parameters(one))}
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
            DefinitionError: naming the asset, check or sensor, file and line; or a resource that needs one that is
                not declared, or itself.
        """
        self._check_needs()
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

    def _check_needs(self) -> None:
        for name, needs in self._needs.items():
            for needed in needs:
                if needed not in self._declared:
                    raise DefinitionError(
                        f"The resource {name!r} needs a resource {needed!r} (a parameter of its function), which "
                        f"is not declared.{did_you_mean(needed, self._declared)} Declare it, or give the "
                        "parameter a default value.",
                        where=_place(self._declared[name]),
                    )
        done: set[str] = set()
        for name in self._needs:
            self._refuse_circle(name, (), done)

    def _refuse_circle(self, name: str, path: tuple[str, ...], done: set[str]) -> None:
        if name in path:
            circle = " -> ".join(map(repr, (*path[path.index(name) :], name)))
            raise DefinitionError(
                f"The resources {circle} need each other: none of them can be opened first.",
                where=_place(self._declared[name]),
            )
        if name not in done:
            for needed in self._needs.get(name, ()):
                self._refuse_circle(needed, (*path, name), done)
            done.add(name)

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
        needed = {one: self.get(one) for one in self._needs.get(name, ())}
        try:
            made = declared(**needed)
            if isinstance(made, AbstractContextManager):
                return self._stack.enter_context(made)
            return made
        except Exception as error:
            raise ResourceError(
                f"The resource {name!r} could not be opened: {type(error).__name__}: {error}"
            ) from error


def _parameters(declared: Any) -> tuple[str, ...]:
    """Return the parameters of a function that have no default value: the resources that it needs."""
    if not callable(declared):
        return ()
    try:
        parameters = inspect.signature(declared).parameters.values()
    except (TypeError, ValueError):  # some callables of C say nothing of theirs
        return ()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(one.name for one in parameters if one.kind in named and one.default is one.empty)


def _place(declared: Any) -> str | None:
    return place_of(declared) if inspect.isfunction(declared) else None
