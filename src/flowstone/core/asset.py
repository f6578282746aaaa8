"""An asset: a named piece of data and the function that makes it from other assets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, overload

from flowstone.core.automation.condition import Condition, Paced, paced
from flowstone.core.config_type import ConfigError, config_problem, config_schema
from flowstone.core.declaring import (
    YEAR_SECONDS,
    check_name,
    description_of,
    duration,
    is_coroutine_function,
    is_text,
    look_like,
    name_of,
    names,
    place_of,
    shown,
    warn_of_milliseconds,
    whole_number,
)
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.dependency import CONTEXT_PARAMETER, Dependency, DependencyLike, read_dependencies
from flowstone.core.known_keys import KeySource
from flowstone.core.limits import parse_limit
from flowstone.core.retry import RetryPolicy
from flowstone.core.run_details import RunDetails
from flowstone.errors import DefinitionError, UnknownOptionError

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
    has_own_io = True
    """Whether a run may have its values kept by another IO manager."""

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
        self.config = options.config
        self.allow_incomplete = options.allow_incomplete
        self.renamed_from = options.renamed_from
        self.is_async = is_coroutine_function(function)
        self.copied_from: Asset | None = None
        look_like(self, function)

    @property
    def companions(self) -> tuple[Asset, ...]:
        """The assets that come with this one into an app."""
        return ()

    @property
    def owner(self) -> str:
        """Name under which a run configures this asset: its own, or that of the scatter whose items it is."""
        return self.name

    def config_in(self, run: RunDetails) -> Any:
        """Return the typed config of this asset in a run, built anew; None when it takes none.

        Raises:
            OptionsError: its type has changed since the run was asked for.
        """
        if self.config is None:
            return None
        try:
            return config_schema(self.config).build(run.config.get(self.owner, {}))
        except ConfigError as error:
            raise config_problem(self.owner, error) from error

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
    """The options of `@asset` that do not shape the graph, checked."""

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
    config: Any = None
    allow_incomplete: bool = False
    renamed_from: tuple[str, ...] = ()


_KEPT = (
    "io",
    "retry",
    "queue",
    "priority",
    "isolation",
    "group",
    "code_version",
    "automation",
    "config",
    "allow_incomplete",
    "renamed_from",
)
"""Options of `@asset` that are kept as they were given, once they were checked."""
_OTHERS = ("name", "deps", "partitions", "timeout", "description", "requires", "tags", "routes", "concurrency")


def _checked(given: Mapping[str, Any], about: str, where: str) -> dict[str, Any]:
    """Return options that are kept as they were given.

    Raises:
        DefinitionError: one of them cannot work; names the asset, the option and the file and line.
    """
    checked = dict(given)
    problem = None
    priority = checked.get("priority")
    if priority is not None:
        checked["priority"] = whole_number(priority, least=0, most=9)
        if checked["priority"] is None:
            problem = f"priority={shown(priority)}: give a whole number from 0 (first) to 9"
    isolation = checked.get("isolation", "thread")
    if not isinstance(isolation, str) or isolation not in ("thread", "process"):
        problem = f'isolation={shown(isolation)}: give "thread" or "process"'
    for option, what in (("queue", "the name of a queue"), ("io", "the name of an IO manager")):
        if option in checked and not is_text(checked[option]) and (option, checked[option]) != ("io", None):
            problem = f"{option}={shown(checked[option])}: give {what}"
    for option, example in (("group", "sales"), ("code_version", "2")):
        if checked.get(option) is not None and not is_text(checked[option]):
            problem = f'{option}={shown(checked[option])}: give text, such as {option}="{example}"'
    if checked.get("retry") is not None and not isinstance(checked["retry"], RetryPolicy):
        problem = f"retry={shown(checked['retry'])}: give a RetryPolicy, such as RetryPolicy(max_attempts=3)"
    if checked.get("automation") is not None and not isinstance(checked["automation"], Condition | Paced):
        problem = f"automation={shown(checked['automation'])}: give a condition, such as eager()"
    if checked.get("config") is not None:
        try:
            config_schema(checked["config"])
        except TypeError as error:
            problem = f"config={shown(checked['config'])}: {error}"
    if not isinstance(checked.get("allow_incomplete", False), bool):
        problem = f"allow_incomplete={shown(checked['allow_incomplete'])}: give True or False"
    if "renamed_from" in checked:
        given_names = () if checked["renamed_from"] is None else checked["renamed_from"]
        listed = (given_names,) if isinstance(given_names, str) else given_names
        checked["renamed_from"] = names(listed, "renamed_from", about, where)
    if problem:
        raise DefinitionError(f"{about} was declared with {problem}.", where=where)
    return checked


def _limits(given: object, about: str, where: str) -> Mapping[str, int | str]:
    """Return named limits.

    Raises:
        DefinitionError: it is no mapping of names to limits.
    """
    if given is None:
        return {}
    problem = None
    if not isinstance(given, Mapping):
        problem = 'give the limit a name: concurrency={"warehouse": 4}'
    else:
        try:
            for name, value in given.items():
                parse_limit(value)
                if not is_text(name) or len(name) > 200:
                    problem = f"{shown(name)} is no name of a limit; give 1 to 200 characters"
        except DefinitionError as error:
            problem = str(error)
    if problem:
        raise DefinitionError(f"{about} was declared with concurrency={shown(given)}: {problem}", where=where)
    assert isinstance(given, Mapping)
    return dict(given)


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
    config: Any = None,
    allow_incomplete: bool = False,
    renamed_from: str | Iterable[str] | None = (),
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
            direct downstream assets of which the function chooses some by returning a `Route`), `config` (the
            type of what a run may configure: a dataclass, a TypedDict, a pydantic model, or `dict`; read it
            as `context.config`), `allow_incomplete` (its partitions may be computed before they are over,
            and again afterwards), `renamed_from` (earlier names of the asset: what is recorded under them becomes
            its own history).

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
    **kept: Any,
) -> Asset:
    where = place_of(function)
    for option in kept:
        if option not in _KEPT:
            raise UnknownOptionError("@asset", option, (*_KEPT, *_OTHERS), where=where)
    chosen = name_of(function, name)
    check_name(chosen, "an asset", where)
    if chosen == CONTEXT_PARAMETER:
        raise DefinitionError("An asset cannot be named 'context': that parameter is reserved.", where=where)
    about = f"Asset {chosen!r}"
    _check_partitions(partitions, chosen, where)
    options = AssetOptions(
        timeout_seconds=_timeout(timeout, about, where),
        description=description_of(function, description, about, where),
        requires=names(requires, "requires", about, where),
        tags=frozenset(names(tags, "tags", about, where)),
        routes=names(routes, "routes", about, where),
        concurrency=_limits(concurrency, about, where),
        **_checked(kept, about, where),
    )
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


def _timeout(timeout: object, about: str, where: str) -> float | None:
    if timeout is None:
        return None
    seconds = duration(timeout, most=YEAR_SECONDS)
    if not seconds:
        raise DefinitionError(
            f"{about} was declared with timeout={shown(timeout)}: give a timedelta or more than 0 seconds, "
            "at most a year.",
            where=where,
        )
    warn_of_milliseconds(f"{about}: timeout", timeout, seconds)
    return seconds


def _check_partitions(partitions: object, name: str, where: str) -> None:
    if partitions is not None and not isinstance(partitions, PartitionsDefinition):
        raise DefinitionError(
            f"Asset {name!r}: partitions={shown(partitions)} is not a partitions definition; "
            "use for example DailyPartitions(start=...).",
            where=where,
        )
