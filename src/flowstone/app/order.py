"""An order: a request to place work, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypedDict

from flowstone.core.step import Target
from flowstone.errors import OptionsError, did_you_mean
from flowstone.protocols import Executor

NORMAL_PRIORITY = 4
BACKFILL_PRIORITY = 8
BACKFILL_QUEUE = "backfill"


class How(TypedDict, total=False):
    """Options that every verb takes.

    Attributes:
        executor: `auto` (Oban with a database, else sync), `sync`, `async`, `serial`, `oban`, a registered
            name, or an executor object.
        executor_opts: options for this call; `retry=True` makes inline executors follow the retry policy.
        force: compute the targets even though a committed success exists.
        run_id: id for the run; the same id again answers with the same run.
        priority: 0 (first) to 9.
    """

    executor: str | Executor
    executor_opts: Mapping[str, Any] | None
    force: bool
    run_id: str | None
    priority: int | None


@dataclass(slots=True, kw_only=True)
class Order:
    """A request to place work.

    Args:
        kind: the verb.
        selection: what was asked for, for people.
        targets: (asset, encoded partition) pairs.
        executor: name or object; `auto` chooses.
        executor_opts: options for this call.
        expand: see `flowstone.engine.planner.Request`.
        force: recompute the targets.
        force_deps: recompute what is upstream too.
        run_id: id for the run; made when None.
        priority: 0 (first) to 9; the asset's own, else the verb's, when None.
        queue: queue to use instead of the asset's.
        max_concurrency: most steps at once.
        scheduled_at: earliest start.
        watched: whether somebody waits for the end.
        retry_of: run whose failures this order repeats.
        now: time that decides which partitions are complete; the present when None.
    """

    kind: str
    selection: str
    targets: Sequence[Target]
    executor: str | Executor = "auto"
    executor_opts: Mapping[str, Any] | None = None
    expand: Collection[str] | None = ()
    force: bool = False
    force_deps: bool = False
    run_id: str | None = None
    priority: int | None = None
    queue: str | None = None
    max_concurrency: int | None = None
    scheduled_at: datetime | None = None
    watched: bool = True
    retry_of: str | None = None
    now: datetime | None = None

    @classmethod
    def of(cls, kind: str, selection: str, targets: Sequence[Target], how: How) -> Self:
        """Make an order from the options of a verb.

        Raises:
            OptionsError: an option is unknown or cannot work.
        """
        for name in how:
            if name not in How.__annotations__:
                raise OptionsError(f"{kind}() has no option {name!r}.{did_you_mean(name, How.__annotations__)}")
        order = cls(kind=kind, selection=selection, targets=targets, **how)
        priority = order.priority
        if priority is not None and (isinstance(priority, bool) or priority not in range(10)):
            raise OptionsError(f"priority={priority!r}: give a whole number from 0 (first) to 9.")
        if order.run_id is not None and (not order.run_id or len(order.run_id) > 200 or "\x00" in order.run_id):
            raise OptionsError(f"run_id={order.run_id!r}: give 1 to 200 characters.")
        return order
