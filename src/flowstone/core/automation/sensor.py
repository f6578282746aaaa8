"""Sensors: a function that is called now and then and answers with requests for runs.

In the order of a life: `RunRequest` is what it asks for, `Sensor` and `@sensor` declare it, `SensorContext` is
what its function is given, and `sense` turns an answer, however it is written, into checked requests and a cursor.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, overload

from flowstone.core.asset import Asset
from flowstone.core.automation.record import AutomationId, AutomationKind, PartitionChange
from flowstone.core.clean import plain_text
from flowstone.core.context import CancellationToken, Resources
from flowstone.core.declaring import (
    check_name,
    checks_options,
    copy_signature,
    description_of,
    known_options,
    name_of,
    names,
    place_of,
    shown,
    signature_of,
    whole_number,
)
from flowstone.core.declaring import duration as duration_of
from flowstone.core.partitions import Partition
from flowstone.core.partitions_by_key import DynamicPartitions, encode_key
from flowstone.core.run_details import check_document, check_tags
from flowstone.core.selection import Selection
from flowstone.errors import DefinitionError, OptionsError, SensorError, UnknownOptionError

_MAX_KEY = 1000


@checks_options
@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A run that a schedule, a sensor or a condition wants.

    Only the selected assets run: `+name` adds what is upstream.

    Args:
        selection: asset, name or selection expression.
        partition: partition of the first selected partitioned asset; the others follow through their mappings.
            None for assets without partitions.
        run_key: what the run is for, such as the name of a new file. A sensor never starts a second run for
            the same key. None for a run that needs no such guard.
        force: compute the selected assets although they are committed.
        priority: 0 (first) to 9; that of the assets when None.
        max_concurrency: most steps of the run at once in the fleet.
        allow_incomplete: compute the partition although it is not over; else it is refused then.
        config: see `FlowStone.materialize`; so are `io`, `resources`, `hooks` and `hooks_config`. What is said
            here is checked against the assets when the request is placed.
        tags: names to find the run by.
        metadata: facts about the run, JSON.

    Raises:
        OptionsError: the run key is empty, longer than 1,000 bytes of UTF-8, or has characters that the
            database cannot keep; or a number or a switch is of another type, or out of range.

    Example:
        >>> RunRequest(selection="orders", run_key="inbox/2024-01-01.csv").force
        True
    """

    selection: Selection
    partition: Partition = None
    run_key: str | None = None
    force: bool = True
    priority: int | None = None
    max_concurrency: int | None = None
    config: Any = None
    tags: Iterable[str] = ()
    metadata: Mapping[str, Any] | None = None
    io: str | Mapping[str, str] | None = None
    resources: Mapping[str, str] | None = None
    hooks: Iterable[str] = ()
    hooks_config: Mapping[str, Any] | None = None
    allow_incomplete: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", check_tags(self.tags))
        if self.metadata:
            object.__setattr__(self, "metadata", check_document("metadata", self.metadata))
        if self.run_key is not None:
            _check_key(self.run_key)
        for option in ("force", "allow_incomplete"):
            if not isinstance(getattr(self, option), bool):
                raise OptionsError(f"{option}={shown(getattr(self, option))}: give True or False.")
        if self.priority is not None:
            object.__setattr__(self, "priority", _whole("priority", self.priority, 0, 9, "from 0 (first) to 9"))
        if self.max_concurrency is not None:
            maximum = _whole("max_concurrency", self.max_concurrency, 1, 2**31 - 1, "from 1 on")
            object.__setattr__(self, "max_concurrency", maximum)


def _whole(option: str, given: object, minimum: int, maximum: int, range_: str) -> int:
    found = whole_number(given, minimum=minimum, maximum=maximum)
    if found is None:
        raise OptionsError(f"{option}={shown(given)}: give a whole number {range_}.")
    return found


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise OptionsError(f"run_key={key!r}: give text, such as str({key!r}).")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        size = 0
    # an index holds run keys, and an entry of it has room for so much
    if not 0 < size <= _MAX_KEY or "\x00" in key:
        raise OptionsError(
            f"run_key={key[:80]!r}: give 1 to {_MAX_KEY:,} bytes of UTF-8 text without NUL; for longer ones take "
            "hashlib.sha256(key.encode()).hexdigest()."
        )


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


MAX_CURSOR = 100_000
"""Longest cursor, in bytes of UTF-8."""
MAX_REQUESTS = 10_000
"""Most runs that one evaluation may ask for."""


type Definition = str | DynamicPartitions
"""Dynamic partitions, or the name of them."""

type Keys = (
    Mapping[str, Iterable[Partition]]
    | Mapping[DynamicPartitions, Iterable[Partition]]
    | Iterable[tuple[Definition, Partition]]
)
"""Keys of dynamic partitions: `{"customers": ["acme"]}` or `[("customers", "acme")]`."""


