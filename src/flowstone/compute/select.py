"""Finding a compute by name, and refusing what an asset asks of one before anything runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoints, entry_points

from flowstone.core.asset import Asset
from flowstone.core.declaring import shown
from flowstone.errors import ConfigurationError, DefinitionError, FlowStoneError, did_you_mean, join_names
from flowstone.protocols import Compute

ENTRY_POINT_GROUP = "flowstone.compute"
_MEMBERS = ("code", "values", "check", "submit", "close")


class ComputeSelector:
    """The computes of an app: those that it was given, and those that packages register.

    Args:
        given: by name.

    Example:
        >>> ComputeSelector({}).made()
        []
    """

    def __init__(self, given: Mapping[str, Compute]) -> None:
        self._found = dict(given)
        self._lock = threading.Lock()

    def get(self, name: str) -> Compute:
        """Return a compute.

        Raises:
            ConfigurationError: there is none of this name, or its package does not work.
        """
        with self._lock:
            if name not in self._found:
                self._found[name] = self._load(name)
            return self._found[name]

    def names(self) -> list[str]:
        """Return every name that `get` knows."""
        return sorted({*self._found, *(point.name for point in _points())})

    def made(self) -> list[tuple[str, Compute]]:
        """Return those that are there, with their names."""
        return sorted(self._found.items())

    def check(self, assets: Iterable[Asset]) -> None:
        """Refuse assets that name a compute that is not there, or options that it does not take.

        Raises:
            DefinitionError: names the asset, its file and line.
        """
        for asset in assets:
            if asset.compute is None:
                continue
            try:
                self.get(asset.compute).check(asset.compute_options)
            except FlowStoneError as error:
                raise DefinitionError(
                    f"Asset {asset.name!r} declares compute={asset.compute!r}: {error}", where=asset.where
                ) from error

    def close(self) -> None:
        """Close all of them; they can be used again."""
        for compute in self._found.values():
            compute.close()

    def _load(self, name: str) -> Compute:
        for point in _points():
            if point.name == name:
                try:
                    made: Compute = point.load()()
                except Exception as error:
                    raise ConfigurationError(
                        f"the entry point {point.value!r} failed with {type(error).__name__}: {error}. Check the "
                        "package that registers it."
                    ) from error
                refuse_what_is_no_compute(f"the entry point {point.value!r}", made)
                return made
        known = self.names()
        listed = f"; there are: {join_names(known)}" if known else ""
        raise ConfigurationError(
            f"there is no compute of this name{listed}.{did_you_mean(name, known)} Pass "
            f"FlowStone(..., compute={{{name!r}: ...}}), such as DaskCompute('tcp://...')."
        )


def refuse_what_is_no_compute(where: str, given: object) -> None:
    """Refuse a class instead of an object, and an object without the methods.

    Raises:
        ConfigurationError: says what is missing.
    """
    if isinstance(given, type):
        raise ConfigurationError(
            f"{where}: {given.__name__} is a class; give an object of it: {given.__name__}(...)."
        )
    absent = [name for name in _MEMBERS if not hasattr(given, name)]
    if absent:
        raise ConfigurationError(
            f"{where}: {shown(given)} is no compute, it has no {join_names(absent)}. Give an object such as "
            "DaskCompute('tcp://...'), or one with the methods of flowstone.protocols.Compute."
        )


def _points() -> EntryPoints:
    return entry_points(group=ENTRY_POINT_GROUP)
