"""What declarations are given, checked when they are made: durations, numbers, names, functions."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from numbers import Integral, Real
from typing import Any

from flowstone.errors import DefinitionError, OptionsError, UnknownOptionError, join_names, option_hint

YEAR_SECONDS = 31_536_000.0
_PACKAGE = __file__.removesuffix("core/declaring.py")
_MONTH_SECONDS = 30 * 86_400.0
_LONG_SECONDS = 10_000.0
_SHOWN = 200


def shown(value: object) -> str:
    """Return a value as an error shows it: short, and whatever its own `repr` does.

    Example:
        >>> shown([1, 2])
        '[1, 2]'
    """
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - it is shown in an error about itself
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def duration(value: object, *, minimum: float = 0.0, maximum: float = YEAR_SECONDS) -> float | None:
    """Return a timedelta or a number of seconds as seconds; None when it is neither, or out of range.

    Numbers of other libraries are numbers; a bool, text, NaN and the infinities are none.

    Example:
        >>> duration(timedelta(minutes=2)), duration(3), duration(True), duration("3"), duration(-1)
        (120.0, 3.0, None, None, None)
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        found = number(value)
        if found is None:
            return None
        seconds = found
    return seconds if minimum <= seconds <= maximum else None


def spelled(seconds: float) -> str:
    """Return a long time for people.

    Example:
        >>> spelled(60_000), spelled(90)
        ('16.7 hours', '90 seconds')
    """
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:g} seconds"


def warn_of_milliseconds(option: str, value: object, seconds: float) -> None:
    """Warn of a number that is in seconds and looks like milliseconds.

    Args:
        option: the option that it was given for.
        value: what was given; a timedelta says what it means.
        seconds: what that comes to.
    """
    # whole thousands that are no whole hours are what milliseconds look like, and nobody counts months in seconds
    in_thousands = seconds >= _LONG_SECONDS and not seconds % 1000 and bool(seconds % 3600)
    if not isinstance(value, timedelta) and (in_thousands or seconds >= _MONTH_SECONDS):
        warnings.warn(
            f"{option}={value!r} is {spelled(seconds)}: it is in seconds, not milliseconds. Write "
            f"timedelta(seconds={seconds:g}) if that is what you mean, else {seconds / 1000:g}.",
            # where it was written, however deep in here it is read
            skip_file_prefixes=(_PACKAGE,),
        )


def is_storable_time(at: datetime) -> bool:
    """Whether a database, and whoever reads it in whatever zone, can have this time: within the years 2 to 9998.

    Example:
        >>> is_storable_time(datetime(2024, 1, 1)), is_storable_time(datetime.max)
        (True, False)
    """
    return 1 < at.year < 9999


def number(value: object) -> float | None:
    """Return a finite number as a float; None for anything else, bools and text included.

    Example:
        >>> number(2), number(float("inf")), number(False)
        (2.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        found = float(value)
    except (OverflowError, ValueError, TypeError):
        return None
    return found if math.isfinite(found) else None


def whole_number(value: object, *, minimum: int, maximum: int) -> int | None:
    """Return a whole number within bounds as an int; None for anything else, bools and floats included.

    Example:
        >>> whole_number(3, minimum=1, maximum=9), whole_number(3.0, minimum=1, maximum=9)
        (3, None)
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return found if minimum <= (found := int(value)) <= maximum else None


def named_values(value: object) -> dict[str, Any] | None:
    """Return a mapping of names to anything as a dict; None for anything else.

    Example:
        >>> named_values({"region": "eu"}), named_values({5: "eu"}), named_values("eu")
        ({'region': 'eu'}, None, None)
    """
    if not isinstance(value, Mapping) or not all(type(name) is str for name in value):
        return None
    return dict(value)


def no_such_part(kind: str, given: object, members: Iterable[str]) -> str | None:
    """Return why an object cannot be a part of an app: it is a class, or methods are missing; None when it can.

    Example:
        >>> no_such_part("clock", 5, ["now"])
        '5 is no clock, it has no now'
    """
    if isinstance(given, type):
        return f"{given.__name__} is a class; give an object of it: {given.__name__}(...)"
    absent = [name for name in members if not hasattr(given, name)]
    return f"{shown(given)} is no {kind}, it has no {join_names(absent)}" if absent else None


def is_text(value: object) -> bool:
    """Whether this is some text that a database can keep: no NUL, no half of a surrogate pair.

    Example:
        >>> is_text("a"), is_text(" "), is_text("a\\x00"), is_text(5)
        (True, False, False, False)
    """
    return isinstance(value, str) and bool(value.strip()) and is_storable(value)


