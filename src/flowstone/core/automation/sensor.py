"""Declaring a function as a sensor: it looks now and then whether something should run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, overload

from flowstone.core.asset import Asset
from flowstone.core.automation.record import AutomationId, AutomationKind
from flowstone.core.declaring import (
    check_name,
    copy_signature,
    description_of,
    name_of,
    names,
    place_of,
    shown,
    signature_of,
)
from flowstone.core.declaring import duration as duration_of
from flowstone.core.selection import Selection
from flowstone.errors import DefinitionError, UnknownOptionError

DEFAULT_EVERY_SECONDS = 30.0
DEFAULT_TIMEOUT_SECONDS = 60.0
_MIN_EVERY_SECONDS = 1.0
_MAX_SECONDS = 31 * 86_400.0
_FOREVER = 1e12


class Sensor:
    """The declaration that `@sensor` makes of a function; calling it calls the plain function.

    Attributes mirror the options of `sensor`; `where` is the file and line of the function.

    Args:
        function: the function.
        **options: see `sensor`.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        every: timedelta | float = DEFAULT_EVERY_SECONDS,
        name: str | None = None,
        selection: Selection | None = None,
        timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
        requires: Iterable[str] = (),
        paused: bool = False,
        description: str | None = None,
    ) -> None:
        self.function = function
        self.where = place_of(function)
        self.name: str = name_of(function, name)
        check_name(self.name, "a sensor", self.where)
        about = f"Sensor {self.name!r}"
        if not isinstance(paused, bool):
            raise DefinitionError(
                f"{about} was declared with paused={shown(paused)}: give True or False.", where=self.where
            )
        self.every_seconds = _seconds(every, "every", about, self.where)
        self.timeout_seconds = _seconds(timeout, "timeout", about, self.where)
        problem = None
        if not _MIN_EVERY_SECONDS <= self.every_seconds <= _MAX_SECONDS:  # NaN is not
            problem = f"every={self.every_seconds!r}: give 1 second to 31 days"
        elif not 0.001 <= self.timeout_seconds <= _MAX_SECONDS:
            problem = f"timeout={self.timeout_seconds!r}: give more than 0 seconds, up to 31 days"
        if problem:
            raise DefinitionError(f"{about} was declared with {problem}.", where=self.where)
        self.selection: Selection | None = selection
        if selection is not None and not isinstance(selection, str | Asset):
            self.selection = tuple(selection)
        self.requires = names(requires, "requires", about, self.where)
        self.paused = paused
        self.description = description_of(function, description, about, self.where)
        self.takes_context = _takes_context(function, about, self.where)
        copy_signature(self, function)

    @property
    def id(self) -> AutomationId:
        """What the store knows it by."""
        return AutomationId(AutomationKind.SENSOR, self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: tests of a sensor need no framework."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<sensor {self.name!r} at {self.where}>"


_OPTIONS = tuple(Sensor.__init__.__kwdefaults__ or ())


@overload
def sensor(function: Callable[..., Any], /) -> Sensor: ...
@overload
def sensor(
    *,
    every: timedelta | float = DEFAULT_EVERY_SECONDS,
    name: str | None = None,
    selection: Selection | None = None,
    timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
    requires: Iterable[str] = (),
    paused: bool = False,
    description: str | None = None,
) -> Callable[[Callable[..., Any]], Sensor]: ...
def sensor(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a function as a sensor: any one worker calls it now and then, and runs what it asks for.

    The function, `def` or `async def`, takes a `SensorContext` or nothing. It returns or yields requests
    (`context.request(...)`, `RunRequest`), a `SkipReason`, a `SensorResult`, or nothing.

    Args:
        function: the function, when used without parentheses.
        **options: `every` (timedelta or seconds between evaluations, at least 1; 30 s by default), `name`
            (default: the function's), `selection` (what its requests run unless they say otherwise),
            `timeout` (timedelta or seconds for one evaluation; 60 s by default), `requires` (names of
            resources), `paused` (begin paused when it is deployed for the first time), `description`
            (default: the docstring).

    Returns:
        A `Sensor`, still callable as the plain function.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.

    Example:
        >>> @sensor(every=10, selection="orders")
        ... def inbox(context):
        ...     return context.request(run_key="a.csv")
        >>> inbox.name, inbox.every_seconds
        ('inbox', 10.0)
    """
    if function is not None:
        return _declare(function, options)
    return lambda decorated: _declare(decorated, options)


def _declare(function: Callable[..., Any], options: Mapping[str, Any]) -> Sensor:
    for option in options:
        if option not in _OPTIONS:
            raise UnknownOptionError("@sensor", option, _OPTIONS, where=place_of(function))
    return Sensor(function, **options)


def seconds_of(duration: timedelta | float) -> float:
    """Return a duration in seconds.

    Example:
        >>> seconds_of(timedelta(minutes=2)), seconds_of(3)
        (120.0, 3.0)
    """
    seconds = duration_of(duration, minimum=-_FOREVER, maximum=_FOREVER)
    if seconds is None:
        raise DefinitionError(f"{shown(duration)} is no duration: give a timedelta or a number of seconds.")
    return seconds


def _seconds(duration: object, option: str, about: str, where: str) -> float:
    seconds = duration_of(duration, minimum=-_FOREVER, maximum=_FOREVER)
    if seconds is None:
        raise DefinitionError(
            f"{about} was declared with {option}={shown(duration)}: give a timedelta or a number of seconds.",
            where=where,
        )
    return seconds


def _takes_context(function: Callable[..., Any], about: str, where: str) -> bool:
    parameters = signature_of(function, about, where)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [one for one in parameters if one.default is inspect.Parameter.empty]
    needed = [one for one in needed if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if len(needed) > 1 or any(one.kind not in positional for one in needed):
        raise DefinitionError(
            f"{about} takes {', '.join(one.name for one in needed)}; a sensor takes the context "
            "and nothing else. What it needs beside, it gets from context.resources.",
            where=where,
        )
    return bool(needed)
