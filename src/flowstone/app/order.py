"""An order: a request to place work, checked, built once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flowstone.app.details import NOTHING, Given
from flowstone.app.partition_targets import PartitionTargets
from flowstone.core.run_details import RunDetails
from flowstone.core.step import Target
from flowstone.errors import OptionsError
from flowstone.executors.options import NO_PLACING_OPTIONS, PlacingOptions, placing_options
from flowstone.protocols import Executor

NORMAL_PRIORITY = 4
BACKFILL_PRIORITY = 8
BACKFILL_QUEUE = "backfill"
_WIDEST = 1_000_000
_FLAGS = ("force", "force_deps", "allow_incomplete", "wait_for_inputs")


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
        priority: 0 (first) to 9; when None `usual_priority`, else the asset's own.
        usual_priority: the priority of the verb, when it has one.
        queue: queue to use instead of the asset's.
        max_concurrency: most steps at once.
        scheduled_at: earliest start.
        watched: whether a caller waits for the end.
        retry_of: run whose failures this order repeats.
        wait_for_inputs: whether steps wait for inputs that nobody is about to make; None leaves that to the verb:
            a request that is waited for does not, durable work that was only placed does.
        explicit: names of the assets whose partitions were said: one that is not over is refused; of the others it
            is left out.
        allow_incomplete: compute partitions that are not over.
        now: time that decides which partitions are complete; the present when None.
        given: what the request says of its run.
        details: the same of an earlier run, checked already, which this one repeats.
        placing: what the options of the call say about how its jobs are placed.

    Raises:
        OptionsError: an option cannot work.
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
    usual_priority: int | None = None
    queue: str | None = None
    max_concurrency: int | None = None
    scheduled_at: datetime | None = None
    watched: bool = True
    retry_of: str | None = None
    wait_for_inputs: bool | None = None
    explicit: Collection[str] = ()
    allow_incomplete: bool = False
    now: datetime | None = None
    given: Given = NOTHING
    details: RunDetails | None = None
    placing: PlacingOptions = NO_PLACING_OPTIONS

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets that are asked for."""
        if isinstance(self.targets, PartitionTargets):
            return (self.targets.asset,)
        if len(self.targets) == 1:
            return (self.targets[0][0],)
        return tuple(dict.fromkeys(asset for asset, _ in self.targets))

    def __post_init__(self) -> None:
        waits = True if self.wait_for_inputs is None else self.wait_for_inputs
        flags = (self.force, self.force_deps, self.allow_incomplete, waits)
        for name, flag in zip(_FLAGS, flags, strict=True):
            if flag is not True and flag is not False:
                raise OptionsError(f"{name}={flag!r}: give True or False.")
        if self.executor_opts is not None:
            _check_names("executor_opts", self.executor_opts)
        width = self.max_concurrency
        if width is not None and (type(width) is not int or not 1 <= width <= _WIDEST):
            raise OptionsError(f"max_concurrency={width!r}: give a whole number from 1 to {_WIDEST:,}, or None.")
        priority = self.priority
        if priority is not None and (isinstance(priority, bool) or priority not in range(10)):
            raise OptionsError(f"priority={priority!r}: give a whole number from 0 (first) to 9.")
        if self.run_id is not None and not _is_run_id(self.run_id):
            raise OptionsError(f"run_id={self.run_id!r}: give 1 to 200 printable characters.")
        if self.scheduled_at is not None and not isinstance(self.scheduled_at, datetime):
            raise OptionsError(
                f"scheduled_at={self.scheduled_at!r}: give a datetime with a time zone, such as "
                "datetime.now(UTC) + timedelta(hours=1)."
            )
        if self.scheduled_at is not None and self.scheduled_at.tzinfo is None:
            raise OptionsError(
                f"scheduled_at={self.scheduled_at!r} has no time zone; write datetime(..., tzinfo=UTC)."
            )

    def with_options(self, options: Mapping[str, Any]) -> Order:
        """Return this order with what the options of its call say about how its jobs are placed.

        Args:
            options: those that an executor with a queue takes.

        Raises:
            OptionsError: one of them cannot work, or says again what the call says itself.
        """
        placing = placing_options(options)
        for name in ("priority", "scheduled_at"):
            value, again = getattr(self, name), getattr(placing, name)
            if value is not None and again is not None:
                twice = f"{name}={value!r} and executor_opts={{{name!r}: {again!r}}}"
                raise OptionsError(f"{twice} say the same thing twice; leave one of them out.")
        priority = self.priority if placing.priority is None else placing.priority
        later = self.scheduled_at if placing.scheduled_at is None else placing.scheduled_at
        return replace(self, placing=placing, priority=priority, scheduled_at=later)


def _check_names(option: str, given: object) -> None:
    """Refuse what is no mapping of names to values.

    Raises:
        OptionsError: says what it is.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise OptionsError(f"{option}={given!r}: give a mapping of names to values, such as {{'retry': True}}.")


def _is_run_id(given: object) -> bool:
    return isinstance(given, str) and 1 <= len(given) <= 200 and given.isprintable()
