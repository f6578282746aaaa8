"""A short language for tests of stores: open runs, claim, succeed, fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from flowstone.core.outcome import AttemptOutcome, Failed, Skipped, Snoozed, Stopped, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import (
    Attempt,
    AttemptResult,
    CommitResult,
    InputVersion,
    NewRun,
    NewStep,
    PlacedStep,
    StepRecord,
)
from flowstone.protocols import Store


class Scene:
    """One store with the verbs that its tests need.

    Args:
        store: the store under test.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> scene = Scene(MemoryStore())
        >>> (step,) = scene.open("run", [NewStep("numbers", "")])
        >>> scene.end(scene.claim(step.id)).state.value
        'completed'
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = datetime.now(UTC)
        self._clock = count(1)

    def open(self, run_id: str, steps: Sequence[NewStep], **options: Any) -> list[PlacedStep]:
        """Open a run that the caller drives; `options` are those of `NewRun`."""
        settings: dict[str, Any] = {
            "kind": "test",
            "selection": "test",
            "executor": "sync",
            "created_at": self.now,
        }
        return self.store.ledger.open_run(NewRun(id=run_id, **settings | options), steps)

    def one(self, asset: str = "a", partition: str = "", *, run_id: str = "run", **fields: Any) -> PlacedStep:
        """Place one step in a run of its own."""
        return self.open(run_id, [NewStep(asset, partition, **fields)])[0]

    def claim(self, step_id: int, *, now: datetime | None = None) -> Attempt:
        """Start an attempt of a step, which must be possible."""
        claims = self.store.ledger.claim([step_id], now=now or self.later(0))
        assert len(claims) == 1, f"step {step_id} is {self.state(step_id)} and could not be claimed"
        return claims[0]

    def claimable(self, step_id: int, *, now: datetime | None = None) -> bool:
        """Try to start an attempt; when it works it is released at once."""
        claims = self.store.ledger.claim([step_id], now=now or self.later(0))
        self.store.ledger.release(claims)
        return bool(claims)

    def end(
        self,
        claim: Attempt,
        outcome: AttemptOutcome | None = None,
        *,
        inputs: Sequence[int] = (),
        retry: float | None = None,
    ) -> CommitResult:
        """Commit one attempt, a success by default; `inputs` are the steps that it read."""
        read = tuple(self._read(step_id) for step_id in inputs)
        completion = AttemptResult(claim, outcome or succeeded(claim), read, self.later(1), retry)
        return self.store.ledger.commit([completion])[0]

    def make(self, asset: str = "a", partition: str = "", *, run_id: str, inputs: Sequence[int] = ()) -> int:
        """Place, run and commit one step; return its id."""
        placed = self.one(asset, partition, run_id=run_id, forced=True)
        self.end(self.claim(placed.id), inputs=inputs)
        return placed.id

    def later(self, seconds: float) -> datetime:
        """Return a time after the start of the test; each call is a little later than the one before."""
        return self.now + timedelta(seconds=seconds, microseconds=next(self._clock))

    def step(self, step_id: int) -> StepRecord:
        """Return a step, which must exist."""
        record = self.store.catalog.step(step_id)
        assert record is not None, f"step {step_id} is not in the catalog"
        return record

    def state(self, step_id: int) -> State:
        """Return the state of a step."""
        return self.step(step_id).state

    def states(self, placed: Sequence[PlacedStep]) -> list[State]:
        """Return the states of several steps."""
        return [self.state(one.id) for one in placed]

    def run_state(self, run_id: str) -> State:
        """Return the state of a run."""
        record = self.store.catalog.run(run_id)
        assert record is not None, f"run {run_id!r} is not in the catalog"
        return record.state

    def _read(self, step_id: int) -> InputVersion:
        record = self.step(step_id)
        return InputVersion(record.asset, record.asset, record.partition_key, step_id)


def succeeded(claim: Attempt) -> Succeeded:
    """Return a success whose stored output names the attempt that made it."""
    stored = StoredOutput("memory", f"{claim.step_id}-{claim.attempt}", metadata={"token": claim.token})
    return Succeeded(stored, None)


def failed(text: str = "boom", *, error_type: str = "builtins.ValueError") -> Failed:
    """Return a failure."""
    return Failed(text, error_type, retryable=True)


def skipped(reason: str = "nothing new") -> Skipped:
    """Return a skip."""
    return Skipped(reason)


def snoozed(seconds: float, reason: str = "not yet") -> Snoozed:
    """Return a snooze."""
    return Snoozed(seconds, reason)


def stopped(reason: str = "asked to") -> Stopped:
    """Return the end of an attempt that was cancelled."""
    return Stopped(reason)


HOSTILE_TEXTS = (
    "plain",
    "'; DROP TABLE flowstone.steps; --",
    'quote " and back\\slash',
    "100%s %(name)s {} $1 :x",
    "per cent % alone",
    "caf\u00e9",
    "cafe\u0301",
    "\u65e5\u672c\u8a9e \U0001f480",
    "{1,2} [3] (4) NULL null",
    "a,b|c\\.d",
    "\t tab",
    "x" * 2000,
)
"""Names that break stores which put text into statements, split it, fold it or cut it."""


class StoreCase(ABC):
    """Gives every test a scene with a new store."""

    @abstractmethod
    def make_store(self) -> Store:
        """Return a new, empty store."""

    @pytest.fixture
    def scene(self) -> Iterator[Scene]:
        """A new store with the verbs of a test."""
        store = self.make_store()
        try:
            yield Scene(store)
        finally:
            store.close()
