"""A check: a function that looks at the value of an asset and says whether it is as it should be.

`Check` and `@check` declare it, `CheckContext` is what its function may know, `CheckSet` holds the checks of an
app by asset, verified once when the app is built.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any, Literal

from flowstone.core.asset import Asset
from flowstone.core.context import CancellationToken, Resources
from flowstone.core.declaring import (
    YEAR_SECONDS,
    check_name,
    copy_signature,
    description_of,
    duration,
    is_coroutine_function,
    known_options,
    name_of,
    names,
    place_of,
    shown,
    signature_of,
)
from flowstone.core.dependency import CONTEXT_PARAMETER
from flowstone.core.graph import AssetGraph
from flowstone.core.output import JsonValue
from flowstone.core.partitions import Partition, PartitionKey
from flowstone.core.step import Severity
from flowstone.errors import DefinitionError, DuplicateCheckError, UnknownCheckedAssetError

type SeverityLike = Severity | Literal["error", "warning"]
_PLAIN_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_NUMPY_BOOLS = ("bool", "bool_")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check may return in place of a bool; counts as true when it passed.

    Args:
        passed: whether the value is as it should be.
        severity: "error" or "warning"; None takes the severity that the check was declared with.
        description: what was found, for people.
        metadata: small JSON facts, such as numbers of rows.

    Raises:
        TypeError: `passed` is not a bool.
        ValueError: there is no such severity.

    Example:
        >>> result = CheckResult(False, severity="warning", description="3 rows are late", metadata={"late": 3})
        >>> bool(result), result.severity
        (False, <Severity.WARNING: 'warning'>)
    """

    passed: bool
    _: KW_ONLY
    severity: SeverityLike | None = None
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        passed = as_bool(self.passed)
        if passed is None:
            raise TypeError(f"CheckResult(passed={self.passed!r:.200}): give True or False")
        object.__setattr__(self, "passed", passed)
        if self.severity is not None:
            object.__setattr__(self, "severity", Severity(self.severity))

    def __bool__(self) -> bool:
        return self.passed