def is_host(value: object) -> bool:
    """Whether this can be the name or the address of a server.

    Example:
        >>> is_host("mail.example.com"), is_host("::1"), is_host("a..b"), is_host("https://example.com")
        (True, True, False, False)
    """
    if not is_text(value) or not str(value).isprintable() or set(str(value)) & set(" /\\@?#<>[]"):
        return False
    try:
        return bool(str(value).encode("idna").strip(b"."))
    except UnicodeError:  # a part that is empty, or longer than 63
        return False


def is_storable(text: str) -> bool:
    """Whether a database can keep this text as it is, empty or not.

    Example:
        >>> is_storable(""), is_storable("\\ud800")
        (True, False)
    """
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def names(values: object, option: str, about: str, where: str | None) -> tuple[str, ...]:
    """Return names given as a list, a tuple, a set or any iterable that is not text; assets count as their names.

    Args:
        values: what was given.
        option: the option, for the error.
        about: what is declared, for the error, such as `Asset 'orders'`.
        where: its file and line, for the error.

    Raises:
        DefinitionError: it is one text, or holds something else than names.

    Example:
        >>> names(["a", "b", "a"], "tags", "Asset 'x'", None)
        ('a', 'b')
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        example = repr(values) if isinstance(values, str) else '"name"'
        raise DefinitionError(
            f"{about}: {option}={shown(values)} must be a list of names: [{example}].", where=where
        )
    listed = sorted(values, key=str) if isinstance(values, set | frozenset) else list(values)
    found: dict[str, None] = {}
    for one in listed:
        name = one if isinstance(one, str) else getattr(one, "name", None)
        if not is_text(name):
            raise DefinitionError(
                f"{about}: {option} holds {shown(one)}, which is no name; give texts that are not empty.",
                where=where,
            )
        found[str(name)] = None
    return tuple(found)


def place_of(function: object) -> str:
    """Return file and line of a function, of what decorators and partials are wrapped around."""
    inner: Any = function
    try:
        while isinstance(inner, functools.partial):
            inner = inner.func
        inner = inspect.unwrap(inner) if callable(inner) else inner
    except ValueError:  # a circle of wrappers
        return "unknown place"
    code = getattr(inner, "__code__", None)
    if code is None:
        code = getattr(_call_of(inner), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if inspect.iscode(code) else "unknown place"


def name_of(function: object, given: object) -> Any:
    """Return the name that was given, else that of the function; "" when it has none, as a partial."""
    return given if given is not None else getattr(function, "__name__", "")


def description_of(function: object, given: object, about: str, where: str) -> str:
    """Return the description that was given, else the docstring.

    Raises:
        DefinitionError: it is no text.
    """
    if given is None:
        while isinstance(function, functools.partial):
            function = function.func
        found = inspect.getdoc(function)
        return found if isinstance(found, str) else ""
    if not isinstance(given, str) or not is_storable(given):
        raise DefinitionError(f"{about}: description={shown(given)} must be text.", where=where)
    return given


def check_name(name: object, kind: str, where: str) -> None:
    """Refuse what cannot name an asset, a check, a sensor.

    Raises:
        DefinitionError: says what a name is.
    """
    if name == "":
        raise DefinitionError(
            f"'' cannot be {kind}'s name; a partial, or an object that is called, has none of its own: give "
            "name=...",
            where=where,
        )
    if (
        not isinstance(name, str)
        or name != name.strip()
        or not name.isprintable()
        or not is_storable(name)
        or len(name) > 200
        or name == "<lambda>"
    ):
        raise DefinitionError(
            f"{shown(name)} cannot be {kind}'s name: give name=... of 1 to 200 printable characters without space "
            "around.",
            where=where,
        )


def signature_of(function: Any, about: str, where: str) -> list[inspect.Parameter]:
    """Return the parameters of a function that is called without its object.

    Raises:
        DefinitionError: it cannot be called like that; says what to write.
    """
    if not callable(function):
        remedy = "declare it below the class, as Class.method" if isinstance(function, classmethod) else ""
        what = (
            "a class method" if isinstance(function, classmethod) else f"{shown(function)}, which is no function"
        )
        raise DefinitionError(f"{about}: this is {what}" + (f"; {remedy}." if remedy else "."), where=where)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"{about}: {shown(function)} does not show its parameters; wrap it in a function.", where=where
        ) from error
    first = parameters[0].name if parameters else ""
    if first in ("self", "cls") and not inspect.ismethod(function):
        raise DefinitionError(
            f"{about}: its first parameter is {first!r}, as of a method, and nobody would fill that. Declare "
            f"the method of an object (object.method), or leave {first!r} out below @staticmethod.",
            where=where,
        )
    return parameters


def is_coroutine_function(function: object) -> bool:
    """Whether calling this returns a coroutine: `async def`, a partial of one, an object whose `__call__` is one.

    Example:
        >>> async def later(): ...
        >>> is_coroutine_function(functools.partial(later)), is_coroutine_function(len)
        (True, False)
    """
    inner = function
    while isinstance(inner, functools.partial | staticmethod):
        inner = inner.func if isinstance(inner, functools.partial) else inner.__func__
    if inspect.iscoroutinefunction(inner):
        return True
    return not isinstance(inner, type) and inspect.iscoroutinefunction(_call_of(inner))


def _call_of(instance: object) -> object:
    """Return the function behind calling an object, as its class has it."""
    return next((vars(kind)["__call__"] for kind in type(instance).__mro__ if "__call__" in vars(kind)), None)


def copy_signature(declared: object, function: Callable[..., Any]) -> None:
    """Give a declaration the name, the docstring and the signature of its function, and none of its attributes.

    Decorators leave attributes on functions (tenacity: `retry`); they must not become options of the declaration.
    """
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        value = getattr(function, name, None)
        if isinstance(value, str):
            setattr(declared, name, value)
    declared.__wrapped__ = function  # type: ignore[attr-defined]


def checks_call[**P, T](function: Callable[P, T], about: str) -> Callable[P, T]:
    """Return a function that refuses misspelt options, and calls without what it needs, in words of its user.

    Args:
        function: what is called.
        about: how its user writes it, such as `flow.runs.latest()`.

    Example:
        >>> checks_call(lambda limit=5: limit, "latest()")(limt=3)
        Traceback (most recent call last):
        ...
        flowstone.errors.OptionsError: latest() has no option 'limt'. Did you mean 'limit'? Options: limit.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    places = sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)
    maximum = math.inf if any(one.kind is one.VAR_POSITIONAL for one in parameters) else places
    by_name = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    options = frozenset(by_name) - {"self", "cls"}
    needed = [place for place, one in enumerate(parameters) if one.default is one.empty and place < places]
    enough = max(needed, default=-1) + 1
    always = not any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    keyword = next((one.name for one in reversed(parameters) if one.kind is one.KEYWORD_ONLY), None)

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> T:
        if always and enough <= len(args) <= maximum and keywords.keys() <= options:
            return function(*args, **keywords)
        for name in keywords:
            if name not in options:
                listed = ", ".join(sorted(options)) or "none"
                raise OptionsError(
                    f"{about} has no option {name!r}.{option_hint(name, options)} Options: {listed}."
                )
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            by_names = (
                f"; options are given by name, such as {keyword}=..." if keyword and len(args) > maximum else ""
            )
            raise OptionsError(f"{about}: {error}{by_names}.") from None
        return function(*args, **keywords)

    return call


