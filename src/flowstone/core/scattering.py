"""The items of a scatter as stores know them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import InputVersion

SCATTER_KIND = "scatter"
"""Kind of the runs that consist of items."""

DEFAULT_QUEUE = "assets"


def items_run(step_id: int) -> str:
    """Return the id of the run of the items that a step discovers: the same for each of its attempts.

    Example:
        >>> items_run(7)
        'scatter-7'
    """
    return f"scatter-{step_id}"


def allowed_failures(maximum: float, total: int) -> int:
    """Return how many items may fail.

    Args:
        maximum: a number of items (int), or their share of all (float, 0 to 1).
        total: number of items.

    Example:
        >>> allowed_failures(0.29, 100), allowed_failures(5, 100)
        (29, 5)
    """
    # a little above, because 0.29 * 100 is a little below 29
    return math.floor(maximum * total + 1e-9) if type(maximum) is float else int(maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScatter:
    """What the steps of the items are to be like.

    Args:
        asset: name of the asset of the items.
        selection: what the run of the items is called for people.
        max_concurrency: most items placed at once in the fleet.
        max_failures: how many items may fail, when that is known before they are discovered.
        max_attempts: attempts of each item, when there are any repeats.
        repeats: whether repeats were asked for on an executor that makes none by itself.
        queue: queue of the items; the default one follows the step of a scatter that follows a backfill.
        follows_queue: whether the queue of the step serves instead of the default one.
        priority: priority of the items; None for that of the step.
        limits: named limits of the items.
        own_limits: names of the limits of the step that are not for its items.
        code_version: version of the items' code.
    """

    asset: str
    selection: str
    max_concurrency: int
    max_failures: int | None
    max_attempts: int
    repeats: bool
    queue: str
    follows_queue: bool
    priority: int | None
    limits: Mapping[str, int | str]
    own_limits: frozenset[str] = frozenset()
    code_version: str | None = None

    def limits_with(self, step: Mapping[str, int | str] | None) -> dict[str, int | str] | None:
        """Return the limits of an item: its own, and those that the executor put on the step."""
        extra = {name: value for name, value in (step or {}).items() if name not in self.own_limits}
        return {**self.limits, **extra} or None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterRecord:
    """A scatter: the step that discovers and gathers, and the run of its items.

    Args:
        run_id: the run of the items.
        step_id: the step.
        is_open: whether items are still being discovered.
        is_over: whether all items are over.
        total: number of items, when all are discovered.
        allowed: how many items may fail, when that is known.
        inputs: exact versions that the discovery read.
    """

    run_id: str
    step_id: int
    is_open: bool
    is_over: bool
    total: int | None = None
    allowed: int | None = None
    inputs: tuple[InputVersion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenScatter:
    """The right of one attempt to add items.

    Args:
        new: what was asked for.
        run_id: the run of the items.
        step_id: the step.
        token: fencing token of the attempt; items are added under it.
        parent_key: encoded partition of the step.
        queue: queue of the items.
        priority: their priority.
        max_attempts: their attempts.
        limits: their named limits.
        durable: whether they are placed on a queue.
        previous: for the retry of a run: the scatter whose failures are repeated.
        is_blocked: whether cancelled items of an earlier run have not ended yet.
    """

    new: NewScatter
    run_id: str
    step_id: int
    token: int
    parent_key: str
    queue: str
    priority: int
    max_attempts: int
    limits: dict[str, int | str] | None
    durable: bool
    previous: ScatterRecord | None = None
    is_blocked: bool = False


class NewItem(NamedTuple):
    """An item to be added.

    Args:
        position: in the order of discovery, from 0.
        partition: encoded pair of partition and key, unique in the scatter.
        item: its text, see `flowstone.core.items`.
    """

    position: int
    partition: str
    item: str


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item and how it ended.

    Args:
        position: in the order of discovery.
        step_id: its step.
        partition: encoded pair of partition and key.
        item: its text.
        state: its state.
        attempt: how many attempts it took.
        stored: its value, when it has one.
        error: text of its error.
        error_type: class of its error.
    """

    position: int
    step_id: int
    partition: str
    item: str
    state: State
    attempt: int = 0
    stored: StoredOutput | None = None
    error: str | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """How many items of a scatter are in each state."""

    by_state: Mapping[State, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of items."""
        return sum(self.by_state.values())

    @property
    def succeeded(self) -> int:
        """Number of items with a value."""
        return self.by_state.get(State.COMPLETED, 0) + self.by_state.get(State.REUSED, 0)

    @property
    def failed(self) -> int:
        """Number of items that failed."""
        return self.by_state.get(State.FAILED, 0) + self.by_state.get(State.UPSTREAM_FAILED, 0)

    @property
    def cancelled(self) -> int:
        """Number of items that were cancelled."""
        return self.by_state.get(State.CANCELLED, 0)

    @property
    def skipped(self) -> int:
        """Number of items that had nothing to do."""
        return self.by_state.get(State.SKIPPED, 0)


WITH_VALUE = (State.COMPLETED, State.REUSED)
WITHOUT_VALUE = (State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED)
