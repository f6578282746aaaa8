"""An asset: a named piece of data and the function that makes it from other assets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from functools import update_wrapper
from typing import Any, Literal, overload

from flowstone.core.automation.condition import Condition, Paced, paced
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.dependency import CONTEXT_PARAMETER, Dependency, DependencyLike, read_dependencies
from flowstone.core.known_keys import KeySource
from flowstone.core.limits import parse_limit
from flowstone.core.retry import RetryPolicy
from flowstone.errors import DefinitionError

type Isolation = Literal["thread", "process"]


class Asset:
    """The declaration that `@asset` makes of a function; calling it calls the plain function.

    Attributes mirror the options of `asset`; `dependencies` holds the inputs in the order of the
    parameters, `where` the file and line of the function.
    """

    hidden = False
    """Whether selections leave it out because another asset runs it."""
    portable = True
    """Whether its function may run in another process."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        dependencies: tuple[Dependency, ...],
        takes_context: bool,
        where: str,
        partitions: PartitionsDefinition | None,
        options: AssetOptions,
    ) -> None:
        self.function = function
        self.name = name
        self.dependencies = dependencies
        self.takes_context = takes_context
        self.where = where
        self.partitions = partitions
        self.io = options.io
        self.requires = options.requires
        self.retry = options.retry
        self.timeout_seconds = options.timeout_seconds
        self.queue = options.queue
        self.priority = options.priority
        self.isolation = options.isolation
        self.concurrency = dict(options.concurrency)
        self.tags = options.tags
        self.group = options.group
        self.description = options.description
        self.code_version = options.code_version
        self.automation = None if options.automation is None else paced(options.automation)
        self.routes = options.routes
        self.is_async = inspect.iscoroutinefunction(function)
        self.copied_from: Asset | None = None
        update_wrapper(self, function)

    @property
    def companions(self) -> tuple[Asset, ...]:
        """The assets that come with this one into an app."""
        return ()

    @property
    def declared(self) -> Asset:
        """The asset that the module holds, also when this is an app's copy of it."""
        return self.copied_from or self

    def bound(self, source: KeySource) -> Asset:
        """Return the asset for one app: itself, or a copy when its partitions get their keys from a store."""
        partitions = None if self.partitions is None else self.partitions.bound(source)
        if partitions is self.partitions:
            return self
        bound = copy(self)
        bound.partitions, bound.copied_from = partitions, self.declared
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: tests of an asset need no framework."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<asset {self.name!r} at {self.where}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetOptions:
    """The options of `@asset` that do not shape the graph, checked once."""

    io: str | None = None
    requires: tuple[str, ...] = ()
    retry: RetryPolicy | None = None
    timeout_seconds: float | None = None
    queue: str = "assets"
    priority: int | None = None
    isolation: Isolation = "thread"
    concurrency: Mapping[str, int | str]
    tags: frozenset[str] = frozenset()
    group: str | None = None
    description: str = ""
    code_version: str | None = None
    automation: Condition | Paced | None = None
    routes: tuple[str, ...] = ()

    def check(self, name: str, where: str) -> None:
        """Refuse values that cannot work.

        Raises:
            DefinitionError: naming the asset, the option and the file and line.
        """
        problem = None
        if self.priority is not None and self.priority not in range(10):
            problem = f"priority={self.priority!r}: give a whole number from 0 (first) to 9"
        elif self.isolation not in ("thread", "process"):
            problem = f'isolation={self.isolation!r}: give "thread" or "process"'
        elif self.timeout_seconds is not None and not _is_duration(self.timeout_seconds):
            problem = f"timeout={self.timeout_seconds!r}: give more than 0 seconds"
        elif not _is_name(self.queue):
            problem = f"queue={self.queue!r}: give the name of a queue"
        elif self.io is not None and not _is_name(self.io):
            problem = f"io={self.io!r}: give the name of an IO manager"
        elif self.retry is not None and not _is_policy(self.retry):
            problem = f"retry={self.retry!r}: give a RetryPolicy, such as RetryPolicy(max_attempts=3)"
        elif self.automation is not None and not _is_condition(self.automation):
            problem = f"automation={self.automation!r}: give a condition, such as eager()"
        elif (unusable := _unusable_limits(self.concurrency)) is not None:
            problem = f"concurrency={dict(self.concurrency)!r}: {unusable}"
        if problem:
            raise DefinitionError(f"Asset {name!r} was declared with {problem}.", where=where)


