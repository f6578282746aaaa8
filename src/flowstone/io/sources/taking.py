"""From new things to the runs they ask for: one run for each partition that something new belongs to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, NamedTuple, Self

from flowstone.core.automation.sensing import Definition, SensorContext, SensorResult
from flowstone.core.automation.sensor import seconds_of
from flowstone.core.partition import Partition, encode_partition
from flowstone.errors import DefinitionError, PartitionError, SensorError
from flowstone.io.sources.watermark import Place, Watermark, moved

_MAX_KEY = 1000
DEFAULT_LIMIT = 1000
_MAX_LIMIT = 10_000
MAX_AGAIN = 300
"""How many things that could not be used are looked at again, the newest."""
_MAX_SETTLE_SECONDS = 31 * 86_400.0


@dataclass(frozen=True, slots=True)
class Watching:
    """Options that ready-made sensors share, checked.

    Args:
        settle: what is younger than this is left for later.
        limit: most things to take at once.
        add_to: dynamic partitions to which `partition(...)` is added first.
    """

    settle: timedelta
    limit: int
    add_to: Definition | None

    @classmethod
    def of(
        cls, name: str, *, settle: timedelta | float, limit: int, add_to: Definition | None, has_partition: bool
    ) -> Self:
        """Check the options of a sensor.

        Args:
            name: of the sensor.
            settle: as it was given.
            limit: as it was given.
            add_to: as it was given.
            has_partition: whether something says which partition a new thing belongs to.

        Raises:
            DefinitionError: one of them cannot work.
        """
        seconds = seconds_of(settle)
        if not 0 <= seconds <= _MAX_SETTLE_SECONDS:
            raise refusal(name, f"settle={settle!r}: give 0 seconds to 31 days")
        if isinstance(limit, bool) or limit not in range(1, _MAX_LIMIT + 1):
            raise refusal(name, f"limit={limit!r}: give 1 to {_MAX_LIMIT:,}")
        if add_to is not None and not has_partition:
            raise refusal(name, "add_to=... needs partition=..., which says which key a new thing stands for")
        return cls(timedelta(seconds=seconds), limit, add_to)


def refusal(name: str, problem: str) -> DefinitionError:
    """Return the error for a sensor that cannot be declared.

    Example:
        >>> str(refusal("inbox", "give a directory"))
        "Sensor 'inbox' cannot be declared: give a directory."
    """
    return DefinitionError(f"Sensor {name!r} cannot be declared: {problem.rstrip('.')}.")


class Taken[T](NamedTuple):
    """A new thing, where it stands, and what names exactly this version of it."""

    thing: T
    place: Place
    identity: str
    again: bool = False
    """Whether it was taken before and could not be used then."""


def result_of[T](
    context: SensorContext,
    mark: Watermark | None,
    taken: list[Taken[T]],
    partition: Callable[[T], Partition] | None,
    add_to: Definition | None,
) -> SensorResult:
    """Return what a sensor answers after it took these new things, which come in their order.

    Args:
        context: of the evaluation.
        mark: where it stood.
        taken: what is new.
        partition: which partition a thing belongs to; one for which it is None asks for nothing.
        add_to: dynamic partitions to which those partitions are added.

    One thing that cannot be used does not hold up the others: it is left out, said, and looked at again.
    """
    newest: dict[str, tuple[Partition, Taken[T]]] = {}
    unusable: dict[str, str] = {}
    for one in taken:
        try:
            key = partition(one.thing) if partition is not None else None
            if partition is None or key is not None:
                # by its text, for 1 and True are equal, and so are two spellings of an instant
                newest[_encode(context.name, key, one)] = key, one
        except Exception as error:  # noqa: BLE001 - a function of the user
            unusable[_name(one)] = f"left out: {one.identity}: {type(error).__name__}: {error}"
            if not one.again:
                context.logger.warning("%s is left out: %s: %s", one.identity, type(error).__name__, error)
    after = moved(mark, [one.place for one in taken if not one.again])
    names = {one.identity: _name(one) for _, one in newest.values()}

    def cursor(run_keys: Collection[str] = ()) -> str | None:
        again = [*unusable, *(names[key] for key in run_keys if key in names)][-MAX_AGAIN:]
        return None if after is None else replace(after, again=tuple(dict.fromkeys(again))).to_cursor()

    nothing = [] if newest or unusable else ["nothing new"]
    return SensorResult(
        requests=[context.request(partition=key, run_key=one.identity) for key, one in newest.values()],
        cursor=cursor(),
        add_partitions=[] if add_to is None else [(add_to, key) for key, _ in newest.values()],
        skip_reason="; ".join([*unusable.values(), *nothing]) or None,
        left_out=cursor,
    )


def _name(taken: Taken[Any]) -> str:
    return str(taken.place.tie)


def identity_of(parts: Iterable[str]) -> str:
    """Return a run key for exactly these parts: readable, and not longer than run keys may be.

    Example:
        >>> identity_of(["inbox/a.csv", "17"])
        'inbox/a.csv 17'
    """
    # as partitions are written: whatever a file name is made of, the text can be kept, and names only it
    key = " ".join(encode_partition(part)[2:] for part in parts)
    return key if len(key.encode()) <= _MAX_KEY else f"sha256 {sha256(key.encode()).hexdigest()}"


def _encode[T](sensor: str, key: Partition, taken: Taken[T]) -> str:
    try:
        return encode_partition(key)
    except PartitionError as error:
        raise SensorError(sensor, f"partition(...) of {taken.identity!r} is no partition: {error}") from error
