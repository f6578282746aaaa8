"""Per-call options of executors, checked before anything is placed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flowstone.core.job import Job
from flowstone.errors import CapabilityError, OptionsError, did_you_mean
from flowstone.protocols import ChecksOptions, Executor

MAX_OPTIONS_BYTES = 64 * 1024


def check_options(executor: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse options that an executor does not understand.

    Raises:
        OptionsError: naming the option and the known ones.

    Example:
        >>> check_options("sync", {"timeout_seconds": 5}, frozenset({"timeout_seconds"}))
    """
    for name in options:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise OptionsError(
                f"The executor {executor!r} has no option {name!r}.{did_you_mean(name, known)} "
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


def seconds_option(name: str, value: object) -> float | None:
    """Return a duration option in seconds.

    Raises:
        OptionsError: it is not a positive number or timedelta.
    """
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise OptionsError(f"{name}={value!r}: give a number of seconds above 0, or a timedelta.")
    return float(seconds)


def refuse_later(executor: str, job: Job) -> None:
    """Refuse a job that is to start later, for executors that only work now.

    Raises:
        CapabilityError: the job has a start time.
    """
    if job.scheduled_at is not None:
        raise CapabilityError(executor, "scheduled_at", ())
