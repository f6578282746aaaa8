"""Declaring that something runs at certain times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.automation.record import AutomationId, AutomationKind
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.cron import Cron
from flowstone.core.declaring import checks_options
from flowstone.core.partitions import Partition
from flowstone.core.selection import Selection
from flowstone.errors import DefinitionError, did_you_mean

_MAX_NAME = 120


class CatchUp(StrEnum):
    """How missed instants are made up for: those at which nobody could evaluate."""

    SKIP = "skip"
    """Nothing; they are recorded as skipped."""
    LATEST = "latest"
    """The latest one runs, the others are recorded as skipped."""
    ALL = "all"
    """Each of them runs, the oldest first."""


@checks_options
@dataclass(frozen=True)
class Schedule:
    """Runs assets at the times of a cron expression; worker nodes see to it, each instant exactly once.

    Only the selected assets run: `+name` adds what is upstream.

    Args:
        selection: asset, name or selection expression.
        cron: five fields (minute, hour, day of month, month, day of week), or six with the second in front.
        name: unique in the app; made from the selection by default.
        timezone: IANA name of the zone whose clock the cron expression speaks of.
        partition: function of the instant (aware, in the zone) that returns the partition to run, or None for
            none this time. By default the last partition of the first selected partitioned asset that is
            complete at the instant; all partitions when these are a list.
        catch_up: how missed instants are made up for: `latest` (one run), `skip` (none), `all` (each).
        force: compute the selected assets although they are committed.
        priority: 0 (first) to 9; that of the assets when None.
        max_concurrency: most steps of a run at once in the fleet.
        allow_incomplete: compute the partition of `partition` although it is not over; else that fails the tick.
        paused: begin paused when it is deployed for the first time.
        description: for people.
        tags: for people; listed with the schedule, and carried by its runs.
        config: config of its runs; see `FlowStone.materialize`. So are `metadata`, `io`, `resources`, `hooks` and
            `hooks_config`.

    Raises:
        DefinitionError: the cron expression, the zone, the name or the policy cannot work.
        OptionsError: the priority is not 0 to 9.

    Example:
        >>> from datetime import UTC
        >>> nightly = Schedule("+sales", "30 2 * * *", timezone="Europe/Berlin")
        >>> [str(tick) for tick in nightly.next_ticks(datetime(2024, 3, 30, 12, tzinfo=UTC), 2)]
        ['2024-03-31 03:00:00+02:00', '2024-04-01 02:30:00+02:00']
    """

    selection: Selection
    cron: str
    _: KW_ONLY
    name: str = ""
    timezone: str = "UTC"
    partition: Callable[[datetime], Partition | None] | None = None
    catch_up: str = CatchUp.LATEST
    force: bool = True
    priority: int | None = None
    max_concurrency: int | None = None
    allow_incomplete: bool = False
    paused: bool = False
    description: str = ""
    tags: Iterable[str] = ()
    config: Any = None
    metadata: Mapping[str, Any] | None = None
    io: str | Mapping[str, str] | None = None
    resources: Mapping[str, str] | None = None
    hooks: Iterable[str] = ()
    hooks_config: Mapping[str, Any] | None = None
    times: Cron = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        selection = self.selection
        if not isinstance(selection, str | Asset):
            selection = tuple(selection)
            object.__setattr__(self, "selection", selection)
        object.__setattr__(self, "name", self.name or _text(selection))
        object.__setattr__(self, "tags", tuple(self.tags))
        if not self.name.isprintable() or not 0 < len(self.name) <= _MAX_NAME:
            raise self._error(f"give it a name of 1 to {_MAX_NAME} printable characters.")
        if self.catch_up not in tuple(CatchUp):
            hint = did_you_mean(str(self.catch_up), [one.value for one in CatchUp])
            raise self._error(f"catch_up={self.catch_up!r}: give 'skip', 'latest' or 'all'.{hint}")
        if self.partition is not None and not callable(self.partition):
            raise self._error(f"partition={self.partition!r}: give a function of the instant.")
        try:
            object.__setattr__(self, "times", Cron(self.cron, self.timezone))
        except DefinitionError as error:
            raise self._error(str(error)) from error
        self.request(None)  # refuses options that could not work

    @property
    def id(self) -> AutomationId:
        """What the store knows it by."""
        return AutomationId(AutomationKind.SCHEDULE, self.name)

    def next_ticks(self, instant: datetime, number: int = 5) -> list[datetime]:
        """Return the next instants after this one, as the clock of the zone shows them."""
        return [tick.astimezone(self.times.zone) for tick in self.times.next(instant, number)]

    def request(self, partition: Partition) -> RunRequest:
        """Return what an instant asks for."""
        return RunRequest(
            selection=self.selection,
            partition=partition,
            force=self.force,
            priority=self.priority,
            max_concurrency=self.max_concurrency,
            config=self.config,
            tags=self.tags,
            metadata=self.metadata,
            io=self.io,
            resources=self.resources,
            hooks=self.hooks,
            hooks_config=self.hooks_config,
            allow_incomplete=self.allow_incomplete,
        )

    def _error(self, problem: str) -> DefinitionError:
        return DefinitionError(f"Schedule {self.name!r}: {problem}")


def _text(selection: Selection) -> str:
    several = [selection] if isinstance(selection, str | Asset) else selection
    return ", ".join(one.name if isinstance(one, Asset) else one for one in several)[:_MAX_NAME]
