"""Items that steps discover, in the in-memory store."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from flowstone.core.outcome import Scattered
from flowstone.core.scatter import (
    SCATTER_KIND,
    ItemCounts,
    ItemRow,
    NewItem,
    NewScatter,
    OpenScatter,
    ScatterRecord,
    items_run,
)
from flowstone.core.state import State
from flowstone.core.step import InputVersion, NewRun, NewStep
from flowstone.protocols import ScatterStore
from flowstone.stores.memory.approvals import MemoryApprovals
from flowstone.stores.memory.tables import RunRow, ScatterRow, StepRow, Tables


@dataclass(slots=True)
class _Item:
    """An item: where it stands, which attempt found it last, its text, its step."""

    position: int
    token: int
    text: str
    step: StepRow


@dataclass(slots=True)
class _Scatter(ScatterRow):
    """A scatter with its items by their partition."""

    token: int = 0
    total: int | None = None
    inputs: tuple[InputVersion, ...] = ()
    items: dict[str, _Item] = field(default_factory=dict)
    order: list[_Item] = field(default_factory=list)


class MemoryScatters(ScatterStore):
    """Implements `flowstone.protocols.ScatterStore` over dictionaries.

    Args:
        tables: the data of the store, whose lock makes a method a transaction.
        approvals: cancels items, which may wait for one.
    """

    def __init__(self, tables: Tables, approvals: MemoryApprovals) -> None:
        self._tables = tables
        self._approvals = approvals
        self._by_step: dict[int, _Scatter] = {}
        self._by_run: dict[str, _Scatter] = {}

    def forget(self, step_ids: Collection[int]) -> None:
        """Drop the scatters of steps that are forgotten; called with the lock held."""
        for step_id in step_ids:
            scatter = self._by_step.pop(step_id, None)
            if scatter is not None:
                self._by_run.pop(scatter.run_id, None)

    def erase(self, step_ids: Collection[int]) -> None:
        """Take out what items say; called with the lock held."""
        for scatter in self._by_run.values():
            for item in scatter.order:
                if item.step.id in step_ids:
                    item.text = "null"

    def begin(self, step_id: int, token: int, new: NewScatter) -> OpenScatter | None:
        with self._tables.changed:
            step = self._step(step_id, token)
            if step is None:
                return None
            run = self._tables.runs[step.run_id].new
            previous = self._previous(step, run.retry_of)
            scatter = self._by_step.get(step_id)
            if scatter is None:
                scatter = self._open(step, run, new)
                scatter.inputs = previous.inputs if previous else ()
            scatter.token = token
            return OpenScatter(
                new=new,
                run_id=scatter.run_id,
                step_id=step_id,
                token=token,
                parent_key=step.partition_key,
                queue=step.new.queue if new.follows_queue else new.queue,
                priority=step.priority if new.priority is None else new.priority,
                max_attempts=new.max_attempts if run.durable or new.repeats else 1,
                limits=new.limits_with(step.new.limits),
                durable=run.durable,
                previous=self._record(previous) if previous else None,
                is_blocked=self._is_blocked(step),
            )

    def add(self, scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
        with self._tables.changed:
            if self._step(scatter.step_id, scatter.token) is None:
                return None
            ours = self._by_step[scatter.step_id]
            if ours.is_exceeded:
                return False
            seen: set[str] = set()
            for new in items:
                known = ours.items.get(new.partition_key)
                if new.partition_key in seen or (known is not None and known.token == scatter.token):
                    raise LookupError(new.position)
                seen.add(new.partition_key)
            for new in items:
                known = ours.items.get(new.partition_key)
                if known is not None:
                    known.position, known.token = new.position, scatter.token
                else:
                    step = self._place(scatter, new)
                    ours.items[new.partition_key] = _Item(new.position, scatter.token, new.item, step)
            self._tables.announce()
            return True

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, ScatterRecord]:
        with self._tables.changed:
            return {one: self._record(self._by_step[one]) for one in step_ids if one in self._by_step}

    def of_run(self, run_id: str) -> ScatterRecord | None:
        with self._tables.changed:
            found = self._by_run.get(run_id)
            return self._record(found) if found else None

    def items(self, step_ids: Sequence[int]) -> dict[int, str]:
        with self._tables.changed:
            rows = [self._tables.steps[one] for one in step_ids if one in self._tables.steps]
            return {
                row.id: self._by_run[row.run_id].items[row.partition_key].text
                for row in rows
                if row.run_id in self._by_run and row.partition_key in self._by_run[row.run_id].items
            }

    def page(self, run_id: str, *, after: int, limit: int, states: Collection[State]) -> list[ItemRow]:
        with self._tables.changed:
            ours = self._by_run.get(run_id)
            if ours is None:
                return []
            order = sorted(ours.items.values(), key=_position) if ours.is_open else ours.order
            rest = islice(order, bisect_right(order, after, key=_position), None)
            return [_row(one) for one in islice((one for one in rest if one.step.state in states), limit)]

    def counts(self, run_id: str) -> ItemCounts:
        with self._tables.changed:
            ours = self._by_run.get(run_id)
            return ItemCounts(Counter(one.step.state for one in ours.items.values()) if ours else {})

    # --- called by the ledger, with the lock held -----------------------------------------------------------

    def close(self, step: StepRow, outcome: Scattered, inputs: tuple[InputVersion, ...], now: datetime) -> None:
        """Let a step rest whose items are all discovered; the attempt is released."""
        step.attempt -= 1
        step.token = 0
        step.state, step.reason = State.WAITING, outcome.reason
        ours = self._by_step[step.id]
        if ours.is_open:
            ours.is_open = False
            ours.total, ours.allowed, ours.inputs = outcome.total, outcome.allowed, ours.inputs or inputs
            gone_keys = [key for key, item in ours.items.items() if item.token != ours.token]
            for key in gone_keys if outcome.is_complete else ():
                gone = ours.items.pop(key).step
                ours.failures -= gone.state is State.FAILED
                self._approvals.cancel(gone, now)
            ours.order = sorted(ours.items.values(), key=_position)
            self._tables.runs[ours.run_id].open -= 1
        self._examine(ours, now)

    def after_end(self, row: StepRow, now: datetime) -> None:
        """Do what follows for a scatter when a step is over."""
        of_item, own = self._by_run.get(row.run_id), self._by_step.get(row.id)
        if of_item is not None:
            of_item.failures += row.state is State.FAILED and row.partition_key in of_item.items
            self._examine(of_item, now)
        if own is not None and row.state is not State.COMPLETED:
            if own.is_open:
                own.is_open = False
                self._tables.runs[own.run_id].open -= 1
            self._stop(own, now)

    # --- pieces ---------------------------------------------------------------------------------------------

    def _step(self, step_id: int, token: int) -> StepRow | None:
        step = self._tables.steps.get(step_id)
        return step if step is not None and step.token == token and step.state is State.RUNNING else None

    def _open(self, step: StepRow, run: NewRun, new: NewScatter) -> _Scatter:
        opened = NewRun(
            id=items_run(step.id),
            kind=SCATTER_KIND,
            selection=new.selection,
            executor=run.executor,
            created_at=datetime.now(UTC),
            durable=run.durable,
            priority=step.priority,
            max_concurrency=new.max_concurrency,
            deps_timeout_seconds=run.deps_timeout_seconds,
            parent=run.id,
            details=run.details,
        )
        row = self._tables.runs[opened.id] = RunRow(opened)
        row.open = 1
        row.scatter = ours = _Scatter(opened.id, step.id, allowed=new.max_failures)
        self._by_step[step.id] = self._by_run[opened.id] = ours
        self._tables.after_end = self.after_end
        return ours

    def _place(self, scatter: OpenScatter, new: NewItem) -> StepRow:
        tables = self._tables
        run = tables.runs[scatter.run_id]
        planned = NewStep(
            scatter.new.asset,
            new.partition_key,
            queue=scatter.queue,
            priority=scatter.priority,
            max_attempts=scatter.max_attempts,
            forced=True,
            code_version=scatter.new.code_version,
            limits=scatter.limits,
        )
        row = StepRow(next(tables.step_ids), run.new, planned, State.PENDING)
        row.created_at = datetime.now(UTC)
        tables.steps[row.id] = run.steps[row.asset, row.partition_key] = row
        tables.by_asset[row.asset].append(row.id)
        before = self._by_run[scatter.previous.run_id].items.get(new.partition_key) if scatter.previous else None
        if before is not None and before.text == new.item and before.step.state.is_success:
            row.state, row.finished_at = State.REUSED, row.created_at
            row.output_step, row.stored = before.step.output_step, before.step.stored
        else:
            tables.active[row.asset, row.partition_key] = row.id
            run.open += 1
        return row

    def _previous(self, step: StepRow, retry_of: str | None) -> _Scatter | None:
        run = self._tables.runs.get(retry_of) if retry_of else None
        before = run.steps.get((step.asset, step.partition_key)) if run else None
        return self._by_step.get(before.id) if before else None

    def _is_blocked(self, step: StepRow) -> bool:
        earlier = (one for one in self._tables.by_asset[step.asset] if one < step.id and one in self._by_step)
        return any(
            self._tables.steps[one].partition_key == step.partition_key and self._tables.runs[items_run(one)].open
            for one in earlier
        )

    def _examine(self, ours: _Scatter, now: datetime) -> None:
        """Stop a scatter that failed too often; let its step go on when the last item is over."""
        if ours.is_exceeded and not ours.is_stopped:
            ours.is_stopped = True
            self._stop(ours, now)
        step = self._tables.steps[ours.step_id]
        if not self._tables.runs[ours.run_id].open and step.state is State.WAITING:
            step.state, step.reason = State.PENDING, None

    def _stop(self, ours: _Scatter, now: datetime) -> None:
        for item in list(ours.items.values()):
            if not item.step.state.is_terminal:
                self._approvals.cancel(item.step, now)

    def _record(self, ours: _Scatter) -> ScatterRecord:
        return ScatterRecord(
            run_id=ours.run_id,
            step_id=ours.step_id,
            is_open=ours.is_open,
            is_over=not self._tables.runs[ours.run_id].open,
            total=ours.total,
            allowed=ours.allowed,
            inputs=ours.inputs,
        )


def _position(one: _Item) -> int:
    return one.position


def _row(one: _Item) -> ItemRow:
    step = one.step
    return ItemRow(
        position=one.position,
        step_id=step.id,
        partition_key=step.partition_key,
        item=one.text,
        state=step.state,
        attempt=step.attempt,
        stored=step.stored,
        error=step.error,
        error_type=step.error_type,
    )
