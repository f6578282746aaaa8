"""Why a step has no result although it did nothing wrong: the input whose end is named in what is recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import Target

_ENDED = re.compile(r"input (?P<target>.+) ended as (?P<state>[a-z_]+)", re.DOTALL)
_KEY = re.compile(r"[a-z]{1,3}:")


def ended_input(reason: str | None, assets: Collection[str]) -> tuple[Target, State] | None:
    """Return the input that a step names as the reason why it never started, and how that ended.

    Args:
        reason: what is recorded, such as `input orders d:2024-01-31 ended as failed`.
        assets: names of the assets that are declared; any name is taken for one when there are none.

    Example:
        >>> ended_input("input my orders d:2024-01-31 ended as failed", {"my orders"})
        (('my orders', 'd:2024-01-31'), <State.FAILED: 'failed'>)
        >>> ended_input("there is nothing to do", {"orders"}) is None
        True
    """
    found = _ENDED.fullmatch(reason or "")
    if found is None or found["state"] not in State:
        return None
    text, state = found["target"], State(found["state"])
    if text in assets:
        return (text, PartitionKey("")), state
    at = text.find(" ")
    while at >= 0:
        name, key = text[:at], text[at + 1 :]
        if name in assets or (not assets and _KEY.match(key)):
            return (name, PartitionKey(key)), state
        at = text.find(" ", at + 1)
    return ((text, PartitionKey("")), state) if not assets else None


def readable_reason(reason: str | None, assets: Collection[str], describe: Callable[[str, str], str]) -> str:
    """Return why a step has no result, with the partition of an input as people write it.

    Args:
        reason: what is recorded.
        assets: as in `ended_input`.
        describe: returns an asset and its encoded partition for people.

    Example:
        >>> readable_reason("input a d:2024-01-31 ended as failed", {"a"}, lambda name, key: f"{name} [{key[2:]}]")
        'input a [2024-01-31] ended as failed'
    """
    found = ended_input(reason, assets)
    if found is None:
        return reason or ""
    target, state = found
    return f"input {describe(*target)} ended as {state.value}"
