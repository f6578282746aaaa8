"""Errors of routes."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.errors.root import FlowStoneError, did_you_mean, join_names


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
