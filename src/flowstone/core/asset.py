"""An asset: a named piece of data and the function that makes it from other assets."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Literal, Never, Protocol, Self, overload

from flowstone.core.automation.condition import Condition, Paced, paced
from flowstone.core.by_reference import scan_kinds, sent_as
from flowstone.core.config_type import ConfigError, config_problem, config_schema
from flowstone.core.declaring import (
    YEAR_SECONDS,
    check_name,
    copy_signature,
    description_of,
    duration,
    is_coroutine_function,
    is_text,
    name_of,
    names,
    place_of,
    shown,
    spelled,
    warn_of_milliseconds,
    whole_number,
)
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.dependency import CONTEXT_PARAMETER, DependencyLike, read_dependencies
from flowstone.core.generic import P, T_co
from flowstone.core.limits import Limit, LimitLike, parse_limit
from flowstone.core.outcome import AwaitApproval, Fatal, RetryLater, Skip
from flowstone.core.partitions import KeySource
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.retry import RetryPolicy
from flowstone.core.route import Route
from flowstone.core.run_details import RunDetails
from flowstone.errors import DefinitionError, UnknownOptionError

type Isolation = Literal["thread", "process"]
type _Answer = Skip | RetryLater | Fatal | AwaitApproval
"""What a function may return in place of its value."""


class Asset(Generic[P, T_co]):  # noqa: UP046 - its variables have defaults
    """The declaration that `@asset` makes of a function; calling it calls the plain function.

    `Asset[P, T]` is typed by how the function is called, and by the value that it makes; `asset` finds both in the
    annotations of the function.

    Attributes mirror the options of `asset`; `dependencies` holds the inputs in the order of the
    parameters, `where` the file and line of the function.

    Args:
        function: the function.
        **options: see `asset`, which describes them.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.
    """

    hidden = False
    """Whether selections leave it out because another asset runs it."""
    portable = True
    """Whether its function may run in another process."""
    has_own_io = True
    """Whether a run may have its values kept by another IO manager."""
    copied_from: Self | None = None

    def __init__(
        self,
        function: Callable[..., Any],
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
        concurrency: Mapping[str, LimitLike] | None = None,
        tags: Iterable[str] = (),
        group: str | None = None,
        description: str | None = None,
        code_version: str | None = None,
        automation: Condition | Paced | None = None,
        routes: Iterable[str] = (),
        config: Any = None,
        allow_incomplete: bool = False,
        renamed_from: str | Iterable[str] | None = (),
        compute: str | None = None,
        compute_options: Mapping[str, Any] | None = None,
        fresh_within: timedelta | float | None = None,
    ) -> None:
        self.where = place_of(function)
        self.name: str = name_of(function, name)
        check_name(self.name, "an asset", self.where)
        if self.name == CONTEXT_PARAMETER:
            raise DefinitionError(
                "An asset cannot be named 'context': that parameter is reserved.", where=self.where
            )
        check = _OptionCheck(f"Asset {self.name!r}", self.where)
        self.partitions = check.partitions(partitions)
        self.timeout_seconds = check.timeout(timeout)
        self.fresh_within_seconds = check.fresh_within(fresh_within, self.partitions)
        self.description = description_of(function, description, check.about, self.where)
        self.requires, self.routes = check.names("requires", requires), check.names("routes", routes)
        self.tags = frozenset(check.names("tags", tags))
        self.concurrency, self.priority = check.limits(concurrency), check.priority(priority)
        self.isolation: Isolation = check.one_of("isolation", isolation, ("thread", "process"))
        self.queue: str = check.text("queue", queue, "the name of a queue")
        self.io = check.optional("io", io, "the name of an IO manager")
        self.group = check.optional("group", group, 'text, such as group="sales"')
        self.code_version = check.optional("code_version", code_version, 'text, such as code_version="2"')
        self.retry = check.is_a("retry", retry, RetryPolicy, "a RetryPolicy, such as RetryPolicy(max_attempts=3)")
        check.is_a("automation", automation, (Condition, Paced), "a condition, such as eager()")
        self.automation = None if automation is None else paced(automation)
        self.config = check.config(config)
        self.allow_incomplete: bool = check.one_of("allow_incomplete", allow_incomplete, (True, False))
        earlier = () if renamed_from is None else renamed_from
        self.renamed_from = check.names("renamed_from", (earlier,) if isinstance(earlier, str) else earlier)
        self.compute = check.optional("compute", compute, "the name of a compute")
        self.compute_options = check.compute_options(self.compute, compute_options)
        self.dependencies, self.takes_context = read_dependencies(function, deps, name=self.name, where=self.where)
        self.function, self.is_async = function, is_coroutine_function(function)
        self._check_scans(function)
        copy_signature(self, function)

    def _check_scans(self, function: Callable[..., Any]) -> None:
        """Refuse a scan that cannot be sent to the process in which the function is called."""
        if self.compute is None and self.isolation == "thread":
            return
        receiving = [one.parameter for one in self.dependencies if one.parameter is not None]
        for name, kind in scan_kinds(function, [*receiving, "return"]).items():
            remedy = sent_as(kind, name)
            if remedy is not None:
                what = "what it returns" if name == "return" else f"the parameter {name!r}"
                where = f"compute={self.compute!r}" if self.compute is not None else 'isolation="process"'
                raise DefinitionError(
                    f"Asset {self.name!r}: {what} is annotated {kind}, which cannot be sent to another process "
                    f"({where}). {remedy}",
                    where=self.where,
                )

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
    def declared(self) -> Self:
        """The asset that the module holds, also when this is an app's copy of it."""
        return self.copied_from or self

    def bound(self, source: KeySource) -> Self:
        """Return the asset for one app: itself, or a copy when its partitions get their keys from a store."""
        partitions = None if self.partitions is None else self.partitions.bound(source)
        if partitions is self.partitions:
            return self
        bound = copy(self)
        bound.partitions, bound.copied_from = partitions, self.declared
        return bound

    def limited(self, limits: Mapping[str, LimitLike]) -> Self:
        """Return a copy of the asset for one app, with limits that its IO manager needs; its own stay."""
        limited = copy(self)
        limited.concurrency = {
            **_OptionCheck(f"Asset {self.name!r}", self.where).limits(limits),
            **self.concurrency,
        }
        limited.copied_from = self.declared
        return limited

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Call the plain function: tests of an asset need no framework."""
        made: T_co = self.function(*args, **kwargs)
        return made

    def __repr__(self) -> str:
        return f"<asset {self.name!r} at {self.where}>"


_OPTIONS = tuple(Asset.__init__.__kwdefaults__ or ())


class AsyncAsset(Asset[P, T_co]):
    """The asset of an `async def` function: calling it gives the coroutine, the value is what that returns."""

    def __call__(  # type: ignore[override]  # of the two, one is what calls and the other what is made
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T_co]:
        """Call the plain function."""
        made: Coroutine[Any, Any, T_co] = self.function(*args, **kwargs)
        return made


@dataclass(frozen=True, slots=True)
class _OptionCheck:
    """Checks the options of one asset; what cannot work is a `DefinitionError` with its file and line."""

    about: str
    where: str

    def refuse(self, option: str, value: object, remedy: str) -> Never:
        """Refuse an option."""
        raise DefinitionError(
            f"{self.about} was declared with {option}={shown(value)}: {remedy}.", where=self.where
        )

    def names(self, option: str, given: object) -> tuple[str, ...]:
        """Return names as a tuple."""
        return names(given, option, self.about, self.where)

    def text(self, option: str, given: Any, what: str) -> Any:
        """Return text that is not empty."""
        return given if is_text(given) else self.refuse(option, given, f"give {what}")

    def optional(self, option: str, given: Any, what: str) -> str | None:
        """Return text that is not empty, or None."""
        return None if given is None else self.text(option, given, what)

    def one_of(self, option: str, given: Any, allowed: tuple[object, ...]) -> Any:
        """Return one of a few values."""
        if not isinstance(given, str | bool) or given not in allowed:
            listed = " or ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in allowed)
            self.refuse(option, given, f"give {listed}")
        return given

    def is_a[T](self, option: str, given: T, kind: type | tuple[type, ...], what: str) -> T:
        """Return an object of a class, or None."""
        if given is not None and not isinstance(given, kind):
            self.refuse(option, given, f"give {what}")
        return given

    def priority(self, given: object) -> int | None:
        """Return a priority as an int."""
        if given is None:
            return None
        found = whole_number(given, minimum=0, maximum=9)
        if found is None:
            self.refuse("priority", given, "give a whole number from 0 (first) to 9")
        return found

    def timeout(self, given: object) -> float | None:
        """Return a timeout in seconds."""
        if given is None:
            return None
        seconds = duration(given, maximum=YEAR_SECONDS)
        if not seconds:
            self.refuse("timeout", given, "give a timedelta or more than 0 seconds, at most a year")
        warn_of_milliseconds(f"{self.about}: timeout", given, seconds)
        return seconds

    def compute_options(self, compute: str | None, given: object) -> Mapping[str, Any]:
        """Return options for a compute by name."""
        if given is None:
            return {}
        if not isinstance(given, Mapping) or not all(is_text(name) for name in given):
            self.refuse("compute_options", given, 'give a mapping of names, such as {"priority": 5}')
        if compute is None:
            self.refuse("compute_options", given, 'say where it runs as well, such as compute="dask"')
        return dict(given)

    def fresh_within(self, given: object, partitions: PartitionsDefinition | None) -> float | None:
        """Return how old data may be, in seconds."""
        if given is None:
            return None
        seconds = duration(given, maximum=10 * YEAR_SECONDS)
        if not seconds:
            self.refuse("fresh_within", given, "give a timedelta or more than 0 seconds, at most ten years")
        warn_of_milliseconds(f"{self.about}: fresh_within", given, seconds)
        if isinstance(partitions, TimePartitions):
            window = partitions.window(partitions.start).duration.total_seconds()
            if seconds <= window:
                self.refuse(
                    "fresh_within",
                    given,
                    f"a partition covers {spelled(window)}, so its data are that old before the next one is over; "
                    "give more, such as that and the time that computing it may take",
                )
        return seconds

    def config(self, given: Any) -> Any:
        """Return the type of a config."""
        if given is not None:
            try:
                config_schema(given)
            except TypeError as error:
                self.refuse("config", given, str(error))
        return given

    def partitions(self, given: PartitionsDefinition | None) -> PartitionsDefinition | None:
        """Return a definition of partitions."""
        if given is not None and not isinstance(given, PartitionsDefinition):
            raise DefinitionError(
                f"{self.about}: partitions={shown(given)} is not a partitions definition; "
                "use for example DailyPartitions(start=...).",
                where=self.where,
            )
        return given

    def limits(self, given: object) -> dict[str, Limit]:
        """Return named limits."""
        limits: dict[str, Limit] = {}
        if given is None:
            return limits
        problem = None
        if not isinstance(given, Mapping):
            problem = 'give the limit a name: concurrency={"warehouse": 4}'
        else:
            try:
                for name, value in given.items():
                    limits[name] = parse_limit(value)
                    if not is_text(name) or len(name) > 200:
                        problem = f"{shown(name)} is no name of a limit; give 1 to 200 characters"
            except DefinitionError as error:
                problem = str(error)
        if problem:
            raise DefinitionError(
                f"{self.about} was declared with concurrency={shown(given)}: {problem}", where=self.where
            )
        return limits


class _Declares(Protocol):
    """What `@asset(...)` returns: a decorator."""

    @overload
    def __call__[**Q](self, function: Callable[Q, Route], /) -> Asset[Q, Any]: ...
    @overload
    def __call__[**Q, T](
        self, function: Callable[Q, Coroutine[Any, Any, T | Route | _Answer]], /
    ) -> AsyncAsset[Q, T]: ...
    @overload
    def __call__[**Q, T](self, function: Callable[Q, T | Route | _Answer], /) -> Asset[Q, T]: ...


@overload
def asset[**Q](function: Callable[Q, Route], /) -> Asset[Q, Any]: ...
@overload
def asset[**Q, T](function: Callable[Q, Coroutine[Any, Any, T | Route | _Answer]], /) -> AsyncAsset[Q, T]: ...
@overload
def asset[**Q, T](function: Callable[Q, T | Route | _Answer], /) -> Asset[Q, T]: ...
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
    concurrency: Mapping[str, LimitLike] | None = None,
    tags: Iterable[str] = (),
    group: str | None = None,
    description: str | None = None,
    code_version: str | None = None,
    automation: Condition | Paced | None = None,
    routes: Iterable[str] = (),
    config: Any = None,
    allow_incomplete: bool = False,
    renamed_from: str | Iterable[str] | None = (),
    compute: str | None = None,
    compute_options: Mapping[str, Any] | None = None,
    fresh_within: timedelta | float | None = None,
) -> _Declares: ...
def asset(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a function as an asset.

    A parameter that has no default value is a dependency on the asset of that name, except a first
    parameter called `context`, which receives the run's context.

    Args:
        function: the function, when used without parentheses.
        **options: `name` (default: the function's), `deps` (parameter name to asset, or a list of assets
            that only have to be there), `partitions`, `io` (name of an IO manager), `requires` (names of
            resources), `retry`, `timeout` (timedelta or seconds), `queue`, `priority` (0 first to 9),
            `isolation` ("thread" or "process"), `concurrency` (fleet-wide limits by name: 4, `Rate(9, "minute")`),
            `tags`, `group`, `description` (default: the docstring), `code_version`, `automation` (a condition
            such as `eager()`: compute it whenever that holds), `routes` (names of
            direct downstream assets of which the function chooses some by returning a `Route`), `config` (the
            type of what a run may configure: a dataclass, a TypedDict, a pydantic model, or `dict`; read it
            as `context.config`), `allow_incomplete` (its partitions may be computed before they are over,
            and again afterwards), `renamed_from` (earlier names of the asset: what is recorded under them becomes
            its own history), `compute` (where the function is called, by a name of `FlowStone(compute=...)`; None
            for the worker itself), `compute_options` (of that, such as `{"resources": {"GPU": 1}}`),
            `fresh_within` (timedelta or seconds: how old its data may be, see `docs/notifications.md`).

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
        return _declare(function, options)
    return lambda decorated: _declare(decorated, options)


def _declare(function: Callable[..., Any], options: Mapping[str, Any]) -> Asset:
    for option in options:
        if option not in _OPTIONS:
            raise UnknownOptionError("@asset", option, _OPTIONS, where=place_of(function))
    kind = AsyncAsset if is_coroutine_function(function) else Asset
    return kind(function, **options)
