"""Routes: an asset that decides which of its direct downstream assets run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowstone.core.clean import clean_text, plain_text
from flowstone.core.declaring import shown
from flowstone.core.dependency import Named
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.errors import RouteError

ROUTE_KEY = "flowstone.route"
"""Where the decision lies in the metadata of a stored output."""

ALL_SKIPPED = "all its inputs were skipped"
"""Why an asset is skipped that can do without each of its inputs, but not without all of them."""

_REASON_CHARACTERS = 500


class Route:
    """What an asset returns to choose which of its declared branches run.

    The asset declares the branches with `@asset(routes=[...])`. Those that are not chosen are skipped, and what
    is below them too. Chosen branches, and every other asset downstream, receive `value` as the asset's value.

    Args:
        branches: the chosen direct downstream assets, or their names; none of them chooses nobody.
        value: the value of the asset.
        reason: shown with what was not chosen.

    Raises:
        TypeError: a branch is neither a name nor an asset.

    Example:
        >>> chosen = Route("full_load", value=12, reason="the table is empty")
        >>> chosen.branches, chosen.value
        (('full_load',), 12)
    """

    __slots__ = ("branches", "reason", "value")

    def __init__(self, *branches: str | Named, value: object = None, reason: str = "") -> None:
        self.branches = tuple(dict.fromkeys(_name(one) for one in branches))
        self.value = value
        self.reason = plain_text(reason)

    def __repr__(self) -> str:
        return f"<route to {', '.join(self.branches) or 'nobody'}>"


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """A decision as it is recorded with the version of the asset that made it.

    Args:
        chosen: branches that run.
        not_chosen: branches that were declared then and do not run.
        reason: why, as the asset said it.

    Example:
        >>> RouteDecision(("a",), ("b",), "small").explain("router")
        'not chosen by router: small'
    """

    chosen: tuple[str, ...]
    not_chosen: tuple[str, ...] = ()
    reason: str = ""

    def explain(self, router: str) -> str:
        """Return why a branch that was not chosen is skipped."""
        return f"not chosen by {router}" + (f": {self.reason}" if self.reason else "")

    def to_json(self) -> dict[str, JsonValue]:
        """Return the recorded form."""
        return {"chosen": list(self.chosen), "not_chosen": list(self.not_chosen), "reason": self.reason}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> RouteDecision:
        """Rebuild what `to_json` returned."""
        return cls(_names(document["chosen"]), _names(document["not_chosen"]), str(document["reason"]))


def decide(route: Route, asset: str, routes: Sequence[str], where: str) -> RouteDecision:
    """Check what an asset chose against what it declares.

    Args:
        route: what it returned.
        asset: its name.
        routes: its declared branches.
        where: its file and line.

    Raises:
        RouteError: it declares no branches, or chose another asset.

    Example:
        >>> decide(Route("a"), "router", ["a", "b"], "here.py:1").not_chosen
        ('b',)
    """
    unknown = [name for name in route.branches if name not in routes]
    if unknown or not routes:
        raise RouteError(asset, unknown, routes, where=where)
    left_out = tuple(name for name in routes if name not in route.branches)
    return RouteDecision(route.branches, left_out, clean_text(route.reason, limit=_REASON_CHARACTERS))


def decision_of(stored: StoredOutput | None) -> RouteDecision | None:
    """Return the decision that was stored with a version; None when it made none.

    Example:
        >>> decision_of(StoredOutput("memory", "x")) is None
        True
    """
    found = stored.metadata.get(ROUTE_KEY) if stored is not None else None
    return RouteDecision.from_json(found) if isinstance(found, dict) else None


def _name(branch: object) -> str:
    name = branch if isinstance(branch, str) else getattr(branch, "name", None)
    if not isinstance(name, str):
        raise TypeError(
            f"Route({shown(branch)}): give names of downstream assets, such as Route('full_load'); "
            "the asset's own value is Route(..., value=...)"
        )
    return name


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()
