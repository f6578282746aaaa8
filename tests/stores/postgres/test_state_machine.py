"""The state machine of steps in PostgreSQL: whatever happens to both stores, they answer and stand alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import invariant
from tests.stores.test_state_machine import StepMachine

from flowstone.core.state import State
from flowstone.core.step import (
    Attempt,
    AttemptResult,
    CommitResult,
    NewRun,
    NewStep,
    PlacedStep,
    RunRecord,
    StepRecord,
)
from flowstone.stores.memory import MemoryStore
from flowstone.stores.postgres.store import PostgresStore
from flowstone.testing.postgres import TemporaryServer

_examples = count(1)


def reported(state: State) -> State:
    """What both stores agree on: a step that was put off by nothing is pending here and scheduled there."""
    return State.PENDING if state is State.SCHEDULED else state


def summed(run: RunRecord) -> Counter[State]:
    """The steps of a run in each state."""
    counts: Counter[State] = Counter()
    for state, number in run.counts.items():
        counts[reported(state)] += number
    return counts


class TwinLedger:
    """Does everything in memory and in PostgreSQL, and compares the answers; ids are those of the memory store.

    Args:
        memory: the model.
        postgres: the store under test, shared by all examples: each has partitions and runs of its own.
    """

    def __init__(self, memory: MemoryStore, postgres: PostgresStore) -> None:
        self.memory, self.postgres = memory, postgres
        self.example = next(_examples)
        self.partition = f"i:{self.example}"
        self.ids: dict[int, int] = {}
        self.claims: dict[int, Attempt] = {}
        self.runs: list[str] = []

    def run_id(self, run_id: str) -> str:
        return f"{self.example}-{run_id}"

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        placed = self.memory.ledger.open_run(run, steps)
        twins = [
            replace(new, partition_key=self.partition, reuse=None if new.reuse is None else self.ids[new.reuse])
            for new in steps
        ]
        others = self.postgres.ledger.open_run(replace(run, id=self.run_id(run.id)), twins)
        self.runs = [*dict.fromkeys([*self.runs, run.id])]
        for one, other in zip(placed, others, strict=True):
            assert self.ids.setdefault(one.id, other.id) == other.id
            assert (reported(one.state), one.deduplicated) == (reported(other.state), other.deduplicated)
            assert self.run_id(one.run_id) == other.run_id
        return placed

    def claim(self, step_ids: Sequence[int], *, now: datetime) -> list[Attempt]:
        claims = self.memory.ledger.claim(step_ids, now=now)
        # attempts end a second late: what was put off by nothing may start from then on here, and at once there
        soon = now + timedelta(seconds=2)
        others = self.postgres.ledger.claim(self._same(step_ids), now=soon)
        by_step = {other.step_id: other for other in others}
        assert {self.ids[one.step_id] for one in claims} == set(by_step)
        for one in claims:
            other = self.claims[one.token] = by_step[self.ids[one.step_id]]
            assert (one.asset, one.attempt, one.max_attempts) == (other.asset, other.attempt, other.max_attempts)
            assert one.forced == other.forced
        return claims

    def commit(self, completions: Sequence[AttemptResult]) -> list[CommitResult]:
        twins = [
            replace(
                completion,
                attempt=self.claims[completion.attempt.token],
                inputs=tuple(
                    read._replace(partition_key=self.partition, step_id=self.ids[read.step_id])
                    for read in completion.inputs
                ),
            )
            for completion in completions
        ]
        committed = self.memory.ledger.commit(completions)
        others = self.postgres.ledger.commit(twins)
        for one, other in zip(committed, others, strict=True):
            assert (self.ids[one.step_id], one.accepted) == (other.step_id, other.accepted)
            if one.accepted:
                assert reported(one.state) is reported(other.state)
        # which of the commits released a step is not asked for
        released = sorted(self._same([step_id for one in committed for step_id in one.released]))
        assert released == sorted(step_id for other in others for step_id in other.released)
        return committed

    def release(self, claims: Sequence[Attempt], *, delay_seconds: float = 0.0) -> list[int]:
        back = self.memory.ledger.release(claims, delay_seconds=delay_seconds)
        twins = [self.claims[claim.token] for claim in claims]
        assert self._same(back) == self.postgres.ledger.release(twins, delay_seconds=delay_seconds)
        return back

    def request_cancel(self, step_id: int) -> State:
        state = self.memory.ledger.request_cancel(step_id)
        assert reported(state) is reported(self.postgres.ledger.request_cancel(self.ids[step_id]))
        return state

    def cancel_run(self, run_id: str) -> list[int]:
        running = self.memory.ledger.cancel_run(run_id)
        assert sorted(self._same(running)) == sorted(self.postgres.ledger.cancel_run(self.run_id(run_id)))
        return running

    def _same(self, step_ids: Sequence[int]) -> list[int]:
        return [self.ids[step_id] for step_id in step_ids]


class Twins:
    """A store as far as the machine needs one."""

    def __init__(self, memory: MemoryStore, postgres: PostgresStore) -> None:
        self.ledger = TwinLedger(memory, postgres)
        self.catalog = memory.catalog


class TwinMachine(StepMachine):
    """Drives both stores at once."""

    shared: ClassVar[PostgresStore]

    def make_store(self) -> Twins:
        return Twins(MemoryStore(), self.shared)

    @invariant()
    def runs_and_steps_stand_alike(self) -> None:
        ledger, catalog = self.store.ledger, self.store.catalog
        for run_id in ledger.runs:
            one, other = catalog.run(run_id), self.shared.catalog.run(ledger.run_id(run_id))
            assert one is not None
            assert other is not None
            assert (one.state, summed(one), one.done) == (other.state, summed(other), other.done)
            assert (one.finished_at is None) == (other.finished_at is None)
            twins = {step.id: step for step in self.shared.catalog.steps(ledger.run_id(run_id))}
            for step in catalog.steps(run_id):
                assert self.seen(step, ids=ledger.ids) == self.seen(twins[ledger.ids[step.id]])

    def teardown(self) -> None:
        ledger, catalog = self.store.ledger, self.store.catalog
        for one, other in ledger.ids.items():
            attempts, others = catalog.attempts(one), self.shared.catalog.attempts(other)
            assert [(a.attempt, a.state, a.error_type) for a in attempts] == [
                (a.attempt, a.state, a.error_type) for a in others
            ]
            if catalog.step(one).state is not State.COMPLETED:
                continue  # what the others had read is kept differently
            reads = [(read.parameter, ledger.ids[read.step_id]) for read in catalog.inputs([one])[one]]
            stored = self.shared.catalog.inputs([other])[other]
            assert sorted(reads) == sorted((read.parameter, read.step_id) for read in stored)
        current = {asset: ledger.ids[step] for (asset, _), step in catalog.current(self.targets("")).items()}
        stored_current = self.shared.catalog.current(self.targets(ledger.partition))
        assert current == {asset: step for (asset, _), step in stored_current.items()}

    @staticmethod
    def targets(partition: str) -> list[tuple[str, str]]:
        return [(name, partition) for name in "abcde"]

    @staticmethod
    def seen(step: StepRecord, *, ids: dict[int, int] | None = None) -> tuple[object, ...]:
        """What both stores say of a step: everything but times and texts."""
        output = step.output_step if ids is None or step.output_step is None else ids[step.output_step]
        waits = step.waiting_on if step.state is State.WAITING else None
        counts = (step.attempt, step.max_attempts, step.priority, waits)
        return (
            step.asset,
            reported(step.state),
            *counts,
            step.forced,
            output,
            step.error_type,
            step.finished_at is None,
        )


@pytest.fixture(scope="module", autouse=True)
def shared_store(
    start_server: Callable[[str], TemporaryServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """One migrated database for all examples."""
    with start_server("embedded").database() as url:
        TwinMachine.shared = PostgresStore.connect(url, directory=tmp_path_factory.mktemp("store"))
        yield
        TwinMachine.shared.close()


TwinMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # making an example small would take minutes
    suppress_health_check=[HealthCheck.too_slow],
)
TestTwins = TwinMachine.TestCase