@dataclass(frozen=True, slots=True)
class SkipReason:
    """Why there was nothing to do; shown with the tick.

    Example:
        >>> SkipReason("no new files").text
        'no new files'
    """

    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorResult:
    """Everything that a sensor may answer, at once.

    Args:
        requests: the runs it wants.
        cursor: the new cursor; None leaves it as it is, or as `context.update_cursor` set it.
        add_partitions: keys to add to dynamic partitions, before the runs are placed.
        remove_partitions: keys to remove from them.
        skip_reason: why there was nothing to do.
        left_out: with it, requests that cannot be planned are left out instead of failing the whole evaluation: it
            takes their run keys and returns the cursor to keep.

    Example:
        >>> SensorResult(requests=[RunRequest(selection="orders")], cursor="7").cursor
        '7'
    """

    requests: Iterable[RunRequest] = ()
    cursor: str | None = None
    add_partitions: Keys = ()
    remove_partitions: Keys = ()
    skip_reason: str | None = None
    left_out: Callable[[Collection[str]], str | None] | None = None


class SensorContext:
    """What the function of a sensor may know; tests make their own.

    Attributes:
        name: name of the sensor.
        cursor: what the evaluation before left, or what `update_cursor` set since; None at first.
        now: the store's clock when the evaluation started, timezone-aware.
        last_tick_at: when it was evaluated the last time before this.
        selection: what its requests select unless they say otherwise.
        resources: what the sensor requires, opened.
        cancellation: set when the evaluation took too long; long loops ask it now and then.

    Example:
        >>> from datetime import UTC
        >>> context = SensorContext("inbox", now=datetime(2024, 1, 1, tzinfo=UTC), selection="orders")
        >>> context.request(run_key="a.csv").selection
        'orders'
    """

    def __init__(
        self,
        name: str,
        *,
        now: datetime,
        cursor: str | None = None,
        last_tick_at: datetime | None = None,
        selection: Selection | None = None,
        resources: Mapping[str, Any] | None = None,
        cancellation: CancellationToken | None = None,
    ) -> None:
        self.name = name
        self.cursor = cursor
        self.now = now
        self.last_tick_at = last_tick_at
        self.selection = selection
        opened = Resources({}, name, kind="sensor") if resources is None else resources
        self.resources: Resources = opened  # type: ignore[assignment]  # a test may pass a dict
        self.cancellation = cancellation or CancellationToken()

    @property
    def logger(self) -> logging.Logger:
        """Logger of this sensor."""
        return logging.getLogger(f"flowstone.sensor.{self.name}")

    @known_options("context.request()")
    def request(
        self,
        *,
        partition: Partition = None,
        run_key: str | None = None,
        selection: Selection | None = None,
        force: bool = True,
        priority: int | None = None,
        max_concurrency: int | None = None,
        config: Any = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        io: str | Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        hooks: Iterable[str] = (),
        hooks_config: Mapping[str, Any] | None = None,
        allow_incomplete: bool = False,
    ) -> RunRequest:
        """Return a request for a run of what the sensor selects.

        Args:
            partition: see `RunRequest`.
            run_key: see `RunRequest`.
            selection: in place of the sensor's own.
            force: see `RunRequest`; so are the other options.

        Raises:
            SensorError: neither the sensor nor this call says what to select.
        """
        chosen = self.selection if selection is None else selection
        if chosen is None:
            raise SensorError(
                self.name,
                'what is to run? Declare @sensor(selection="..."), or pass context.request(selection="...").',
            )
        return RunRequest(
            selection=chosen,
            partition=partition,
            run_key=run_key,
            force=force,
            priority=priority,
            max_concurrency=max_concurrency,
            config=config,
            tags=tags,
            metadata=metadata,
            io=io,
            resources=resources,
            hooks=hooks,
            hooks_config=hooks_config,
            allow_incomplete=allow_incomplete,
        )

    def update_cursor(self, cursor: str | None) -> None:
        """Set the cursor that the next evaluation gets; it is kept only if this evaluation succeeds."""
        self.cursor = cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensed:
    """What an evaluation came to, checked."""

    requests: tuple[RunRequest, ...] = ()
    cursor: str | None = None
    partitions: tuple[PartitionChange, ...] = ()
    skip_reason: str | None = None
    left_out: Callable[[Collection[str]], str | None] | None = None


