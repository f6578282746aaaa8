"""What automations ask of a store, and of the engine that evaluates them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from flowstone.core.automation.facts import Reads, TargetStatus
from flowstone.core.automation.record import (
    AutomationId,
    AutomationRecord,
    Concluded,
    Conclusion,
    PreparedRun,
    RunKey,
    TakenAutomation,
    TickRecord,
)
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.partitions import PartitionKey
from flowstone.core.step import Target


class AutomationStore(Protocol):
    """Records automations and their ticks; every method is one transaction.

    The store's clock decides what is due. Any number of nodes may ask at once: each due automation is taken
    by one of them, under a lease, and only that one can conclude.
    """

    def use_clock(self, now: Callable[[], datetime]) -> None:
        """Take this clock from here on in place of the store's: for tests."""

    def declare(self, automations: Sequence[AutomationId], *, paused: Collection[AutomationId] = ()) -> None:
        """Make a row for each automation that has none, due at once; those in `paused` begin paused."""

    def take(
        self,
        automations: Sequence[AutomationId],
        *,
        lease_seconds: float,
        limit: int = 1,
        by_hand_only: bool = False,
    ) -> list[TakenAutomation]:
        """Take automations of these that are due, not paused and evaluated by nobody else, the longest due first.

        An evaluation whose lease ran out may be taken by others. One that was asked for by hand is due even
        while paused, and `by_hand_only` takes no others.
        """

    def renew(self, taken: Sequence[TakenAutomation]) -> None:
        """Prolong the leases of evaluations that go on; those that others took over stay lost."""

    def conclude(self, taken: TakenAutomation, conclusion: Conclusion) -> Concluded:
        """Record ticks, runs, run keys, partitions and cursor in one transaction, if the right still holds.

        A tick at an instant that is recorded already is left out with all it asks for.
        """

    def release(self, taken: TakenAutomation) -> None:
        """End the right to evaluate without a conclusion: the automation is due as it was."""

    def request(self, automation: AutomationId) -> None:
        """Have an automation evaluated now, once, even while paused."""

    def set_paused(self, automation: AutomationId, *, paused: bool) -> bool:
        """Pause or resume; return whether that changed anything."""

    def set_cursor(self, automation: AutomationId, cursor: str | None) -> None:
        """Set the cursor by hand; an evaluation at work concludes nothing then."""

    def record(self, automation: AutomationId) -> AutomationRecord | None:
        """Return an automation."""

    def records(self) -> list[AutomationRecord]:
        """Return all automations that were ever declared, by kind and name."""

    def ticks(self, automation: AutomationId | None = None, *, limit: int = 50) -> list[TickRecord]:
        """Return the newest ticks, of one automation or of all."""

    def run_keys(self, automation: AutomationId, *, key: str | None = None, limit: int = 100) -> list[RunKey]:
        """Return the run keys that an automation has used, the newest first; all, or this one."""

    def forget_run_keys(self, automation: AutomationId, keys: Sequence[str]) -> list[str]:
        """Let run keys trigger again; return those that had been used. Their runs stay recorded."""

    def prune_ticks(self, *, older_than_seconds: float, dry_run: bool = False) -> int:
        """Forget ticks that were evaluated long ago; return how many. Run keys are never forgotten.

        With `dry_run` nothing is forgotten.
        """


class TargetStatuses(Protocol):
    """What conditions are judged by; every question is about many targets at once."""

    def status(self, targets: Sequence[Target]) -> dict[Target, TargetStatus]:
        """Return how each target stands that was ever asked for."""

    def reads(self, step_ids: Sequence[int]) -> dict[int, Reads]:
        """Return what each step had read that committed, or ended for good without a result.

        A step that read nothing is left out; so is what is no longer recorded.
        """

    def active(self, assets: Sequence[str]) -> dict[str, int]:
        """Return how many steps of each of these assets are not over; assets without are left out."""


class Evaluator(Protocol):
    """An automation of the app that a node can evaluate."""

    @property
    def id(self) -> AutomationId:
        """Kind and name."""

    @property
    def starts_paused(self) -> bool:
        """Whether it begins paused when it is declared for the first time."""

    @property
    def timeout_seconds(self) -> float:
        """How long one evaluation may take before it is given up."""

    def evaluate(self, taken: TakenAutomation) -> Iterator[Conclusion]:
        """Yield conclusions, each committed before the next one is asked for; the last one has `goes_on=False`.

        Whatever it raises is recorded as a failed tick; cursor and due instants stay, and it is tried again
        with backoff.
        """


class PrepareRun(Protocol):
    """What the app hands evaluators: it plans and checks a request without recording anything."""

    def __call__(self, request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None) -> PreparedRun:
        """Return the run, planned for the worker queue.

        Args:
            request: what is requested.
            run_id: id for the run; the same id again is the same run.
            kind: who asks, such as `schedule`.
            now: time that decides which partitions are complete; the present when None.

        Raises:
            FlowStoneError: it cannot work; says why.
        """


class PrepareTargets(Protocol):
    """What the app hands conditions: it plans some partitions of one asset without recording anything."""

    def __call__(
        self,
        asset: str,
        partitions: Sequence[PartitionKey],
        *,
        run_id: str,
        kind: str,
        max_concurrency: int | None = None,
    ) -> PreparedRun:
        """Return the run, planned for the worker queue; the partitions are computed although committed.

        Args:
            asset: asset name.
            partitions: encoded partitions.
            run_id: id for the run; the same id again is the same run.
            kind: who asks, such as `condition`.
            max_concurrency: most of its steps at once in the fleet.

        Raises:
            FlowStoneError: it cannot work; says why.
        """
