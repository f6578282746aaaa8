"""Opening a run: its steps, what they wait for, and the first jobs, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowstone.core.state import State
from flowstone.core.step import NewRun, NewStep, PlacedStep, Target
from flowstone.core.unstarted import over_before_it_begins
from flowstone.errors import PlanOutdatedError, RunConflictError
from flowstone.stores.postgres import transport
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


_CHUNK = 5000


class HolderLostError(Exception):
    """A step that was to be joined is held by a lost process; once that is ended, placing again makes it anew."""


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

    def place(self) -> list[PlacedStep]:
        """Insert everything.

        Raises:
            PlanOutdatedError, HolderLostError: see there; the transaction must be rolled back.
        """
        is_new, durable, limit = insert_run(self.connection, self.run, driver=self.driver)
        self.placed = [None] * len(self.steps)
        if not is_new:
            self._find_own()
        if self.run.unique_seconds is not None:
            self._find_recent(self.run.unique_seconds)
        if self.again:
            self._reuse_committed()
        self.ids = self._reserve_ids()
        enqueued = self._insert(durable, limit)
        for position in (*self._committed_since(), *self._placed_since()):
            raise PlanOutdatedError(*self._target(position))
        joined = self._join()
        self._connect(joined)
        opened = sum(one is not None and not one.deduplicated and not one.state.is_terminal for one in self.placed)
        waiting = self._await_joined(joined)
        self.connection.execute(
            load_sql("ledger/count_opened"),
            {
                "run_id": self.run.id,
                "opened": opened + waiting,
                "active": len(enqueued) if limit is not None else 0,
                "failures": sum(
                    one is not None and not one.deduplicated and one.state is State.UPSTREAM_FAILED
                    for one in self.placed
                )
                + self.answered_failures,
            },
        )
        transport.announce(self.connection, transport.enqueue(self.connection, enqueued))
        return [one for one in self.placed if one is not None]

    def _find_own(self) -> None:
        parameters = self._targets(range(len(self.steps))) | {"run_id": self.run.id}
        for position, step_id, state, config_hash in self.connection.execute(
            load_sql("ledger/own_steps"), parameters
        ):
            new = self.steps[position - 1]
            if new.exact and config_hash != new.config_hash:
                raise RunConflictError(new.asset, new.partition, self.run.id)
            self.placed[position - 1] = PlacedStep(step_id, self.run.id, State(state), deduplicated=True)

    def _find_recent(self, seconds: float) -> None:
        """Let steps that were placed lately answer instead of new ones."""
        for position, step_id, run_id, state in self._recent(seconds):
            if self.placed[position] is not None:
                continue
            found = PlacedStep(step_id, run_id, State(state), deduplicated=True)
            if found.state.is_terminal:
                self.placed[position] = found
                self.answered_failures += found.state in (State.FAILED, State.UPSTREAM_FAILED)
            else:
                self.joining.add(position)

    def _placed_since(self) -> list[int]:
        """Return the targets that were placed elsewhere, and are over, since `_find_recent` read them."""
        if self.run.unique_seconds is None:
            return []
        found = {position for position, *_ in self._recent(self.run.unique_seconds)} - self.joining
        return [position for position in sorted(found) if self._is_new(position)]

    def _recent(self, seconds: float) -> list[tuple[int, int, str, str]]:
        """Return what was placed lately, in the same way where that matters: (position, step, run, state)."""
        parameters = self._targets(range(len(self.steps))) | {"run_id": self.run.id, "seconds": seconds}
        rows = self.connection.execute(load_sql("ledger/recent"), parameters)
        return [
            (position - 1, step_id, run_id, state)
            for position, step_id, run_id, state, config_hash in rows
            if not (new := self.steps[position - 1]).exact or config_hash == new.config_hash
        ]

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
        targets = to_json([(self.steps[position].asset, self.steps[position].partition) for position in positions])
        rows = self.connection.execute(load_sql("catalog/current"), {"targets": targets})
        found = {positions[index - 1]: step_id for index, step_id in rows}
        exact = {step_id for position, step_id in found.items() if self.steps[position].exact}
        if exact:
            hashes = config_hashes(self.connection, exact)
            found = {
                position: step_id
                for position, step_id in found.items()
                if step_id not in exact or hashes[step_id] == self.steps[position].config_hash
            }
        return found

    def _is_new(self, position: int) -> bool:
        one = self.placed[position]
        return one is None or not one.deduplicated

    def _reserve_ids(self) -> list[int]:
        row = self.connection.execute(load_sql("ledger/step_ids"), {"number": len(self.steps)}).fetchone()
        return list(row[0] or ()) if row else []

    def _insert(self, durable: bool, limit: int | None) -> list[int]:
        """Insert what is new, in chunks that keep memory flat; return the steps that got a job."""
        room = limit if limit is not None else len(self.steps)
        placed: list[int] = []
        states: list[State] = []
        for start in range(0, len(self.steps), _CHUNK):
            rows = self._rows(start, durable, room - len(placed), states)
            if not rows:
                continue
            parameters = {"run_id": self.run.id, "steps": to_json(rows), "created_at": self.run.created_at}
            inserted = {row[0] for row in self.connection.execute(load_sql("ledger/insert_steps"), parameters)}
            for position in range(start, min(start + _CHUNK, len(self.steps))):
                if self.ids[position] in inserted:
                    self.placed[position] = PlacedStep(self.ids[position], self.run.id, states[position])
            placed += [int(str(row["id"])) for row in rows if row["enqueue"] and row["id"] in inserted]
        return placed

    def _rows(self, start: int, durable: bool, room: int, states: list[State]) -> list[dict[str, object]]:
        """Return the rows of one chunk; adds the states of all its steps to `states`."""
        rows: list[dict[str, object]] = []
        for position in range(start, min(start + _CHUNK, len(self.steps))):
            new = self.steps[position]
            inputs = [self._input_state(read, states) for read in new.inputs]
            waiting_on = sum(not state.is_terminal for state in inputs)
            state = self._state(new, waiting_on)
            ended = None if state is State.REUSED else over_before_it_begins(new, inputs, self._target)
            state = state if ended is None else ended[0]
            states.append(state)
            if self.placed[position] is not None or position in self.joining:
                continue
            with_job = durable and room > 0 and state in (State.PENDING, State.SCHEDULED)
            room -= with_job
            row = _new_row(self.ids[position], new, state, waiting_on, enqueue=with_job)
            if ended is not None:
                row["reason"] = ended[1]
            if new.all_optional:
                row["skips_left"] = len(inputs) - inputs.count(State.SKIPPED)
            rows.append(row)
        return rows

    def _input_state(self, position: int, states: list[State]) -> State:
        """Return the state of an input as far as it is known; what will be joined counts as not over."""
        own = self.placed[position]
        return own.state if own is not None else states[position]

    def _target(self, position: int) -> Target:
        return self.steps[position].asset, self.steps[position].partition

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
        overtaking, looking = [], {}
        for index, step_id, run_id, state, job_id, priority, config_hash in self.connection.execute(
            load_sql("ledger/join_active"), parameters
        ):
            position = positions[index - 1]
            new = self.steps[position]
            if new.exact and config_hash != new.config_hash:
                raise RunConflictError(new.asset, new.partition, run_id)
            self.placed[position] = PlacedStep(step_id, run_id, State(state), deduplicated=True)
            if job_id is not None:
                overtaking.append((job_id, priority))
                if new.inputs and state == State.WAITING.value:
                    looking[job_id] = step_id
        for position in positions:
            if self.placed[position] is None:  # it ended after the insert had seen it
                raise PlanOutdatedError(*self._target(position))
        joined = [one.id for position in positions if (one := self.placed[position]) is not None]
        if not self.joins_lost:
            parameters = {"ids": joined}
            if self.connection.execute(load_sql("workers/held_by_lost"), parameters).fetchone() is not None:
                raise HolderLostError
        transport.raise_priority(self.connection, overtaking)
        transport.look_sooner(self.connection, looking)
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
                parameters = {"parents": parents, "children": children, "optional": optional}
                self.connection.execute(load_sql("ledger/insert_edges"), parameters)

    def _await_joined(self, joined: Sequence[int]) -> int:
        """Let the run wait for the steps it joined; return how many it now waits for."""
        steps = [one.id for position in joined if (one := self.placed[position]) and one.run_id != self.run.id]
        if not steps:
            return 0
        rows = self.connection.execute(load_sql("ledger/insert_joins"), {"run_id": self.run.id, "steps": steps})
        return len(rows.fetchall())

    def _targets(self, positions: Sequence[int]) -> dict[str, object]:
        return {
            "assets": [self.steps[position].asset for position in positions],
            "partitions": [self.steps[position].partition for position in positions],
        }


def config_hashes(connection: Connection[TupleRow], steps: Iterable[int]) -> dict[int, str | None]:
    """Return how the runs of some steps were to compute them."""
    return dict(connection.execute(load_sql("catalog/config_hashes"), {"steps": list(steps)}).fetchall())


def insert_run(
    connection: Connection[TupleRow], run: NewRun, *, driver: str | None
) -> tuple[bool, bool, int | None]:
    """Record a run; return whether it is new, whether it is durable, and its window."""
    row = connection.execute(
        load_sql("ledger/open_run"),
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
        },
    ).fetchone()
    assert row is not None
    return bool(row[3]), bool(row[1]), row[2]


def _new_row(step_id: int, new: NewStep, state: State, waiting_on: int, *, enqueue: bool) -> dict[str, object]:
    return {
        "id": step_id,
        "asset": new.asset,
        "partition": new.partition,
        "state": state,
        "waiting_on": waiting_on,
        "priority": new.priority,
        "queue": new.queue,
        "max_attempts": new.max_attempts,
        "forced": new.forced,
        "enqueue": enqueue,
        "reuse": new.reuse,
        "code_version": new.code_version,
        "scheduled_at": new.scheduled_at,
        "limits": dict(new.limits) if new.limits else None,
        "config_hash": new.config_hash,
        "tags": list(new.tags) or None,
        "reason": None,
    }
