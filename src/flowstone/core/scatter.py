"""Fan-out at run time: an asset that discovers its items when it runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from copy import copy
from datetime import timedelta
from typing import Any, Protocol, cast

from flowstone.core.asset import Asset, Isolation, asset
from flowstone.core.automation.condition import Condition, Paced
from flowstone.core.declaring import known_options
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.dependency import CONTEXT_PARAMETER, DependencyLike
from flowstone.core.generic import P, T_co
from flowstone.core.items import ItemPartitions, Key
from flowstone.core.retry import RetryPolicy
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


class ScatterPhase(Asset):
    """One of the two functions of a scatter, as the runner calls it: discovering or gathering.

    Items stream from the first one into the store and from there into the second one, so neither can run in
    another process.
    """

    portable = False


class Scatter(Asset[P, T_co]):
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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the plain function, which gives the items."""
        return self.function(*args, **kwargs)

    def gather[T](self, function: Callable[..., Coroutine[Any, Any, T]] | Callable[..., T]) -> Scatter[P, T]:
        """Declare the function that makes the asset's value from the results of the items.

        Args:
            function: takes the results (a `Gathered`), after the context if its first parameter is `context`.

        Returns:
            The scatter itself, which from then on has what the function returns as its value.

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
        return cast("Scatter[P, T]", self)

    def phase(self, function: Callable[..., Any], *, takes_context: bool, is_async: bool) -> ScatterPhase:
        """Return this asset as the runner calls one of its functions."""
        phase = ScatterPhase.__new__(ScatterPhase)
        vars(phase).update(vars(self))
        phase.function, phase.takes_context, phase.is_async = function, takes_context, is_async
        return phase


class _Scatters(Protocol):
    """What `@scatter(...)` returns: a decorator."""

    def __call__[**Q](self, function: Callable[Q, object], /) -> Scatter[Q, Any]: ...


@known_options("@scatter")
def scatter(
    *,
    each: Callable[..., Any] | Asset,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_failures: float = 0,
    key: Key | None = None,
    name: str | None = None,
    deps: Mapping[str, DependencyLike] | Iterable[DependencyLike] = (),
    partitions: PartitionsDefinition | None = None,
    io: str | None = None,
    requires: Iterable[str] = (),
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    queue: str = "assets",
    priority: int | None = None,
    isolation: Isolation = "thread",
    concurrency: Mapping[str, int | str] | None = None,
    tags: Iterable[str] = (),
    group: str | None = None,
    description: str | None = None,
    code_version: str | None = None,
    automation: Condition | Paced | None = None,
    routes: Iterable[str] = (),
    config: Any = None,
    allow_incomplete: bool = False,
    renamed_from: str | Iterable[str] | None = (),
) -> _Scatters:
    """Declare a function that discovers items, each of which is then a durable step of its own.

    The function returns the items or yields them; its parameters are dependencies. When all items are over, the
    gathering function (see `Scatter.gather`) makes the asset's value of their results; else it is a `Gathered`.

    Args:
        each: what is done with an item: a function of it, or one declared by `@asset(...)`, with its options.
        max_concurrency: most items at once, in the whole fleet on a durable executor.
        max_failures: how many items may fail: a number (int) or a share of all (float, 0 to 1).
        key: names an item, uniquely; by default the item itself if it can be a partition, else its position.
        name: see `asset`; so are the other options, which are for discovering and gathering.

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
        ... def total(results):
        ...     return sum(result.value for result in results)
        >>> from flowstone import FlowStone
        >>> FlowStone([squares]).materialize("squares").value
        14
    """
    declare = asset(
        name=name,
        deps=deps,
        partitions=partitions,
        io=io,
        requires=requires,
        retry=retry,
        timeout=timeout,
        queue=queue,
        priority=priority,
        isolation=isolation,
        concurrency=concurrency,
        tags=tags,
        group=group,
        description=description,
        code_version=code_version,
        automation=automation,
        routes=routes,
        config=config,
        allow_incomplete=allow_incomplete,
        renamed_from=renamed_from,
    )

    def decorate[**Q](function: Callable[Q, object], /) -> Scatter[Q, Any]:
        made = _scatter(declare(function), each, max_concurrency, max_failures, key)
        return cast("Scatter[Q, Any]", made)

    return decorate


def _scatter(
    declared: Asset,
    each: Callable[..., Any] | Asset,
    max_concurrency: int,
    max_failures: float,
    key: Key | None,
) -> Scatter:
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
