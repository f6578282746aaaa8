"""`flow.bulk`: one action on all runs that match a filter, with a preview that says on how many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.runs import AnyRun, RunsView
from flowstone.app.targets import texts, whole_number
from flowstone.core.bulk import BulkAction, BulkDone, BulkPreview, has_moved
from flowstone.core.declaring import shown, view
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import ACTIVE, State
from flowstone.core.step import StepRecord
from flowstone.errors import CountMovedError, FlowStoneError, OptionsError, did_you_mean
from flowstone.protocols import Executor

type AnyFilter = RunFilter | str
"""A filter, or the text of one."""

_MAX_RUNS = 10_000
_MAX_RETRIES = 500
_SHOWN = 5


@view("flow.bulk")
class BulkView:
    """Cancel, retry or reprioritize all runs that match, by statement and not one by one.

    `preview` says what the filter means now and how many runs match; the action is given that number as
    `expected`, and is refused when by then the number has moved by more than a tenth.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def one():
        ...     return 1
        >>> flow = FlowStone.for_testing([one])
        >>> preview = flow.bulk.preview("cancel", "asset:one")
        >>> preview.number, flow.bulk.cancel(preview.filter, expected=preview.number).number
        (0, 0)
    """

    def __init__(self, parts: Parts, runs: RunsView) -> None:
        self._parts = parts
        self._runs = runs

    def preview(self, action: BulkAction | str, filter: AnyFilter) -> BulkPreview:
        """Return what an action would be done to: the exact filter, and how many runs match.

        Args:
            action: `cancel`, `retry` or `priority`.
            filter: such as `kind:backfill asset:orders since:24h`.

        Raises:
            OptionsError: the filter or the action cannot be read.
        """
        found, requested = self._read(action, filter)
        number = self._parts.store.insights.runs.count(requested, limit=_MAX_RUNS + 1)
        return BulkPreview(found.value, str(requested), number)

    def cancel(self, filter: AnyFilter, *, expected: int) -> BulkDone:
        """Cancel all runs that match and are not over; running steps are signalled.

        Args:
            filter: which; `filter` of the preview.
            expected: how many; `number` of the preview.

        Raises:
            CountMovedError: so many more, or fewer, match by now that a person has to be asked again.
            OptionsError: the filter cannot be read, or too many runs match.
        """
        requested, matching = self._matching(BulkAction.CANCEL, filter, expected)
        details = {"filter": str(requested), "runs": len(matching)}
        running = self._parts.store.bulk.cancel_runs(matching, details)
        self._runs.reach(running)
        return BulkDone(BulkAction.CANCEL.value, str(requested), len(matching))

    def retry(self, filter: AnyFilter, *, expected: int, executor: str | Executor = "auto") -> BulkDone:
        """Run again what all matching runs did not get done, each as a new run that goes on by itself.

        Args:
            filter: which; `filter` of the preview.
            expected: how many; `number` of the preview.
            executor: a durable one.

        Raises:
            CountMovedError: so many more, or fewer, match by now that a person has to be asked again.
            OptionsError: the filter cannot be read, or more runs match than are retried at once.
        """
        requested, matching = self._matching(BulkAction.RETRY, filter, expected, maximum=_MAX_RETRIES)
        if matching:
            details = {"filter": str(requested), "runs": len(matching)}
            self._parts.store.audit.note("runs.retried", "runs", details)
        placed, skipped = [], []
        for run_id in matching:
            try:
                placed.append(self._runs.retry(run_id, executor=executor, wait=False).id)
            except FlowStoneError as error:
                skipped.append(f"{run_id}: {error}")
        if skipped and not placed:
            raise OptionsError(f"None of {len(matching):,} runs can be retried. {skipped[0]}")
        return BulkDone(
            BulkAction.RETRY.value, str(requested), len(placed), tuple(placed), tuple(skipped[:_SHOWN])
        )

    def set_priority(self, filter: AnyFilter, priority: int, *, expected: int) -> BulkDone:
        """Give all matching runs that are not over another priority.

        Args:
            filter: which; `filter` of the preview.
            priority: 0 (first) to 9.
            expected: how many; `number` of the preview.

        Raises:
            CountMovedError: so many more, or fewer, match by now that a person has to be asked again.
            OptionsError: the filter or the priority cannot be read, or too many runs match.
        """
        whole_number("priority", priority, minimum=0, maximum=9)
        requested, matching = self._matching(BulkAction.PRIORITY, filter, expected)
        details = {"filter": str(requested), "runs": len(matching)}
        number = self._parts.store.bulk.set_priority(matching, priority, details) if matching else 0
        return BulkDone(BulkAction.PRIORITY.value, str(requested), number)

    def count_steps(self, run_id: AnyRun, *, states: Iterable[State] = (), assets: Iterable[str] = ()) -> int:
        """Return how many steps `cancel_steps` would cancel."""
        return len(self._steps(self._runs.get(run_id).id, _states(states), texts("assets", assets)))

    def cancel_steps(
        self, run_id: AnyRun, *, states: Iterable[State] = (), assets: Iterable[str] = (), expected: int
    ) -> BulkDone:
        """Cancel some steps of a run, such as those of one asset; the rest of it goes on.

        Partitions of a large backfill that no worker has begun are no steps yet: they go on.

        Args:
            run_id: the run.
            states: only in these states; all that are not over when empty.
            assets: only of these assets; all when empty.
            expected: how many, as `count_steps` said.

        Raises:
            RunNotFoundError: there is no such run.
            CountMovedError: so many more, or fewer, match by now that a person has to be asked again.
        """
        identifier, named, chosen = self._runs.get(run_id).id, texts("assets", assets), _states(states)
        steps = self._steps(identifier, chosen, named)
        what = f"steps of run {identifier}"
        self._check(whole_number("expected", expected, minimum=0), len(steps), what)
        if steps:
            details = {"assets": list(named) or None, "states": [one.value for one in chosen] or None}
            self._runs.reach(self._parts.store.bulk.cancel_steps(identifier, [one.id for one in steps], details))
        return BulkDone(BulkAction.CANCEL.value, what, len(steps))

    def _steps(self, run_id: str, states: Sequence[State], assets: Sequence[str]) -> list[StepRecord]:
        chosen = [one for one in ACTIVE if not states or one in states]
        if not chosen:
            return []
        return self._parts.store.insights.runs.steps(run_id, states=chosen, assets=assets, limit=1_000_000)

    def _read(self, action: BulkAction | str, filter: AnyFilter) -> tuple[BulkAction, RunFilter]:
        try:
            found = BulkAction(action)
        except ValueError:
            known = [one.value for one in BulkAction]
            meant = did_you_mean(str(action), known) or f" Actions are {', '.join(known)}."
            raise OptionsError(f"{action!r} is no action on runs.{meant}") from None
        requested = RunFilter.of(filter)
        return found, found.of(requested).at(datetime.now(UTC))

    def _matching(
        self,
        action: BulkAction,
        filter: AnyFilter,
        expected: int,
        *,
        maximum: int = _MAX_RUNS,
    ) -> tuple[RunFilter, list[str]]:
        """Return the filter and the runs that match, if these are about as many as a person agreed to."""
        whole_number("expected", expected, minimum=0)
        _, requested = self._read(action, filter)
        found = self._parts.store.bulk.matching(requested, datetime.now(UTC), limit=maximum + 1)
        if len(found) > maximum:
            raise OptionsError(
                f"More than {maximum:,} runs match {str(requested)!r}. Narrow it (since:24h) and do it in parts."
            )
        self._check(expected, len(found), str(requested))
        return requested, found

    def _check(self, expected: int, found: int, what: str) -> None:
        if has_moved(expected, found):
            raise CountMovedError(expected, found, what)


class AsyncBulkView(AsyncFlowStone):
    """`flow.aio.bulk`: the verbs of `flow.bulk`, awaitable."""

    preview = awaitable(BulkView.preview)
    cancel = awaitable(BulkView.cancel)
    retry = awaitable(BulkView.retry)
    set_priority = awaitable(BulkView.set_priority)
    count_steps = awaitable(BulkView.count_steps)
    cancel_steps = awaitable(BulkView.cancel_steps)


def _states(given: Iterable[State]) -> tuple[State, ...]:
    """Return states of steps.

    Raises:
        OptionsError: one is none.
    """
    listed = texts("states", given)
    for one in listed:
        if one not in set(State):
            hint = did_you_mean(one, [state.value for state in State])
            raise OptionsError(f"states=[{shown(one)}]: no step has such a state.{hint}")
    return tuple(State(one) for one in listed)
