"""What an automation asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowstone.core.declaring import checks_options, shown, whole_number
from flowstone.core.partition import Partition
from flowstone.core.run_details import check_document, check_tags
from flowstone.core.selection import Selection
from flowstone.errors import OptionsError

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
