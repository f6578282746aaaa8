"""One evaluation of a sensor: what its function is given, what it may answer, and what that comes to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowstone.core.automation.record import PartitionChange
from flowstone.core.automation.request import RunRequest
from flowstone.core.context import CancellationToken, Resources
from flowstone.core.declaring import known_options
from flowstone.core.dynamic import DynamicPartitions, encode_key
from flowstone.core.partition import Partition
from flowstone.core.selection import Selection
from flowstone.core.text import plain_text
from flowstone.errors import SensorError

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
        self.resources = Resources({}, name, kind="sensor") if resources is None else resources
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
