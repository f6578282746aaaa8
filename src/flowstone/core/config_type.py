"""The config of an asset: read by its declared type, kept as JSON, built again for every attempt.

What was given is checked once, when a run is asked for. What travels is JSON with the defaults filled in, so that
every attempt of a run on every node builds an equal object.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePath
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    TypeAliasType,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)
from uuid import UUID

from flowstone.core.output import JsonValue
from flowstone.errors import OptionsError, did_you_mean

MAX_CONFIG_BYTES = 64 * 1024
"""Longest config of a run, as JSON."""
_DEEPEST = 50
_MAX_NUMBER_BITS = 1024
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")
_SECRET = ("password", "passwd", "pwd", "secret", "token", "apikey", "privatekey", "credential", "authorization")

_NO_TYPE = (
    "{} is no type for a config: give a dataclass, a TypedDict, a pydantic model (the class, not an object), or "
    "dict for any JSON object"
)

type Place = tuple[str, ...]
type Reader = Callable[[Any, Place], Any]


class CommandText(str):
    """A value from the command line, which may stand for a number, a list or text: the declared type decides."""

    __slots__ = ()

    def parsed(self) -> Any:
        """Return what it says as JSON, or the text itself."""
        try:
            return json.loads(self)
        except (ValueError, RecursionError):
            return str(self)


class ConfigError(Exception):
    """A value does not fit; the caller says in which config.

    Args:
        place: names of the fields that lead to it.
        problem: what is wrong and what to give instead.
    """

    def __init__(self, place: Place, problem: str) -> None:
        self.place = place
        self.problem = problem
        super().__init__(f"{'.'.join(place)}: {problem}" if place else problem)


@dataclasses.dataclass(frozen=True, slots=True)
class ConfigSchema:
    """How configs of one declared type are read and built.

    Args:
        declared: the type: a dataclass, a TypedDict, a pydantic model, or `dict` for any JSON object.
        read: makes the typed object of JSON, or of values of the declared types.
        fields: names of the fields; None when any will do.
    """

    declared: Any
    read: Reader
    fields: tuple[str, ...] | None

    def document(self, given: object) -> dict[str, JsonValue]:
        """Return a config as JSON with the defaults filled in.

        Args:
            given: a mapping, or an object of the declared type.

        Raises:
            ConfigError: it does not fit the type, or is not JSON.
        """
        typed = self.read(given, ())
        document = to_json(typed, ())
        if not isinstance(document, dict):
            raise ConfigError((), "it is no JSON object")
        try:
            same = to_json(self.read(document, ()), ()) == document
        except ConfigError:
            same = False
        if not same:
            # such as a model that fills in what it does not accept: what was given is what travels
            document = to_json(given, ()) if isinstance(given, Mapping) else {}
            assert isinstance(document, dict)  # a mapping becomes one
            self.read(document, ())
        return document

    def build(self, document: Mapping[str, JsonValue]) -> Any:
        """Return the typed object that a document stands for.

        Raises:
            ConfigError: the type has changed since the document was made.
        """
        return self.read(document, ())

    @property
    def secrets(self) -> tuple[str, ...]:
        """Fields whose declared type says that their values are not shown, as pydantic's `SecretStr` does."""
        return tuple(_secret_fields(self.declared))


def config_schema(declared: Any) -> ConfigSchema:
    """Return how configs of a type are read.

    Raises:
        TypeError: it is no type for a config, or a field has a type without a JSON form; says what to use.

    Example:
        >>> @dataclasses.dataclass
        ... class Limits:
        ...     rows: int = 10
        >>> config_schema(Limits).document({}), config_schema(Limits).build({"rows": 3})
        ({'rows': 10}, Limits(rows=3))
    """
    if isinstance(declared, type) or get_origin(declared) is dict:
        return _schema(declared)
    raise TypeError(_NO_TYPE.format(declared))


@lru_cache(maxsize=512)
def _schema(declared: Any) -> ConfigSchema:
    if declared is dict or get_origin(declared) is dict:
        return ConfigSchema(declared, _reader(declared, ()), None)
    if _is_model(declared):
        return ConfigSchema(declared, _class_reader(declared), tuple(declared.model_fields))
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return ConfigSchema(declared, _class_reader(declared), tuple(_init_fields(declared)))
    if _is_typed_dict(declared):
        return ConfigSchema(declared, _class_reader(declared), tuple(_hints(declared)))
    raise TypeError(_NO_TYPE.format(declared.__name__))


