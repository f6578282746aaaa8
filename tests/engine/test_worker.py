from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from flowstone.core.outcome import Skipped
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, CommitResult
from flowstone.engine.worker import GroupCommitter


def ended(step_id: int) -> AttemptResult:
    claim = Attempt(step_id, "run", "a", "", 1, 1, 7, datetime.now(UTC))
    return AttemptResult(claim, Skipped("x"), (), datetime.now(UTC))


class Stubborn:
    """A store that cannot commit some steps, or anything for the first so many tries."""

    def __init__(self, *, refused: set[int], error: BaseException, away: int = 0) -> None:
        self.refused, self.error, self.away = refused, error, away
        self.done: list[int] = []
        self.all_done = threading.Event()

    def commit(self, group: Sequence[AttemptResult]) -> list[CommitResult]:
        ids = [one.attempt.step_id for one in group]
        if self.away > 0 or self.refused.intersection(ids):
            self.away -= 1
            raise self.error
        self.done += ids
        return [CommitResult(one, State.SKIPPED, accepted=True) for one in ids]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_what_cannot_be_committed_holds_nobody_up(error: BaseException) -> None:
    store = Stubborn(refused={3, 4, 9}, error=error)
    committer = GroupCommitter(store.commit)
    for number in range(12):
        committer.submit(ended(number))
    committer.start()
    deadline = time.monotonic() + 30
    while len(store.done) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(store.done) == [0, 1, 2, 5, 6, 7, 8, 10, 11]
    committer.submit(ended(12))
    store.refused = set()
    assert committer.stop(timeout_seconds=30)
    assert sorted(store.done) == list(range(13))  # what was set apart is tried again


def test_a_database_that_was_away_gets_everything_once() -> None:
    store = Stubborn(refused=set(), error=ConnectionError("away"), away=5)
    committer = GroupCommitter(store.commit)
    for number in range(5):
        committer.submit(ended(number))
    committer.start()
    assert committer.stop(timeout_seconds=30)
    assert sorted(store.done) == list(range(5))


def test_a_listener_that_raises_ends_nothing() -> None:
    def on_commit(_group: Sequence[AttemptResult], _committed: Sequence[CommitResult]) -> None:
        raise SystemExit("a listener")

    store = Stubborn(refused=set(), error=ValueError())
    committer = GroupCommitter(store.commit, on_commit=on_commit)
    committer.start()
    for number in range(3):
        committer.submit(ended(number))
        time.sleep(0.01)
    assert committer.stop(timeout_seconds=30)
    assert sorted(store.done) == [0, 1, 2]
