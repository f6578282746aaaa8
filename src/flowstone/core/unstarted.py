"""Steps that are over before they begin: what both stores decide when they place a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowstone.core.route import ALL_SKIPPED
from flowstone.core.state import ACTIVE, SUCCESS, State
from flowstone.core.step import NewStep

OPEN_OR_THERE = ACTIVE | SUCCESS
"""States of inputs that leave a step its chance."""


def over_before_it_begins(
    new: NewStep, inputs: Sequence[State], target: Callable[[int], tuple[str, str]]
) -> tuple[State, str] | None:
    """Return the state of a step that can never start, and why; None when it can.

    Args:
        new: the step; not one that is served by an earlier version.
        inputs: the states of its inputs.
        target: returns the (asset, encoded partition) at a position of the batch.

    Example:
        >>> step = NewStep("joined", "", inputs=(0, 1), optional=(0,))
        >>> names = [("a", ""), ("b", "")].__getitem__
        >>> over_before_it_begins(step, [State.SKIPPED, State.WAITING], names) is None
        True
        >>> over_before_it_begins(step, [State.WAITING, State.SKIPPED], names)[1]
        'input b ended as skipped'
    """
    if new.skip is not None:
        return State.SKIPPED, new.skip
    if OPEN_OR_THERE.issuperset(inputs):
        return None
    for read, state in zip(new.inputs, inputs, strict=True):
        if state in OPEN_OR_THERE or (state is State.SKIPPED and read in new.optional):
            continue
        reason = f"input {' '.join(target(read)).rstrip()} ended as {state}"
        return State.SKIPPED if state is State.SKIPPED else State.UPSTREAM_FAILED, reason
    skipped = new.all_optional and all(state is State.SKIPPED for state in inputs)
    return (State.SKIPPED, ALL_SKIPPED) if skipped else None
