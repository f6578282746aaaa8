"""Per-call options of executors, checked before anything is placed."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowstone.core.declaring import YEAR_SECONDS, duration, shown, spelled, warn_of_milliseconds
from flowstone.core.job import Job
from flowstone.errors import CapabilityError, OptionsError, option_hint
from flowstone.protocols import ChecksOptions, Executor

MAX_OPTIONS_BYTES = 64 * 1024
_MAX_QUEUE = 127


def check_options(executor: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse options that an executor does not understand.

    Raises:
        OptionsError: naming the option and the known ones.

    Example:
        >>> check_options("sync", {"timeout_seconds": 5}, frozenset({"timeout_seconds"}))
    """
    for name in options:
        if name not in known:
            taken = known | {"retry"}  # which is looked at before an executor sees the others
            listed = ", ".join(sorted(taken))
            raise OptionsError(
                f"The executor {executor!r} has no option {name!r}.{option_hint(name, taken)} "
                f"Its options: {listed}."
            )


def check_call(executor: Executor, options: Mapping[str, Any]) -> None:
    """Have an executor look at the options of a call; one that does not is asked what its methods take.

    Raises:
        OptionsError: naming the option and what would do.
    """
    if isinstance(executor, ChecksOptions):
        executor.check(options)
        return
    for method in (executor.execute, executor.schedule):
        try:
            parameters = inspect.signature(method).parameters.values()
        except (TypeError, ValueError):
            continue
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            named = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_POSITIONAL]
            check_options(executor.name, options, frozenset(named[1:]))


def check_portable(executor: str, options: Mapping[str, Any]) -> None:
    """Refuse options that cannot travel to another process.

    Raises:
        OptionsError: an option is not JSON, or all of them are too large.
    """
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionsError(
                f"The option {name!r} cannot be sent to a worker of {executor!r}: {error}. "
                "Options carry names and plain values (JSON), never objects; declare objects as resources."
            ) from error
    size = len(json.dumps(dict(options)))
    if size > MAX_OPTIONS_BYTES:
        raise OptionsError(
            f"The options are {size:,} bytes, more than {MAX_OPTIONS_BYTES:,}. Store the data and pass its name."
        )


def seconds_option(
    name: str, value: object, *, or_none: bool = False, maximum: float = YEAR_SECONDS, warn: bool = False
) -> float | None:
    """Return a duration option in seconds.

    Args:
        name: the option.
        value: a timedelta or seconds; None for none.
        or_none: whether 0 will do.
        maximum: the longest that makes sense.
        warn: warn of a number that looks like milliseconds, as whoever looks at an option first does.

    Raises:
        OptionsError: it is not a timedelta or a number above 0, or longer than makes sense.
    """
    if value is None:
        return None
    seconds = duration(value, maximum=math.inf)
    if seconds is None or not (seconds or or_none):
        minimum = "from 0 on" if or_none else "above 0"
        raise OptionsError(f"{name}={shown(value)}: give a number of seconds {minimum}, or a timedelta.")
    if seconds > maximum:
        meant = seconds / 1000
        remedy = f" Did you mean {meant:g}?" if meant <= maximum and meant < _PLAIN_DIGITS else ""
        raise OptionsError(
            f"{name}={shown(value)} is {spelled(seconds)}, more than {spelled(maximum)}: it is in seconds, not "
            f"milliseconds.{remedy}"
        )
    if warn:
        warn_of_milliseconds(name, value, seconds)
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingOptions:
    """What a call asks of the jobs that it places on a queue.

    Args:
        queue: queue of the jobs, in place of the assets' own.
        max_attempts: attempts of each in all, in place of the retry policy's.
        priority: 0 (first) to 9, in place of the assets' and the verb's.
        unique_seconds: a job of the same asset and partition that was placed less than that ago answers instead of
            a new one, over or not, forced or not.
        scheduled_at: earliest start.
    """

    queue: str | None = None
    max_attempts: int | None = None
    priority: int | None = None
    unique_seconds: float | None = None
    scheduled_at: datetime | None = None


_PLAIN_DIGITS = 1_000_000  # from here on `g` writes an exponent

NO_PLACING_OPTIONS = PlacingOptions()

PLACING_OPTIONS = frozenset({"queue", "max_attempts", "priority", "unique", "scheduled_at"})
"""Options that say how jobs are placed; executors with a queue take them."""


def placing_options(options: Mapping[str, Any]) -> PlacingOptions:
    """Return what the options of a call say about how its jobs are placed.

    Raises:
        OptionsError: one of them cannot work; names option, value and remedy.

    Example:
        >>> from datetime import timedelta
        >>> placing_options({"queue": "reports", "unique": timedelta(minutes=5)}).unique_seconds
        300.0
    """
    return PlacingOptions(
        queue=_queue(options.get("queue")),
        max_attempts=_whole("max_attempts", options.get("max_attempts"), 1, 1000),
        priority=_whole("priority", options.get("priority"), 0, 9),
        unique_seconds=seconds_option("unique", options.get("unique")),
        scheduled_at=_moment(options.get("scheduled_at")),
    )


def _queue(value: object) -> str | None:
    if value is None:
        return None
    fits = isinstance(value, str) and 0 < len(value) <= _MAX_QUEUE and value.strip() == value
    if not fits or not str(value).isprintable():
        raise OptionsError(
            f"queue={value!r}: give the name of a queue, text of 1 to {_MAX_QUEUE} printable characters."
        )
    return str(value)


def _whole(name: str, value: object, minimum: int, maximum: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not minimum <= value <= maximum:
        first = " (first)" if name == "priority" else ""
        raise OptionsError(f"{name}={value!r}: give a whole number from {minimum}{first} to {maximum}.")
    return value


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise OptionsError(
            f"scheduled_at={value!r}: give a time with a time zone, such as datetime(..., tzinfo=UTC) or its text."
        )
    return moment


def refuse_later(executor: str, job: Job) -> None:
    """Refuse a job that is to start later, for executors that only work now.

    Raises:
        CapabilityError: the job has a start time.
    """
    if job.scheduled_at is not None:
        raise CapabilityError(executor, "scheduled_at", ())