class Check:
    """The declaration that `@check` makes of a function; calling it calls the plain function.

    Attributes mirror the options of `check`; `asset` is the asset's name, `parameter` the one that receives
    the value (None when the function takes only the context), `where` the file and line of the function.

    Args:
        function: the function.
        asset: the asset's name.
        name: see `check`, also for the other options.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        asset: str,
        *,
        name: str | None = None,
        blocking: bool = False,
        severity: SeverityLike = Severity.ERROR,
        description: str | None = None,
        retry: bool = False,
        requires: Iterable[str] = (),
        timeout: timedelta | float | None = None,
    ) -> None:
        where = place_of(function)
        chosen: str = name_of(function, name)
        check_name(chosen, "a check", where)
        about = f"Check {chosen!r}"
        self.function = function
        self.name = chosen
        self.asset = asset
        self.where = where
        self.blocking = _flag(blocking, "blocking", chosen, where)
        self.severity = _severity(severity, chosen, where)
        self.description = description_of(function, description, about, where)
        self.retry = _flag(retry, "retry", chosen, where)
        self.requires = names(requires, "requires", about, where)
        self.timeout_seconds = _seconds(timeout, chosen, where)
        self.parameter, self.takes_context = _read_parameters(function, asset, name=chosen, where=where)
        self.is_async = is_coroutine_function(function)
        copy_signature(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: tests of a check need no framework."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<check {self.name!r} of {self.asset!r} at {self.where}>"


@known_options("@check")
def check(
    asset: Asset | str,
    *,
    name: str | None = None,
    blocking: bool = False,
    severity: SeverityLike = Severity.ERROR,
    description: str | None = None,
    retry: bool = False,
    requires: Iterable[str] = (),
    timeout: timedelta | float | None = None,
) -> Callable[[Callable[..., Any]], Check]:
    """Declare a function as a check of an asset; pass it to `FlowStone(assets, checks=[...])`.

    The function receives the value in the parameter that carries the asset's name, or in its only one; a
    first parameter called `context` receives a `CheckContext`. It returns a bool or a `CheckResult`.

    Args:
        asset: the asset, or its name.
        name: the function's by default.
        blocking: whether a failure of severity "error" fails the step before anything is published.
        severity: "error" or "warning".
        description: the docstring by default.
        retry: whether a failure that blocks is worth another attempt of the asset.
        requires: names of resources, which are then in `context.resources`.
        timeout: timedelta or seconds; that of the asset does not cover its checks.

    Returns:
        A decorator that makes a `Check`, still callable as the plain function.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.

    Example:
        >>> @check("orders", blocking=True)
        ... def not_empty(orders):
        ...     return len(orders) > 0
        >>> not_empty([1]), not_empty.asset, not_empty.blocking
        (True, 'orders', True)
    """
    if not isinstance(asset, Asset | str):
        raise DefinitionError(
            f"@check needs the asset that it is about, not {asset!r:.200}: write @check(orders) or "
            '@check("orders") above the function.',
            where=place_of(asset) if callable(asset) else None,
        )
    about = asset if isinstance(asset, str) else asset.name
    return lambda function: Check(
        function,
        about,
        name=name,
        blocking=blocking,
        severity=severity,
        description=description,
        retry=retry,
        requires=requires,
        timeout=timeout,
    )


def as_bool(value: object) -> bool | None:
    """Return a bool, NumPy's included, as a plain one; None for anything else.

    Example:
        >>> as_bool(True), as_bool(1)
        (True, None)
    """
    if isinstance(value, bool):
        return value
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in _NUMPY_BOOLS:
        return bool(value)
    return None


def _read_parameters(
    function: Callable[..., Any], asset: str, *, name: str, where: str
) -> tuple[str | None, bool]:
    """Find the parameter that receives the value, and whether the first one is the context."""
    parameters = signature_of(function, f"Check {name!r}", where)
    takes_context = bool(parameters) and parameters[0].name == CONTEXT_PARAMETER
    rest = parameters[takes_context:]
    required = [one for one in rest if one.default is inspect.Parameter.empty or one.name == asset]
    unusable = [str(one) for one in rest if one.kind not in _PLAIN_KINDS]
    if unusable or len(required) > 1:
        listed = ", ".join(unusable or [one.name for one in required])
        raise DefinitionError(
            f"Check {name!r} of {asset!r}: the parameters {listed} cannot all be filled. A check takes the value "
            f"(one parameter, such as {asset!r}) and, if it likes, first the context; resources are in "
            "context.resources.",
            where=where,
        )
    if not required and not takes_context:
        raise DefinitionError(
            f"Check {name!r} of {asset!r} takes neither the value nor the context, so it cannot check anything. "
            f"Write: def {name}({asset}): ...",
            where=where,
        )
    return (required[0].name if required else None), takes_context


def _severity(value: SeverityLike, name: str, where: str) -> Severity:
    try:
        return Severity(value)
    except (ValueError, TypeError):
        raise DefinitionError(
            f'Check {name!r} was declared with severity={shown(value)}: give "error" or "warning".', where=where
        ) from None


def _flag(value: object, option: str, name: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise DefinitionError(
            f"Check {name!r} was declared with {option}={shown(value)}: give True or False.", where=where
        )
    return value


def _seconds(timeout: object, name: str, where: str) -> float | None:
    if timeout is None:
        return None
    seconds = duration(timeout, maximum=YEAR_SECONDS)
    if not seconds:
        raise DefinitionError(
            f"Check {name!r} was declared with timeout={shown(timeout)}: give a timedelta or more than 0 seconds, "
            "at most a year.",
            where=where,
        )
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """Passed to checks whose first parameter is `context`.

    Args:
        asset: declaration of the asset that is checked.
        check: name of the check.
        partition: partition value, None without partitions.
        key: encoded partition.
        run_id: run of the step that computed the value.
        step_id: that step.
        attempt: attempt of that step, from 1.
        resources: what the asset and the check require, opened.
        metadata: facts recorded with the output; for a blocking check, which runs before anything is stored,
            those that the asset's function noted.
        cancellation: signals when to stop.
    """

    asset: Asset
    check: str
    partition: Partition
    key: PartitionKey
    run_id: str
    step_id: int
    attempt: int
    resources: Resources
    metadata: Mapping[str, JsonValue]
    cancellation: CancellationToken

    @property
    def logger(self) -> logging.Logger:
        """Logger of this check; its records carry run, asset, partition and attempt."""
        return logging.getLogger(f"flowstone.check.{self.asset.name}.{self.check}")


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