def known_options[**P, T](about: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have a function that declares something refuse misspelt options in words of its user.

    Args:
        about: how its user writes it, such as `@sensor`.

    Example:
        >>> known_options("@sensor")(lambda *, every=30: every)(every=3)
        3
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = inspect.signature(function).parameters.values()
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known = [one.name for one in parameters if one.kind in by_name and one.name != "self"]

        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> T:
            for name in keywords:
                if name not in known:
                    raise UnknownOptionError(about, name, known)
            return function(*args, **keywords)

        return call

    return decorate


def view[T: type](about: str) -> Callable[[T], T]:
    """Have the public methods of a class speak in words of its user when they are called wrongly.

    Args:
        about: how its user reaches it, such as `flow.runs`.
    """

    def decorate(view_class: T) -> T:
        kind: Any = view_class
        methods = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
        public = {name for name, value in methods.items() if not name.startswith("_")}
        for name in public:
            if inspect.isfunction(methods[name]):
                setattr(kind, name, checks_call(methods[name], f"{about}.{name}()"))
            elif isinstance(methods[name], classmethod):
                checked = checks_call(methods[name].__func__, f"{kind.__name__}.{name}()")
                setattr(kind, name, classmethod(checked))
        kind.__init__ = checks_call(kind.__init__, f"{kind.__name__}()")

        def absent(self: object, name: str) -> Any:
            raise AttributeError(f"{about} has no {name!r}.{option_hint(name, public)}", name=name, obj=self)

        kind.__getattr__ = absent
        return view_class

    return decorate


def checks_options[T: type](kind: T) -> T:
    """Have a class that users make objects of refuse misspelt options in words of its user."""
    init = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(init)
    named = [name for name in signature.parameters if name != "self"]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        for name in options:
            if name not in signature.parameters:
                raise UnknownOptionError(f"{kind.__name__}(...)", name, named)
        if args:  # without, what is missing is said by the class itself
            try:
                signature.bind(self, *args, **options)
            except TypeError as error:
                listed = ", ".join(f"{name}=..." for name in named[:4])
                raise DefinitionError(f"{kind.__name__}(...): {error}. Give options by name: {listed}.") from None
        init(self, *args, **options)

    kind.__init__ = checked  # type: ignore[misc]
    return kind
