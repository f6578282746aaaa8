"""Opening a run: its steps, what they wait for, and the first jobs, in one transaction.

`Placing` writes an ordinary run. The second half is for large backfills, kept as ranges of partitions: placed in a
few rows, made into steps as workers begin them (decision 12 in docs/adr).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.limits import Limit, stored_limits
from flowstone.core.state import State
from flowstone.core.step import (
    NewRange,
    NewRun,
    NewStep,
    PlacedStep,
    Target,
    UnstartedTarget,
    over_before_it_begins,
)
from flowstone.errors import PlanOutdatedError, RunConflictError
from flowstone.protocols import RangeStore
from flowstone.sql import load_sql
from flowstone.stores.postgres import oban_jobs, outbox
from flowstone.stores.postgres.audit import note_placed
from flowstone.stores.postgres.catalog import config_hashes
from flowstone.stores.postgres.counters import count_opened, notify_done, record_counts, requested_partitions
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import RunCounters, to_ids, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


_STEPS_PER_STATEMENT = 5000


class HolderLostError(Exception):
    """A step that was to be joined is held by a lost process; once that is ended, placing again makes it anew."""


class OpenedRun(NamedTuple):
    """A run that was recorded, now or by an earlier try.

    Args:
        durable: whether it is on the queue.
        max_concurrency: the size of its window, when it has one.
        is_new: whether it was recorded now.
    """

    durable: bool
    max_concurrency: int | None
    is_new: bool


class JoinedStep(NamedTuple):
    """A step under way for one of some targets; it is locked.

    Args:
        position: place of the target, from 1.
        id: the step.
        run_id: its run.
        state: its state.
        job_id: its row on Oban's queue, when it has one.
        priority: the more urgent one of its own priority and the one that was asked for.
        config_hash: how its run computes it.
    """

    position: int
    id: int
    run_id: str
    state: State
    job_id: int | None
    priority: int
    config_hash: str | None


class CurrentStep(NamedTuple):
    """The committed step that serves one of some targets; its place counts from 1."""

    position: int
    step_id: int


class _Kind(NamedTuple):
    """What many new steps have in common, usually all of an asset, as columns of `insert_steps`."""

    asset: str
    state: State
    waiting_on: int
    priority: int
    queue: str
    max_attempts: int
    forced: bool
    enqueue: bool
    direct: bool
    skips_left: int | None
    code_version: str | None
    scheduled_at: datetime | None
    reason: str | None
    limits: tuple[tuple[str, Limit], ...]
    tags: tuple[str, ...]
    config_hash: str | None

    def row(self, number: int) -> dict[str, object]:
        """Return it as a row, under the number that its steps name."""
        stored = {"kind": number, "limits": stored_limits(dict(self.limits)), "tags": list(self.tags) or None}
        return self._asdict() | stored


@dataclass(slots=True)
class _Chunk:
    """Rows of one statement.

    Args:
        ids: ids of the new steps.
        kinds: what they have in common, with its number.
        enqueued: those that get a job.
    """

    ids: list[int] = field(default_factory=list)
    kinds: dict[_Kind, int] = field(default_factory=dict)
    enqueued: list[int] = field(default_factory=list)
    _kind_of_each: list[int] = field(default_factory=list)
    _partitions: list[str] = field(default_factory=list)
    _reuse: list[int] = field(default_factory=list)

    def add(self, step_id: int, new: NewStep, kind: _Kind) -> None:
        """Add a step."""
        self.ids.append(step_id)
        self._kind_of_each.append(self.kinds.setdefault(kind, len(self.kinds)))
        self._partitions.append(new.partition_key)
        self._reuse.append(new.reuse or 0)
        if kind.enqueue:
            self.enqueued.append(step_id)

    def parameters(self) -> dict[str, object]:
        """Return them as parameters of `insert_steps`."""
        return {
            "ids": to_ids(self.ids),
            "kinds": to_ids(self._kind_of_each),
            "partitions": self._partitions,
            "reuse": to_ids(self._reuse),
            "facts": to_json([kind.row(number) for kind, number in self.kinds.items()]),
        }


class _FoundStep(NamedTuple):
    """A step that was placed before for one of some targets; the place of the target counts from 1."""

    position: int
    id: int
    run_id: str
    state: State
    config_hash: str | None


@dataclass(slots=True)
class Placing:
    """One attempt to place a run.

    Args:
        connection: with a transaction open.
        run: the run.
        steps: its steps, inputs before the steps that read them.
        driver: lease of the process that drives the run, when it is not durable.
        again: whether an earlier attempt found that targets were committed since the plan.
        joins_lost: whether steps are joined although a lost process holds them.
    """

    connection: Connection[TupleRow]
    run: NewRun
    steps: Sequence[NewStep]
    driver: str | None
    again: bool = False
    joins_lost: bool = False
    placed: list[PlacedStep | None] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    joining: set[int] = field(default_factory=set)
    """Positions of what was placed so lately, and is not over, that it is joined whatever the plan says."""
    answered_failures: int = 0
    """Steps that were placed lately, answer for this run, and have failed."""
    queues: set[str] = field(default_factory=set)
    """Where ready steps may begin without jobs."""

    def place(self) -> list[PlacedStep]:
        """Insert everything.

        Raises:
            PlanOutdatedError, HolderLostError: see there; the transaction must be rolled back.
        """
        opened = insert_run(self.connection, self.run, driver=self.driver)
        self.placed = [None] * len(self.steps)
        if not opened.is_new:
            self._find_own()
        if self.run.unique_seconds is not None:
            self._find_recent(self.run.unique_seconds)
        if self.again:
            self._reuse_committed()
        self.ids = self._reserve_ids()
        enqueued = self._insert(opened.durable, opened.max_concurrency)
        for position in (*self._committed_since(), *self._placed_since()):
            raise PlanOutdatedError(*self._target(position))
        joined = self._join()
        self._connect(joined)
        left = sum(one is not None and not one.deduplicated and not one.state.is_terminal for one in self.placed)
        waiting = self._await_joined(joined)
        count_opened(
            self.connection,
            {
                "run_id": self.run.id,
                "opened": left + waiting,
                "total": waiting + sum(one is not None and not one.deduplicated for one in self.placed),
                **requested_partitions(self.run, self.steps),
                "active": len(enqueued) if opened.max_concurrency is not None else 0,
                "failures": sum(
                    one is not None and not one.deduplicated and one.state is State.UPSTREAM_FAILED
                    for one in self.placed
                )
                + self.answered_failures,
            },
        )
        oban_jobs.place(self.connection, enqueued, queues=self.queues)
        if opened.is_new:
            note_placed(self.connection, self.run, len(self.steps))
        new = [one for one in self.placed if one is not None and not one.deduplicated]
        if lost := [one.id for one in new if one.state is State.UPSTREAM_FAILED]:
            outbox.note_lost(self.connection, lost)
        return [one for one in self.placed if one is not None]

    def _find_own(self) -> None:
        parameters = self._targets(range(len(self.steps))) | {"run_id": self.run.id}
        for own in fetch_all(self.connection, _FoundStep, "ledger/own_steps", parameters):
            new = self.steps[own.position - 1]
            if new.same_config and own.config_hash != new.config_hash:
                raise RunConflictError(new.asset, new.partition_key, self.run.id)
            self.placed[own.position - 1] = PlacedStep(own.id, own.run_id, own.state, deduplicated=True)

    def _find_recent(self, seconds: float) -> None:
        """Let steps that were placed lately answer instead of new ones."""
        for position, recent in self._recent(seconds).items():
            if self.placed[position] is not None:
                continue
            found = PlacedStep(recent.id, recent.run_id, recent.state, deduplicated=True)
            if found.state.is_terminal:
                self.placed[position] = found
                self.answered_failures += found.state in (State.FAILED, State.UPSTREAM_FAILED)
            else:
                self.joining.add(position)

    def _placed_since(self) -> list[int]:
        """Return the targets that were placed elsewhere, and are over, since `_find_recent` read them."""
        if self.run.unique_seconds is None:
            return []
        found = self._recent(self.run.unique_seconds).keys() - self.joining
        return [position for position in sorted(found) if self._is_new(position)]

    def _recent(self, seconds: float) -> dict[int, _FoundStep]:
        """Return what was placed lately, in the same way where that matters, by position."""
        parameters = self._targets(range(len(self.steps))) | {"run_id": self.run.id, "seconds": seconds}
        return {
            found.position - 1: found
            for found in fetch_all(self.connection, _FoundStep, "ledger/recent", parameters)
            if not (new := self.steps[found.position - 1]).same_config or found.config_hash == new.config_hash
        }

    def _reuse_committed(self) -> None:
        """Let what was committed between planning and placing serve instead of being computed again."""
        found = self._committed_since()
        if found:
            self.steps = [
                replace(new, reuse=found[position], inputs=()) if position in found else new
                for position, new in enumerate(self.steps)
            ]

    def _committed_since(self) -> dict[int, int]:
        """Return, by position, committed steps of targets that are about to be computed unforced.

        Asked again after the insert: a target whose step ended meanwhile is no longer active, so it would
        be inserted, but then its commit is visible here.
        """
        positions = [
            position
            for position, new in enumerate(self.steps)
            if new.reuse is None and new.skip is None and not new.forced and self._is_new(position)
        ]
        if not positions:
            return {}
        targets = to_json([self._target(position) for position in positions])
        current = fetch_all(self.connection, CurrentStep, "catalog/current", {"targets": targets})
        found = {positions[one.position - 1]: one.step_id for one in current}
        same_config = {step_id for position, step_id in found.items() if self.steps[position].same_config}
        if same_config:
            hashes = config_hashes(self.connection, same_config)
            found = {
                position: step_id
                for position, step_id in found.items()
                if step_id not in same_config or hashes[step_id] == self.steps[position].config_hash
            }
        return found

    def _is_new(self, position: int) -> bool:
        one = self.placed[position]
        return one is None or not one.deduplicated

    def _reserve_ids(self) -> list[int]:
        return fetch_value(self.connection, list[int], "ledger/step_ids", {"number": len(self.steps)}) or []

    def _insert(self, durable: bool, limit: int | None) -> list[int]:
        """Insert what is new, in chunks that keep memory flat; return the steps that got a job."""
        room = limit if limit is not None else len(self.steps)
        placed: list[int] = []
        states: list[State] = []
        for start in range(0, len(self.steps), _STEPS_PER_STATEMENT):
            chunk = self._chunk(start, durable, room - len(placed), states)
            if not chunk.ids:
                continue
            parameters = {"run_id": self.run.id, "created_at": self.run.created_at, **chunk.parameters()}
            inserted = set(fetch_column(self.connection, int, "insert_steps", parameters))
            for position in range(start, min(start + _STEPS_PER_STATEMENT, len(self.steps))):
                if self.ids[position] in inserted:
                    self.placed[position] = PlacedStep(self.ids[position], self.run.id, states[position])
            placed += [step_id for step_id in chunk.enqueued if step_id in inserted]
        return placed

    def _chunk(self, start: int, durable: bool, room: int, states: list[State]) -> _Chunk:
        """Return the rows of one chunk; adds the states of all its steps to `states`."""
        chunk = _Chunk()
        for position in range(start, min(start + _STEPS_PER_STATEMENT, len(self.steps))):
            new = self.steps[position]
            inputs = [self._input_state(read, states) for read in new.inputs]
            waiting_on = sum(not state.is_terminal for state in inputs)
            state = self._state(new, waiting_on)
            ended = None if state is State.REUSED else over_before_it_begins(new, inputs, self._target)
            state = state if ended is None else ended[0]
            states.append(state)
            if self.placed[position] is not None or position in self.joining:
                continue
            # what holds slots of fleet-wide limits, or begins later, needs a job of its own
            direct = self.run.direct and durable and not new.limits and new.scheduled_at is None
            enqueue = durable and not direct and room > 0 and state in (State.PENDING, State.SCHEDULED)
            room -= enqueue
            if direct and state is State.PENDING:
                self.queues.add(new.queue)
            chunk.add(
                self.ids[position],
                new,
                _Kind(
                    new.asset,
                    state,
                    waiting_on,
                    new.priority,
                    new.queue,
                    new.max_attempts,
                    new.forced,
                    enqueue,
                    direct and not state.is_terminal,
                    len(inputs) - inputs.count(State.SKIPPED) if new.all_optional else None,
                    new.code_version,
                    new.scheduled_at,
                    None if ended is None else ended[1],
                    tuple(new.limits.items()) if new.limits else (),
                    new.tags,
                    new.config_hash,
                ),
            )
        return chunk

    def _input_state(self, position: int, states: list[State]) -> State:
        """Return the state of an input as far as it is known; what will be joined counts as not over."""
        own = self.placed[position]
        return own.state if own is not None else states[position]

    def _target(self, position: int) -> Target:
        return self.steps[position].asset, self.steps[position].partition_key

    def _state(self, new: NewStep, waiting_on: int) -> State:
        if new.reuse is not None:
            return State.REUSED
        if waiting_on:
            return State.WAITING
        later = new.scheduled_at is not None and new.scheduled_at > self.run.created_at
        return State.SCHEDULED if later else State.PENDING

    def _join(self) -> list[int]:
        """Lock and join what was active already; return the positions."""
        positions = [position for position, one in enumerate(self.placed) if one is None]
        if not positions:
            return []
        parameters = self._targets(positions) | {"priorities": [self.steps[p].priority for p in positions]}
        overtaking, advancing = [], {}
        for active in fetch_all(self.connection, JoinedStep, "ledger/join_active", parameters):
            position = positions[active.position - 1]
            new = self.steps[position]
            if new.same_config and active.config_hash != new.config_hash:
                raise RunConflictError(new.asset, new.partition_key, active.run_id)
            self.placed[position] = PlacedStep(active.id, active.run_id, active.state, deduplicated=True)
            if active.job_id is not None:
                overtaking.append((active.job_id, active.priority))
                if new.inputs and active.state is State.WAITING:
                    advancing[active.job_id] = active.id
        for position in positions:
            if self.placed[position] is None:  # it ended after the insert had seen it
                raise PlanOutdatedError(*self._target(position))
        joined = [one.id for position in positions if (one := self.placed[position]) is not None]
        lost = {"ids": joined}
        if not self.joins_lost and fetch_value(self.connection, int, "workers/held_by_lost", lost) is not None:
            raise HolderLostError
        oban_jobs.raise_priority(self.connection, overtaking)
        oban_jobs.advance_jobs(self.connection, advancing)
        return positions

    def _connect(self, joined: Sequence[int]) -> None:
        """Record which steps wait for which; only new steps wait."""
        edges: dict[bool, tuple[list[int], list[int]]] = {False: ([], []), True: ([], [])}
        for position, new in enumerate(self.steps):
            child = self.placed[position]
            assert child is not None
            if child.deduplicated:
                continue
            for read in new.inputs:
                parent = self.placed[read]
                assert parent is not None
                if not parent.state.is_terminal:
                    parents, children = edges[read in new.optional]
                    parents.append(parent.id)
                    children.append(child.id)
        for optional, (parents, children) in edges.items():
            if parents:
                parameters = {"parents": to_ids(parents), "children": to_ids(children), "optional": optional}
                self.connection.execute(load_sql("ledger/insert_edges"), parameters)

    def _await_joined(self, joined: Sequence[int]) -> int:
        """Let the run wait for the steps it joined; return how many it now waits for."""
        steps = [one.id for position in joined if (one := self.placed[position]) and one.run_id != self.run.id]
        if not steps:
            return 0
        return len(
            fetch_column(self.connection, int, "ledger/insert_joins", {"run_id": self.run.id, "steps": steps})
        )

    def _targets(self, positions: Sequence[int]) -> dict[str, object]:
        return {
            "assets": [self.steps[position].asset for position in positions],
            "partitions": [self.steps[position].partition_key for position in positions],
        }


def insert_run(connection: Connection[TupleRow], run: NewRun, *, driver: str | None) -> OpenedRun:
    """Record a run, unless it is recorded already."""
    opened = fetch_one(
        connection,
        OpenedRun,
        "ledger/open_run",
        {
            "id": run.id,
            "kind": run.kind,
            "selection": run.selection,
            "executor": run.executor,
            "durable": run.durable,
            "driver": driver,
            "priority": run.priority,
            "max_concurrency": run.max_concurrency,
            "watched": run.watched,
            "deps_timeout_seconds": run.deps_timeout_seconds,
            "created_at": run.created_at,
            "retry_of": run.retry_of,
            "details": to_json(details) if (details := run.details.to_json()) else None,
            "tags": list(run.details.tags) or None,
            "assets": list(run.assets) or None,
            "shapes": None if run.shapes is None else to_json(run.shapes),
            "keys": to_json(run.keys) if run.keys else None,
            "requested_by": run.requested_by,
            "requested_via": run.requested_via,
        },
    )
    assert opened is not None
    return opened


_KEYS_PER_RANGE = 1000


class PostgresRanges(RangeStore):
    """Implements `flowstone.protocols.RangeStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_run(self, run: NewRun, new: NewRange) -> int:
        # the partitions can be read only once, so this transaction is not tried again; it only inserts
        with self._database.transaction() as connection:
            return _open(connection, run, new)

    def waiting(self, target: Target) -> UnstartedTarget | None:
        parameters = {"asset": target[0], "partition": target[1]}
        with self._database.connection() as connection:
            return fetch_one(connection, UnstartedTarget, "ranges/find", parameters)


def _open(connection: Connection[TupleRow], run: NewRun, new: NewRange) -> int:
    if not insert_run(connection, run, driver=None).is_new:
        return 0
    totals: list[int] = []
    ends: dict[str, object] = {"first_partition": None, "last_partition": None}
    with connection.cursor() as cursor:
        cursor.executemany(load_sql("ranges/insert"), _chunks(run, new, totals, ends))
    total = sum(totals)
    opened = {"run_id": run.id, "opened": total, "total": total, "active": 0, "failures": 0, "partitions": total}
    count_opened(connection, opened | ends)
    oban_jobs.announce(connection, [new.queue])
    note_placed(connection, run, total)
    return total


def _chunks(run: NewRun, new: NewRange, totals: list[int], ends: dict[str, object]) -> Iterator[dict[str, object]]:
    for keys in batched(new.partitions, _KEYS_PER_RANGE):
        ends["first_partition"] = ends["first_partition"] or keys[0]
        ends["last_partition"] = keys[-1]
        totals.append(len(keys))
        yield {
            "run_id": run.id,
            "asset": new.asset,
            "partitions": "\n".join(keys),
            "total": len(keys),
            "queue": new.queue,
            "priority": new.priority,
            "max_attempts": new.max_attempts,
            "forced": new.forced,
            "code_version": new.code_version,
            "config_hash": new.config_hash,
            "same_config": new.same_config,
            "tags": list(new.tags) or None,
            "unique_seconds": new.unique_seconds,
        }


def cancel(connection: Connection[TupleRow], run_id: str) -> int:
    """Make cancelled steps of what nobody has begun, count them, and return how many."""
    ended = connection.execute(load_sql("ranges/cancel"), {"run_id": run_id}).rowcount
    if ended:
        counts = {"run_id": run_id, "finished": ended, "placed": 0, "failures": 0, "cancellations": ended}
        runs = fetch_all(connection, RunCounters, "ledger/count_finished", {"runs": to_json([counts])})
        over = [run for run in runs if not run.open_steps]
        record_counts(connection, [run.run_id for run in over])
        notify_done(connection, [f"r:{run.run_id}" for run in over if run.watched])
    return ended
