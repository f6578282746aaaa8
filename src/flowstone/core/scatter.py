"""Fan-out at run time: an asset that discovers its items when it runs."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from flowstone.core.asset import Asset, asset
from flowstone.core.dependency import CONTEXT_PARAMETER
from flowstone.core.items import ItemPartitions, Key
from flowstone.errors import DefinitionError

DEFAULT_CONCURRENCY = 100


class ItemAsset(Asset):
    """The asset of the items of a scatter: one step for each item.

    Attributes:
        parameter: the parameter of the function that receives the item.
        scatter: name of the asset that discovers the items.
    """

    hidden = True
    parameter: str
    scatter: str

    @property
    def owner(self) -> str:
        """The scatter: a run configures it and its items together."""
        return self.scatter


class Leg(Asset):
    """One of the two functions of a scatter, as the runner calls it: discovering or gathering.

    Items stream from the first one into the store and from there into the second one, so neither can run in
    another process.
    """

    portable = False


class Scatter(Asset):
    """An asset that discovers its items when it runs; made by `scatter`.

    Each item is a step of its own, of the asset `item`. When all are over, what they made is gathered.

    Attributes:
        item: the asset of the items.
        key: names an item; None for the item itself, or its position.
        max_concurrency: most items at once.
        max_failures: how many items may fail: a number, or a share.
        gathering: receives the results; None when the asset's value is the reader of the results itself.
        results: the parameter of `gathering` that receives the reader.
    """

    item: ItemAsset
    key: Key | None
    max_concurrency: int
    max_failures: float
    gathering: Asset | None
    results: str

    @property
    def companions(self) -> tuple[Asset, ...]:
        """The assets that come with this one into an app."""
        return (self.item,)

    def gather(self, function: Callable[..., Any]) -> Scatter:
        """Declare the function that makes the asset's value from the results of the items.

        Args:
            function: takes the results (a `Gathered`), after the context if its first parameter is `context`.

        Returns:
            The scatter itself, so that the function may carry its name.

        Raises:
            DefinitionError: it takes anything else, or there is a gathering function already.
        """
        if self.gathering is not None:
            raise DefinitionError(
                f"Asset {self.name!r} has a gathering function already ({self.gathering.where}).", where=self.where
            )
        found = asset(name=f"{self.name}.gather")(function)
        self.results = _only_input(found, "the gathering function", "the results")
        self.gathering = found
        return self

    def leg(self, function: Callable[..., Any], *, takes_context: bool, is_async: bool) -> Leg:
        """Return this asset as the runner calls one of its functions."""
        leg = Leg.__new__(Leg)
        vars(leg).update(vars(self))
        leg.function, leg.takes_context, leg.is_async = function, takes_context, is_async
        return leg


def scatter(
    *,
    each: Callable[..., Any] | Asset,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_failures: float = 0,
    key: Key | None = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], Scatter]:
    """Declare a function that discovers items, each of which is then a durable step of its own.

    The function returns the items or yields them; its parameters are dependencies. When all items are over, the
    gathering function (see `Scatter.gather`) makes the asset's value of their results; else it is a `Gathered`.

    Args:
        each: what is done with an item: a function of it, or one declared by `@asset(...)`, with its options.
        max_concurrency: most items at once, in the whole fleet on a durable executor.
        max_failures: how many items may fail: a number (int) or a share of all (float, 0 to 1).
        key: names an item, uniquely; by default the item itself if it can be a partition, else its position.
        **options: those of `asset`, for discovering and gathering.

    Returns:
        A decorator that makes a `Scatter`, callable as the plain discovering function.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.

    Example:
        >>> def squared(number):
        ...     return number * number
        >>> @scatter(each=squared)
        ... def squares():
        ...     yield from [1, 2, 3]
        >>> @squares.gather
        ... def squares(results):
        ...     return sum(result.value for result in results)
        >>> from flowstone import FlowStone
        >>> FlowStone([squares]).materialize("squares").value
        14
    """
    return lambda function: _declare(function, each, max_concurrency, max_failures, key, options)


def _declare(
    function: Callable[..., Any],
    each: Callable[..., Any] | Asset,
    max_concurrency: int,
    max_failures: float,
    key: Key | None,
    options: dict[str, Any],
) -> Scatter:
    declared = asset(**options)(function)
    problem = _problem(max_concurrency, max_failures, key)
    if declared.isolation == "process":
        problem = 'isolation="process": items stream from it into the store; declare that for the items (each=...)'
    if problem:
        raise DefinitionError(f"Asset {declared.name!r} was declared with {problem}.", where=declared.where)
    made = Scatter.__new__(Scatter)
    vars(made).update(vars(declared))
    made.key, made.max_concurrency, made.max_failures = key, max_concurrency, max_failures
    made.gathering, made.results = None, "results"
    made.item = _item(made, each)
    return made


def _problem(max_concurrency: object, max_failures: object, key: object) -> str | None:
    if type(max_concurrency) is not int or max_concurrency < 1:
        return f"max_concurrency={max_concurrency!r}: give at least 1"
    if type(max_failures) is float and not 0 <= max_failures <= 1:
        return f"max_failures={max_failures!r}: give a share from 0.0 to 1.0, or a number of items without a point"
    if type(max_failures) not in (int, float) or (type(max_failures) is int and max_failures < 0):
        return f"max_failures={max_failures!r}: give a number of items, or a share such as 0.05"
    if key is not None and not callable(key):
        return f"key={key!r}: give a function of the item"
    return None


def _item(scatter: Scatter, each: Callable[..., Any] | Asset) -> ItemAsset:
    name = f"{scatter.name}.item"
    declared = each if isinstance(each, Asset) else asset(name=name)(each)
    if declared.partitions is not None or isinstance(declared, Scatter):
        raise DefinitionError(
            f"Asset {scatter.name!r}: each={declared.name!r} cannot have partitions, or scatter again: its "
            "partitions are the items.",
            where=declared.where,
        )
    if declared.config not in (None, scatter.config):
        raise DefinitionError(
            f"Asset {scatter.name!r}: each={declared.name!r} declares config={declared.config!r}, but items are "
            f"configured with the asset that discovers them: declare it there, @scatter(config=...).",
            where=declared.where,
        )
    made = ItemAsset.__new__(ItemAsset)
    vars(made).update(vars(copy(declared)))
    made.parameter = _only_input(declared, f"each={declared.name!r} of asset {scatter.name!r}", "the item")
    made.name, made.scatter, made.dependencies, made.partitions = name, scatter.name, (), ItemPartitions()
    made.automation, made.routes, made.config = None, (), scatter.config
    return made


def _only_input(found: Asset, what: str, meaning: str) -> str:
    names = [one.parameter for one in found.dependencies if one.parameter is not None]
    if len(names) != 1 or len(found.dependencies) != 1:
        listed = ", ".join(one.asset for one in found.dependencies) or "nothing"
        raise DefinitionError(
            f"{what[0].upper()}{what[1:]} must take {meaning} alone (after {CONTEXT_PARAMETER!r}, if it wants "
            f"that), but takes {listed}. Put what it needs into the items, or declare a resource.",
            where=found.where,
        )
    return names[0]