def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is a secret.

    Example:
        >>> [is_secret_name(name) for name in ("db_password", "apiKey", "rows")]
        [True, True, False]
    """
    plain = name.lower().replace("_", "").replace("-", "")
    return any(word in plain for word in _SECRET)


def to_json(value: object, place: Place) -> JsonValue:
    """Return a typed value as plain JSON.

    Raises:
        ConfigError: it has no JSON form, or a database could not keep it.
    """
    if len(place) > _DEEPEST:
        raise ConfigError(place[:3], f"it is nested more than {_DEEPEST} deep, or holds itself")
    match value:
        case None | bool():
            return value
        case Enum():
            return to_json(value.value, place)
        case CommandText():
            return to_json(value.parsed(), place)
        case str():
            return _text(value, place)
        case int():
            if value.bit_length() > _MAX_NUMBER_BITS:
                raise ConfigError(place, f"a whole number of more than {_MAX_NUMBER_BITS} bits; give it as text")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise ConfigError(place, f"{value!r} is not JSON; leave it out, or give None")
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | PurePath() | UUID():
            return _text(str(value), place)
        case Mapping():
            return {_key(key, place): to_json(one, (*place, str(key))) for key, one in value.items()}
        case list() | tuple():
            return [to_json(one, (*place, str(index))) for index, one in enumerate(value)]
        case set() | frozenset():
            return sorted((to_json(one, (*place, "item")) for one in value), key=json.dumps)
    return _object(value, place)


def _object(value: object, place: Place) -> JsonValue:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name), (*place, name)) for name in _init_fields(type(value))}
    if _is_model(type(value)):
        model: Any = value
        names = {*type(model).model_fields, *(getattr(model, "__pydantic_extra__", None) or {})}
        return to_json(model.model_dump(include=names, by_alias=True), place)
    revealed = getattr(value, "get_secret_value", None)  # pydantic.SecretStr and its like
    if callable(revealed):
        return to_json(revealed(), place)
    if hasattr(value, "__str__") and type(value).__module__.startswith("pydantic"):
        return _text(str(value), place)  # its URLs and the like
    raise ConfigError(
        place, f"a value of type {type(value).__qualname__} is not JSON; give text, a number, a list or a dict"
    )


def _key(key: object, place: Place) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, bool) or not isinstance(key, str | int | date | UUID):
        raise ConfigError(place, f"the key {key!r} is not text")
    return _text(str(key), place)


def _text(text: str, place: Place) -> str:
    if "\x00" in text:
        raise ConfigError(place, "the text holds NUL, which the database cannot keep; leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(place, "the text is not valid Unicode: it holds lone surrogates") from None
    return str.__str__(text)


# --- readers ------------------------------------------------------------------------------------------------


def _reader(hint: Any, place: Place) -> Reader:
    """Return what reads values of a type; classes inside are looked at when they are needed."""
    hint = _bare(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return _free
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, types.UnionType):
        return _union(tuple(_reader(one, place) for one in arguments), arguments)
    kind = origin or hint
    if isinstance(kind, type):
        if _is_typed_dict(kind) or _is_model(kind) or dataclasses.is_dataclass(kind):
            return _later(kind)
        if issubclass(kind, Enum):
            return _enum(kind)
        if issubclass(kind, Mapping):
            return _mapping(*(_reader(one, place) for one in arguments or (Any, Any)))
        if issubclass(kind, tuple) and not hasattr(kind, "_fields"):
            return _tuple(arguments, place)
        if issubclass(kind, Sequence | AbstractSet) and kind not in (str, bytes):
            made = frozenset if issubclass(kind, frozenset) else set if issubclass(kind, AbstractSet) else list
            return _several(_reader(arguments[0] if arguments else Any, place), made)
    shown = getattr(hint, "__name__", repr(hint))
    field = f"the field {'.'.join(place)!r} has the type {shown}" if place else f"the type {shown}"
    raise TypeError(
        f"{field}, which has no JSON form here: use text, numbers, bool, dates, Decimal, Path, UUID, enums, "
        "Literal, lists, dicts, dataclasses, TypedDicts or pydantic models"
    )


def _later(kind: type) -> Reader:
    """Return the reader of a class, which may hold itself: looked at when there is a value."""

    def read(value: Any, place: Place) -> Any:
        try:
            reader = _class_reader(kind)
        except TypeError as error:
            raise ConfigError(place, str(error)) from error
        return reader(value, place)

    return read


def _bare(hint: Any) -> Any:
    """Take off what does not change the values: Annotated, Required, aliases, NewType."""
    while True:
        if isinstance(hint, TypeAliasType):
            hint = hint.__value__
        elif get_origin(hint) in (Annotated, Final, ClassVar) or _qualifier(hint):
            hint = get_args(hint)[0]
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        else:
            return hint


def _qualifier(hint: Any) -> str | None:
    name = getattr(get_origin(hint), "_name", None) or getattr(get_origin(hint), "__name__", None)
    return name if name in _QUALIFIERS else None


@lru_cache(maxsize=512)
def _class_reader(kind: type) -> Reader:
    if _is_model(kind):
        return _model(kind)
    hints = _hints(kind)
    if _is_typed_dict(kind):
        readers = {name: _reader(hint, (name,)) for name, hint in hints.items()}
        total = bool(getattr(kind, "__total__", True))
        optional = set(getattr(kind, "__optional_keys__", ()))
        needed = [name for name, hint in hints.items() if _is_required(hint, name not in optional and total)]
        return _fields(kind, readers, needed, dict)
    fields = _init_fields(kind)
    readers = {name: _reader(hints[name], (name,)) for name in fields}
    missing = dataclasses.MISSING
    needed = [name for name, one in fields.items() if one.default is missing and one.default_factory is missing]
    return _fields(kind, readers, needed, kind)


def _is_required(hint: Any, otherwise: bool) -> bool:
    qualifier = _qualifier(hint)
    if qualifier is None or qualifier == "ReadOnly":
        return otherwise
    return qualifier == "Required"


def _fields(kind: type, readers: Mapping[str, Reader], needed: Sequence[str], make: Callable[..., Any]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if make is not dict and isinstance(value, kind):
            value = {name: getattr(value, name) for name in readers}
        if isinstance(value, CommandText):
            value = value.parsed()
        if not isinstance(value, Mapping):
            raise ConfigError(place, f"give an object with {_listed(readers)}, not {_shown(value, place)}")
        for name in value:
            if name not in readers:
                raise ConfigError(
                    (*place, str(name)),
                    f"there is no such field.{did_you_mean(str(name), readers)} Fields: {_listed(readers)}",
                )
        for name in needed:
            if name not in value:
                raise ConfigError((*place, name), f"it is missing, and {kind.__name__} has no default for it")
        found = {name: readers[name](one, (*place, name)) for name, one in value.items()}
        try:
            return make(**found)
        except Exception as error:
            raise ConfigError(place, f"{kind.__name__} refused it: {type(error).__name__}: {error}") from error

    return read


def _model(kind: Any) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if isinstance(value, kind):
            value = value.model_dump(by_alias=True, include=set(kind.model_fields))
        if isinstance(value, CommandText):
            value = value.parsed()
        if not isinstance(value, Mapping):
            raise ConfigError(
                place, f"give an object with {_listed(kind.model_fields)}, not {_shown(value, place)}"
            )
        _refuse_unknown_fields(kind, value, place)
        document = _parsed(value)
        try:
            return kind.model_validate(document)
        except ValueError as error:
            with suppress(ValueError, ConfigError):
                # a strict model takes the JSON form of a date, but only from JSON
                return kind.model_validate_json(json.dumps(to_json(document, place)))
            texts = _as_texts(document, value, error)
            if texts is not None:
                with suppress(ValueError):
                    return kind.model_validate(texts)
            raise _model_problem(error, place) from None

    return read


def _refuse_unknown_fields(kind: Any, value: Mapping[str, Any], place: Place) -> None:
    """Refuse misspelt fields, which a model would ignore without a word unless it allows others."""
    if kind.model_config.get("extra") == "allow":
        return
    known: dict[str, None] = {}
    for name, field in kind.model_fields.items():
        known[name] = None
        for alias in (field.alias, getattr(field.validation_alias, "choices", field.validation_alias)):
            known.update(dict.fromkeys([alias] if isinstance(alias, str) else alias or ()))
    for name in value:
        if name not in known and all(isinstance(one, str) for one in known):
            raise ConfigError(
                (*place, str(name)),
                f"there is no such field.{did_you_mean(str(name), known)} Fields: {_listed(known)}",
            )


def _parsed(value: Any) -> Any:
    if isinstance(value, CommandText):
        return value.parsed()
    if isinstance(value, Mapping):
        return {key: _parsed(one) for key, one in value.items()}
    return value


def _as_texts(document: Any, value: Mapping[str, Any], error: Any) -> Any:
    """Return a document from the command line with text where a model refused what it was parsed to."""
    changed = False
    for one in error.errors() if hasattr(error, "errors") else ():
        at_document, at_value = document, value
        for step in one["loc"][:-1]:
            if not isinstance(at_document, dict) or step not in at_document:
                break
            at_document, at_value = at_document[step], at_value[step]
        last = one["loc"][-1] if one["loc"] else ""
        if isinstance(at_document, dict) and isinstance(at_value, Mapping):
            raw = at_value.get(last)
            if isinstance(raw, CommandText):
                at_document[last], changed = str(raw), True
    return document if changed else None


def _model_problem(error: ValueError, place: Place) -> ConfigError:
    details = error.errors(include_url=False) if hasattr(error, "errors") else []
    if not details:
        return ConfigError(place, str(error))
    first = details[0]
    at = (*place, *(str(one) for one in first["loc"]))
    shown = "" if first["type"] == "missing" else f", not {_shown(first.get('input'), at)}"
    more = f" ({len(details) - 1} more problems)" if len(details) > 1 else ""
    return ConfigError(at, f"{first['msg']}{shown}{more}")


def _wants(what: str, test: Callable[[Any], bool], convert: Callable[[Any], Any] | None = None) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if isinstance(value, CommandText) and not test(value):
            value = value.parsed()
        if test(value):
            return str(value) if isinstance(value, CommandText) else value
        if convert is not None:
            with suppress(ValueError, TypeError, InvalidOperation, OverflowError):
                return convert(value)
        raise ConfigError(place, f"give {what}, not {_shown(value, place)}")

    return read


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_float(value: Any) -> float:
    if not _is_number(value):
        raise TypeError
    return float(value)


def _to_decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    found = Decimal(str(value))
    if not found.is_finite():
        raise ValueError
    return found


def _to_delta(value: Any) -> timedelta:
    if not _is_number(value):
        raise TypeError
    return timedelta(seconds=value)


def _from_text[T](convert: Callable[[str], T]) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        if not isinstance(value, str):
            raise TypeError
        return convert(value)

    return read


def _finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


_SCALARS: dict[Any, Reader] = {
    str: _wants("text", lambda value: isinstance(value, str)),
    bool: _wants("true or false", lambda value: isinstance(value, bool)),
    int: _wants("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: _wants("a number (not NaN or infinite)", _finite, _to_float),
    type(None): _wants("null", lambda value: value is None),
    datetime: _wants(
        "a time such as 2024-01-31T12:00:00Z",
        lambda value: isinstance(value, datetime),
        _from_text(datetime.fromisoformat),
    ),
    date: _wants(
        "a day such as 2024-01-31",
        lambda value: isinstance(value, date) and not isinstance(value, datetime),
        _from_text(date.fromisoformat),
    ),
    time: _wants(
        "a time of day such as 12:00", lambda value: isinstance(value, time), _from_text(time.fromisoformat)
    ),
    timedelta: _wants("a number of seconds", lambda value: isinstance(value, timedelta), _to_delta),
    Decimal: _wants(
        "a decimal number", lambda value: isinstance(value, Decimal) and value.is_finite(), _to_decimal
    ),
    Path: _wants("a path", lambda value: isinstance(value, Path), _from_text(Path)),
    UUID: _wants("a UUID", lambda value: isinstance(value, UUID), _from_text(UUID)),
}


def _free(value: Any, place: Place) -> Any:
    return to_json(value, place)


def _literal(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        parsed = value.parsed() if isinstance(value, CommandText) else value
        for one in allowed:
            for given in (value, parsed):
                if given == one and (isinstance(given, str) or type(given) is type(one)):
                    return one
        hint = (
            did_you_mean(value, [one for one in allowed if isinstance(one, str)]) if isinstance(value, str) else ""
        )
        raise ConfigError(
            place, f"give one of {', '.join(map(repr, allowed))}, not {_shown(value, place)}{hint and f'.{hint}'}"
        )

    return read


def _enum(kind: type[Enum]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if isinstance(value, kind):
            return value
        for given in (value, value.parsed()) if isinstance(value, CommandText) else (value,):
            with suppress(ValueError):
                return kind(given)
            if isinstance(given, str) and given in kind.__members__:
                return kind[given]
        allowed = [one.value for one in kind]
        raise ConfigError(place, f"give one of {', '.join(map(repr, allowed))}, not {_shown(value, place)}")

    return read


def _union(readers: tuple[Reader, ...], hints: tuple[Any, ...]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        plain = value.parsed() if isinstance(value, CommandText) else value
        problems = []
        # what is of a type of the union already stays as it is: 3 is no "3" in `str | int`
        matching = [one for one, hint in zip(readers, hints, strict=True) if type(plain) is _bare(hint)]
        for one in (*matching, *readers):
            try:
                return one(plain if one in matching else value, place)
            except ConfigError as error:
                problems.append(error)
        deepest = max(problems, key=lambda error: len(error.place))
        if len(deepest.place) > len(place):
            raise deepest
        hints_given = dict.fromkeys(
            error.problem.partition(", not ")[0].removeprefix("give ") for error in problems
        )
        raise ConfigError(place, f"give {' or '.join(hints_given)}, not {_shown(value, place)}")

    return read


def _several(item: Reader, make: Callable[[list[Any]], Any]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if isinstance(value, CommandText):
            value = value.parsed()
        if not isinstance(value, list | tuple | set | frozenset):
            raise ConfigError(place, f"give a list, not {_shown(value, place)}")
        return make([item(one, (*place, str(index))) for index, one in enumerate(value)])

    return read


def _tuple(arguments: tuple[Any, ...], place: Place) -> Reader:
    if not arguments or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _several(_reader(arguments[0] if arguments else Any, place), tuple)
    items = [_reader(one, place) for one in arguments]

    def read(value: Any, at: Place) -> Any:
        if isinstance(value, CommandText):
            value = value.parsed()
        if not isinstance(value, list | tuple) or len(value) != len(items):
            raise ConfigError(at, f"give a list of {len(items)} values, not {_shown(value, at)}")
        return tuple(
            [
                read_one(one, (*at, str(index)))
                for index, (read_one, one) in enumerate(zip(items, value, strict=True))
            ]
        )

    return read


def _mapping(key: Reader, item: Reader) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if isinstance(value, CommandText):
            value = value.parsed()
        if not isinstance(value, Mapping):
            raise ConfigError(place, f"give an object, not {_shown(value, place)}")
        # JSON has text as keys only, so keys are read as the command line is
        return {
            key(CommandText(one) if isinstance(one, str) else one, place): item(of, (*place, str(one)))
            for one, of in value.items()
        }

    return read


# --- what a type is -----------------------------------------------------------------------------------------


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_fields")


def _is_typed_dict(kind: Any) -> bool:
    return is_typeddict(kind) or (
        isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")
    )


def _init_fields(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    return {one.name: one for one in dataclasses.fields(kind) if one.init}


def _hints(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{kind.__name__} names a type that cannot be found ({error}); declare it at the top level of a module"
        ) from error


def _secret_fields(kind: Any) -> list[str]:
    """Return the fields of a type whose values hide themselves, as pydantic's secrets do."""
    if _is_model(kind):
        hints = {name: field.annotation for name, field in kind.model_fields.items()}
    elif isinstance(kind, type) and (dataclasses.is_dataclass(kind) or _is_typed_dict(kind)):
        hints = _hints(kind)
    else:
        return []
    return [name for name, hint in hints.items() if any(hasattr(one, "get_secret_value") for one in _within(hint))]


def _within(hint: Any) -> list[Any]:
    bare = _bare(hint)
    return [bare, *(found for one in get_args(bare) for found in _within(one))]


def _shown(value: object, place: Place) -> str:
    """Return a value for an error, unless the name of its field says that it is a secret."""
    if any(is_secret_name(one) for one in place):
        return f"a value of type {type(value).__qualname__}"
    text = repr(str(value) if isinstance(value, CommandText) else value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"


def config_problem(asset: str, error: ConfigError) -> OptionsError:
    """Return the error that names the asset of a config that does not fit."""
    at = f".{'.'.join(error.place)}" if error.place else ""
    end = "" if error.problem.endswith(("?", ".")) else "."
    return OptionsError(f"config of asset {asset!r}{at}: {error.problem}{end}")