def _unusable_limits(limits: Mapping[str, int | str]) -> str | None:
    try:
        for value in limits.values():
            parse_limit(value)
    except DefinitionError as error:
        return str(error)
    return None


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and value > 0  # false for NaN


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_condition(value: object) -> bool:
    return isinstance(value, Condition | Paced)


def _is_policy(value: object) -> bool:
    return isinstance(value, RetryPolicy)


@overload
def asset(function: Callable[..., Any], /) -> Asset: ...
@overload
def asset(
    *,
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
) -> Callable[[Callable[..., Any]], Asset]: ...
def asset(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a function as an asset.

    A parameter that has no default value is a dependency on the asset of that name, except a first
    parameter called `context`, which receives the run's context.

    Args:
        function: the function, when used without parentheses.
        **options: `name` (default: the function's), `deps` (parameter name to asset, or a list of assets
            that only have to be there), `partitions`, `io` (name of an IO manager), `requires` (names of
            resources), `retry`, `timeout` (timedelta or seconds), `queue`, `priority` (0 first to 9),
            `isolation` ("thread" or "process"), `concurrency` (fleet-wide limits by name: 4, "9/minute"),
            `tags`, `group`, `description` (default: the docstring), `code_version`, `automation` (a condition
            such as `eager()`: compute it whenever that holds), `routes` (names of
            direct downstream assets of which the function chooses some by returning a `Route`).

    Returns:
        An `Asset`, still callable as the plain function.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.

    Example:
        >>> @asset
        ... def numbers():
        ...     return [1, 2, 3]
        >>> @asset(tags=["demo"])
        ... def doubled(numbers):
        ...     return [2 * n for n in numbers]
        >>> doubled([1, 2]), [d.asset for d in doubled.dependencies]
        ([2, 4], ['numbers'])
    """
    if function is not None:
        return _declare(function)
    return lambda decorated: _declare(decorated, **options)


def _declare(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    deps: Mapping[str, DependencyLike] | Iterable[DependencyLike] = (),
    partitions: PartitionsDefinition | None = None,
    timeout: timedelta | float | None = None,
    description: str | None = None,
    requires: Iterable[str] = (),
    tags: Iterable[str] = (),
    routes: Iterable[str] = (),
    concurrency: Mapping[str, int | str] | None = None,
    **plain: Any,
) -> Asset:
    where = _where(function)
    chosen = name if name is not None else getattr(function, "__name__", "")
    _check_name(chosen, where)
    _check_partitions(partitions, chosen, where)
    options = AssetOptions(
        timeout_seconds=timeout.total_seconds() if isinstance(timeout, timedelta) else timeout,
        description=description if description is not None else inspect.getdoc(function) or "",
        requires=_names(requires, "requires", chosen, where),
        tags=frozenset(_names(tags, "tags", chosen, where)),
        routes=_names(routes, "routes", chosen, where),
        concurrency=concurrency or {},
        **plain,
    )
    options.check(chosen, where)
    dependencies, takes_context = read_dependencies(function, deps, name=chosen, where=where)
    return Asset(
        function,
        name=chosen,
        dependencies=dependencies,
        takes_context=takes_context,
        where=where,
        partitions=partitions,
        options=options,
    )


def _check_partitions(partitions: object, name: str, where: str) -> None:
    if partitions is not None and not isinstance(partitions, PartitionsDefinition):
        raise DefinitionError(
            f"Asset {name!r}: partitions={partitions!r} is not a partitions definition; "
            "use for example DailyPartitions(start=...).",
            where=where,
        )


def _names(values: Iterable[str], option: str, name: str, where: str) -> tuple[str, ...]:
    if isinstance(values, str):
        raise DefinitionError(f"Asset {name!r}: {option}={values!r} must be a list of names.", where=where)
    return tuple(values)


def _where(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else "unknown place"


def _check_name(name: str, where: str) -> None:
    if not name or name != name.strip() or not name.isprintable() or len(name) > 200 or name == "<lambda>":
        raise DefinitionError(
            f"{name!r} cannot be an asset's name: give 1 to 200 printable characters without space around.",
            where=where,
        )
    if name == CONTEXT_PARAMETER:
        raise DefinitionError("An asset cannot be named 'context': that parameter is reserved.", where=where)
