"""The assets of the executor conformance suite that choose their branches; the partition is what they choose."""

from __future__ import annotations

from typing import Any

from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.dependency import dep
from flowstone.core.outcome import Skip
from flowstone.core.retry import RetryPolicy
from flowstone.core.route import Route
from flowstone.testing.marks import Marks

CHOICES = ("left", "right", "both", "nobody", "typo", "no route", "stumbles")
_choices = StaticPartitions(CHOICES)
_once = RetryPolicy(max_attempts=1)


@asset(partitions=_choices, routes=["left", "right"], retry=_once)
def fork(context: AssetContext) -> Any:
    """Chooses what its partition says."""
    Marks().leave("fork")
    match context.partition:
        case "left" | "right":
            return Route(str(context.partition), value=10, reason=f"it is {context.partition}")
        case "both":
            return Route(left, "right", value=10)
        case "stumbles":
            return Route("left", value=10)
        case "nobody":
            return Route(value=10)
        case "typo":
            return Route("lefd")
        case _:
            return 10


@asset(partitions=_choices, retry=_once)
def left(context: AssetContext, fork: int) -> int:
    """One branch; fails the first time where it stumbles."""
    Marks().leave("left")
    if context.partition == "stumbles" and Marks().count("left") == 1:
        raise RuntimeError("the left branch stumbles")
    return fork + 1


@asset(partitions=_choices)
def right(fork: int) -> int:
    """The other branch."""
    Marks().leave("right")
    return fork + 2


@asset(partitions=_choices)
def below_right(right: int) -> int:
    """Cannot do without its branch."""
    Marks().leave("below_right")
    return right


@asset(partitions=_choices, deps=[dep(left, optional=True), dep(below_right, optional=True)])
def meeting(left: int | None, below_right: int | None) -> list[int | None]:
    """Takes what comes."""
    Marks().leave("meeting")
    return [left, below_right]


@asset(partitions=_choices)
def beside(fork: int) -> int:
    """Is no branch, and always runs."""
    Marks().leave("beside")
    return fork


@asset(routes=["apart_a", "apart_b"], isolation="process")
def fork_apart() -> Route:
    """Chooses in a process of its own."""
    return Route("apart_b", value={"rows": 3}, reason="in a process of its own")


@asset
def apart_a(fork_apart: dict[str, int]) -> int:
    """Not chosen."""
    return fork_apart["rows"]


@asset
def apart_b(fork_apart: dict[str, int]) -> int:
    """Chosen."""
    return fork_apart["rows"]


@asset
def undeclared() -> Route:
    """Declares no branches."""
    return Route("apart_a")


@asset
def quiet() -> None:
    """Has nothing to do; nobody chose that."""
    raise Skip("nothing new")


@asset(deps=[dep(quiet, optional=True)])
def with_or_without(quiet: None, apart_b: int) -> list[object]:
    """Does without one input, and not without the other."""
    return [quiet, apart_b]


ROUTE_ASSETS = [
    fork,
    left,
    right,
    below_right,
    meeting,
    beside,
    fork_apart,
    apart_a,
    apart_b,
    undeclared,
    quiet,
    with_or_without,
]