def sense(context: SensorContext, answer: object) -> Sensed:
    """Turn what a sensor's function returned into what it asks for.

    Args:
        context: what the function was given; its cursor counts unless a result names another.
        answer: None, a request, a reason to skip, a result, or an iterable of these. Iterating one runs
            user code.

    Raises:
        SensorError: the answer cannot work.

    Example:
        >>> from datetime import UTC
        >>> context = SensorContext("inbox", now=datetime(2024, 1, 1, tzinfo=UTC))
        >>> sense(context, SkipReason("nothing new")).skip_reason
        'nothing new'
    """
    requests: dict[object, RunRequest] = {}
    changes: dict[PartitionChange, None] = {}
    reasons: list[str] = []
    name, cursor, left_out = context.name, None, None
    for part in _parts(name, answer):
        if isinstance(part, RunRequest):
            _add(name, requests, part)
        elif isinstance(part, SkipReason):
            reasons.append(plain_text(part.text))
        else:
            for request in _requests(name, part.requests):
                _add(name, requests, request)
            changes |= dict.fromkeys(_changes(name, part.add_partitions, remove=False))
            changes |= dict.fromkeys(_changes(name, part.remove_partitions, remove=True))
            reasons += [plain_text(part.skip_reason)] if part.skip_reason is not None else []
            cursor = part.cursor if part.cursor is not None else cursor
            left_out = part.left_out or left_out
    cursor = context.cursor if cursor is None else cursor
    check_cursor(name, cursor)
    reason = "; ".join(reasons) if reasons else None
    return Sensed(
        requests=tuple(requests.values()),
        cursor=cursor,
        partitions=tuple(changes),
        skip_reason=reason,
        left_out=left_out,
    )


def check_cursor(sensor: str, cursor: object) -> None:
    """Refuse a cursor that the store could not keep exactly.

    Raises:
        SensorError: it is no text, too long, or has characters that PostgreSQL does not keep.
    """
    if cursor is None:
        return
    if not isinstance(cursor, str):
        raise SensorError(
            sensor, f"the cursor is text, not {type(cursor).__qualname__}; write json.dumps(...) or str(...)."
        )
    try:
        size = len(cursor.encode())
    except UnicodeEncodeError:
        raise SensorError(sensor, "the cursor has half a surrogate pair; json.dumps(...) escapes it.") from None
    if "\x00" in cursor:
        raise SensorError(sensor, "the cursor has the character NUL; json.dumps(...) escapes it.")
    if size > MAX_CURSOR:
        raise SensorError(
            sensor,
            f"the cursor has {size:,} bytes, more than {MAX_CURSOR:,}. Keep where you are, such as the time of "
            "the newest file, and not a list of everything seen; run keys guard against doing things twice.",
        )


def _parts(sensor: str, answer: object) -> Iterator[RunRequest | SkipReason | SensorResult]:
    if answer is None:
        return
    if isinstance(answer, RunRequest | SkipReason | SensorResult):
        yield answer
        return
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        raise _unusable(sensor, "returned", answer)
    for part in answer:
        if isinstance(part, RunRequest | SkipReason | SensorResult):
            yield part
        elif part is not None:
            raise _unusable(sensor, "answered among others", part)


def _requests(sensor: str, requests: object) -> Iterator[RunRequest]:
    if not isinstance(requests, Iterable) or isinstance(requests, str | bytes | Mapping):
        raise _unusable(sensor, "gave as SensorResult(requests=...)", requests)
    for request in requests:
        if not isinstance(request, RunRequest):
            raise _unusable(sensor, "gave in SensorResult(requests=...)", request)
        yield request


def _add(sensor: str, requests: dict[object, RunRequest], request: RunRequest) -> None:
    key: object = len(requests) if request.run_key is None else request.run_key
    known = requests.setdefault(key, request)
    if known is not request and known != request:
        raise SensorError(
            sensor,
            f"two different requests have the run key {request.run_key!r}. A run key stands for one run; "
            "put the partition or the selection into it.",
        )
    if len(requests) > MAX_REQUESTS:
        raise SensorError(
            sensor,
            f"it asks for more than {MAX_REQUESTS:,} runs at once. Take some, keep in the cursor how far you "
            "are, and take the rest the next time.",
        )


def _changes(sensor: str, keys: Keys, *, remove: bool) -> Iterator[PartitionChange]:
    pairs: Iterable[object]
    if isinstance(keys, Mapping):
        for listed in keys.values():
            if isinstance(listed, str):
                raise SensorError(sensor, f"partitions are given as {listed!r}; give a list: [{listed!r}].")
        pairs = [(definition, key) for definition, listed in keys.items() for key in listed]
    else:
        pairs = keys
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise SensorError(
                sensor,
                f'partitions to add or remove are given as {pair!r}; write {{"customers": ["acme"]}}, with the '
                "name of the dynamic partitions.",
            )
        definition, key = pair
        name = definition if isinstance(definition, str) else str(definition.name)
        yield PartitionChange(name, encode_key(name, key), remove)


def _unusable(sensor: str, verb: str, answer: object) -> SensorError:
    kind = type(answer)
    shown = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return SensorError(
        sensor,
        f"it {verb} a value of type {shown}. Return or yield RunRequest(...), SkipReason(...) or "
        "SensorResult(...), or nothing.",
    )
