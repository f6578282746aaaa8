"""Finding a compute by name, and refusing what an asset asks of one before anything runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from flowstone.core.asset import Asset
from flowstone.core.declaring import no_such_part
from flowstone.errors import ConfigurationError, DefinitionError, FlowStoneError, did_you_mean, join_names
from flowstone.protocols import Compute

COMPUTE_MEMBERS = ("code", "values", "check", "submit", "close")


class ComputeSelector:
    """The computes of an app: those that it was given, and those that packages register.

    Args:
        given: by name.
        registered: finds what a package registers under a name.
        registered_names: returns the names that packages register.

    Example:
        >>> ComputeSelector({}).made()
        []
    """

    def __init__(
        self,
        given: Mapping[str, Compute],
        registered: Callable[[str], Compute | None] = lambda name: None,
        registered_names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._found = dict(given)
        self._registered = registered
        self._registered_names = registered_names
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
        return sorted({*self._found, *self._registered_names()})

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
        registered = self._registered(name)
        if registered is not None:
            return registered
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
    if problem := no_such_part("compute", given, COMPUTE_MEMBERS):
        raise ConfigurationError(
            f"{where}: {problem}. Give an object such as DaskCompute('tcp://...'), or one with the methods of "
            "flowstone.protocols.Compute."
        )
