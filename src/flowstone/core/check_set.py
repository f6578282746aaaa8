"""The checks of an app, by asset: verified once when the app is built, then only read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowstone.core.check import Check
from flowstone.core.graph import AssetGraph
from flowstone.errors import DefinitionError, DuplicateCheckError, UnknownCheckedAssetError


class CheckSet:
    """Knows which checks belong to which asset, in the order in which they were given.

    Args:
        checks: the declared checks.
        graph: the assets of the app.

    Raises:
        UnknownCheckedAssetError: a check is about an asset that the app does not have.
        DuplicateCheckError: two checks of one asset carry one name.
        DefinitionError: something is not a check.

    Example:
        >>> from flowstone.core.asset import asset
        >>> from flowstone.core.check import check
        >>> @asset
        ... def orders(): ...
        >>> @check(orders)
        ... def not_empty(orders):
        ...     return len(orders) > 0
        >>> [one.name for one in CheckSet([not_empty], AssetGraph([orders])).of("orders")]
        ['not_empty']
    """

    def __init__(self, checks: Iterable[Check], graph: AssetGraph) -> None:
        self._checks: dict[str, tuple[Check, ...]] = {}
        for one in checks:
            if not isinstance(one, Check):
                raise DefinitionError(
                    f"{one!r} is not a check. Decorate the function with @check(asset) before passing it to "
                    "FlowStone(..., checks=[...])."
                )
            if one.asset not in graph:
                raise UnknownCheckedAssetError(one.name, one.asset, graph.assets, where=one.where)
            self._add(one)

    def of(self, asset: str) -> tuple[Check, ...]:
        """Return the checks of an asset; empty when it has none."""
        return self._checks.get(asset, ())

    def __iter__(self) -> Iterator[Check]:
        return (one for checks in self._checks.values() for one in checks)

    def __bool__(self) -> bool:
        return bool(self._checks)

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets that have checks."""
        return tuple(self._checks)

    def _add(self, new: Check) -> None:
        known = self.of(new.asset)
        for one in known:
            if one is new:
                return
            if one.name == new.name:
                raise DuplicateCheckError(new.asset, new.name, one.where, new.where)
        self._checks[new.asset] = (*known, new)
