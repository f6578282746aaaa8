"""Attempts in every store: claiming, fencing, committing, retrying, releasing; cancelling in every state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from tests.stores.conformance.case import Scene, StoreCase, failed, skipped, snoozed, stopped, succeeded

from flowstone.core.outcome import AttemptOutcome, Failed, Scattered, Snoozed, Succeeded, Suspended
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, CheckRecord, CommitResult, InputVersion, NewStep
from flowstone.errors import RunNotFoundError


class AttemptTests(StoreCase):
    """What `claim`, `commit` and `release` mean."""

    def test_a_claim_says_everything(self, scene: Scene) -> None:
        """Claims carry what a worker needs, and start the step."""
        step = scene.one("a", "s:x", max_attempts=3, forced=True)
        claim = scene.claim(step.id)
        assert (claim.step_id, claim.run_id, claim.asset, claim.partition_key) == (step.id, "run", "a", "s:x")
        assert (claim.attempt, claim.max_attempts, claim.forced) == (1, 3, True)
        record = scene.step(step.id)
        assert (record.state, record.attempt, record.started_at) == (State.RUNNING, 1, claim.started_at)

    def test_a_step_is_claimed_once(self, scene: Scene) -> None:
        """A second claim gets nothing, also in the same question."""
        step = scene.one()
        assert len(scene.store.ledger.claim([step.id, step.id], now=scene.later(0))) == 1
        assert scene.store.ledger.claim([step.id], now=scene.later(0)) == []

    def test_unknown_and_finished_steps_are_left_out(self, scene: Scene) -> None:
        """Claiming what cannot start is not an error."""
        done, free = scene.make("a", run_id="first"), scene.one("b")
        claims = scene.store.ledger.claim([987654321, done, free.id], now=scene.later(0))
        assert [claim.step_id for claim in claims] == [free.id]
        assert scene.store.ledger.claim([], now=scene.later(0)) == []

    def test_many_threads_claim_each_step_once(self, scene: Scene) -> None:
        """No step is handed to two workers."""
        ids = [one.id for one in scene.open("run", [NewStep("a", f"i:{number}") for number in range(30)])]
        with ThreadPoolExecutor(8) as pool:
            batches = pool.map(lambda _: scene.store.ledger.claim(ids, now=scene.later(0)), range(16))
        claimed = [claim.step_id for batch in batches for claim in batch]
        assert sorted(claimed) == sorted(ids)

    def test_success_publishes(self, scene: Scene) -> None:
        """One transaction: state, output, pointer, lineage, readers."""
        a, other = scene.make("a", run_id="one"), scene.make("z", "s:p", run_id="two")
        step = scene.one("b")
        claim = scene.claim(step.id)
        reads = (InputVersion("left", "a", "", a), InputVersion("right", "z", "s:p", other))
        done = AttemptResult(claim, succeeded(claim), reads, scene.later(1))
        (committed,) = scene.store.ledger.commit([done])
        record = scene.step(step.id)
        assert (committed.step_id, committed.state, committed.accepted) == (step.id, State.COMPLETED, True)
        assert (record.state, record.output_step) == (State.COMPLETED, step.id)
        assert record.finished_at == done.finished_at
        assert record.stored is not None
        assert record.stored.location == f"{step.id}-1"
        assert record.stored.metadata == {"token": claim.token}
        catalog = scene.store.catalog
        assert catalog.current([("b", "")]) == {("b", ""): step.id}
        assert catalog.inputs([step.id]) == {step.id: reads}
        assert {key: set(read) for key, read in catalog.readers([a, other]).items()} == {
            a: {step.id},
            other: {step.id},
        }

    def test_the_version_that_ran_is_recorded(self, scene: Scene) -> None:
        """Whoever placed the step may have had other code; what did not run changes nothing."""
        step = scene.one(code_version="v1", max_attempts=2)
        snoozed = AttemptResult(scene.claim(step.id), Snoozed(0.0, "not yet"), (), scene.later(1))
        scene.store.ledger.commit([snoozed])
        assert scene.step(step.id).code_version == "v1"
        for version in ("v2", None):
            claim = scene.claim(step.id, now=scene.later(2))
            outcome = Failed("oh", "E", retryable=True) if version else succeeded(claim)
            retry = 0.0 if version else None
            ended = AttemptResult(claim, outcome, (), scene.later(1), retry, ran=True, code_version=version)
            scene.store.ledger.commit([ended])
            assert scene.step(step.id).code_version == version

    def test_the_pointer_moves_to_the_newest_commit(self, scene: Scene) -> None:
        """History keeps both, the pointer names the later one."""
        first = scene.make("a", run_id="one")
        second = scene.make("a", run_id="two")
        assert scene.store.catalog.current([("a", "")]) == {("a", ""): second}
        assert [one.id for one in scene.store.catalog.history("a", None)] == [second, first]

    def test_a_failure_leaves_the_pointer_alone(self, scene: Scene) -> None:
        """The previous version stays readable."""
        first = scene.make("a", run_id="one")
        again = scene.one(run_id="two", forced=True)
        assert scene.end(scene.claim(again.id), failed("no luck")).state is State.FAILED
        assert scene.store.catalog.current([("a", "")]) == {("a", ""): first}

    def test_a_failure_for_good_is_recorded(self, scene: Scene) -> None:
        """The step and its attempt carry the error."""
        step = scene.one()
        claim = scene.claim(step.id)
        committed = scene.end(claim, failed("line 1\nline 2 \u00e9", error_type="my.Error"))
        record = scene.step(step.id)
        (attempt,) = scene.store.catalog.attempts(step.id)
        assert (committed.accepted, record.state) == (True, State.FAILED)
        assert (record.error, record.error_type) == ("line 1\nline 2 \u00e9", "my.Error")
        assert (attempt.attempt, attempt.state, attempt.retry_at) == (1, State.FAILED, None)
        assert (attempt.error, attempt.error_type) == (record.error, record.error_type)
        assert (attempt.started_at, attempt.finished_at) == (claim.started_at, record.finished_at)

    def test_retries_keep_a_row_for_every_attempt(self, scene: Scene) -> None:
        """Retrying between attempts, claimable only after the delay."""
        step = scene.one(max_attempts=3)
        assert scene.end(scene.claim(step.id), failed("first"), retry=10).state is State.RETRYING
        due = scene.step(step.id).scheduled_at
        assert due is not None
        assert due > scene.now + timedelta(seconds=10)
        assert not scene.claimable(step.id, now=due - timedelta(seconds=1))
        second = scene.claim(step.id, now=due)
        assert second.attempt == 2
        scene.end(second, failed("second"), retry=0.001)
        third = scene.claim(step.id, now=due + timedelta(hours=1))
        scene.end(third)
        record, attempts = scene.step(step.id), scene.store.catalog.attempts(step.id)
        assert (record.state, record.attempt, record.error) == (State.COMPLETED, 3, None)
        assert [one.attempt for one in attempts] == [1, 2, 3]
        assert [one.state for one in attempts] == [State.FAILED, State.FAILED, State.COMPLETED]
        assert [one.error for one in attempts] == ["first", "second", None]
        assert attempts[0].retry_at == due
        assert attempts[2].retry_at is None

    def test_success_at_once_is_one_attempt(self, scene: Scene) -> None:
        """The attempts of a step that went well are there too."""
        made = scene.make("a", run_id="one")
        (attempt,) = scene.store.catalog.attempts(made)
        assert (attempt.attempt, attempt.state, attempt.error) == (1, State.COMPLETED, None)
        assert scene.store.catalog.attempts(scene.one("b").id) == []

    @pytest.mark.parametrize("stale_first", [True, False])
    def test_two_attempts_of_a_step_in_one_group(self, scene: Scene, stale_first: bool) -> None:
        """The newer one is committed, as if the older one had come alone before or after it."""
        step = scene.one(max_attempts=3)
        stale = scene.claim(step.id)
        scene.store.ledger.release([stale])
        fresh = scene.claim(step.id)
        group = [
            AttemptResult(stale, succeeded(stale), (), scene.later(1)),
            AttemptResult(fresh, failed(), (), scene.later(1), retry_in_seconds=60.0),
        ]
        group = group if stale_first else group[::-1]
        committed = scene.store.ledger.commit(group)
        assert [one.accepted for one in committed] == [one.attempt is fresh for one in group]
        record = scene.step(step.id)
        assert (record.state, record.output_step) == (State.RETRYING, None)
        assert record.scheduled_at is not None
        assert record.scheduled_at > scene.later(30)

    def test_tokens_fence(self, scene: Scene) -> None:
        """Each attempt has a larger token; an older one cannot end anything, whatever its outcome."""
        step, child = scene.open("run", [NewStep("a", "", max_attempts=3), NewStep("b", "", inputs=(0,))])
        stale = scene.claim(step.id)
        scene.store.ledger.release([stale])
        fresh = scene.claim(step.id)
        assert fresh.token > stale.token
        for outcome in (succeeded(stale), failed(), skipped(), snoozed(5), stopped()):
            before = scene.step(step.id)
            refused = scene.end(stale, outcome)
            assert (refused.accepted, refused.state, refused.released) == (False, State.RUNNING, ())
            assert scene.step(step.id) == before
        assert scene.store.ledger.release([stale]) == []
        assert scene.store.catalog.current([("a", "")]) == {}
        assert scene.store.catalog.attempts(step.id) == []
        assert scene.state(child.id) is State.WAITING
        assert scene.end(fresh).accepted

    def test_after_the_end_nothing_is_accepted(self, scene: Scene) -> None:
        """Committing twice changes nothing, and the lineage stays."""
        read = scene.make("in", run_id="one")
        step = scene.one()
        claim = scene.claim(step.id)
        scene.end(claim, inputs=[read])
        before = scene.step(step.id)
        again = scene.end(claim, failed("late"))
        assert (again.accepted, again.state) == (False, State.COMPLETED)
        assert scene.step(step.id) == before
        assert [one.step_id for one in scene.store.catalog.inputs([step.id])[step.id]] == [read]
        assert scene.store.catalog.readers([read])[read] == (step.id,)

    def test_a_made_up_claim_is_refused(self, scene: Scene) -> None:
        """An unknown step, or a forged token, publishes nothing."""
        step = scene.one()
        claim = scene.claim(step.id)
        assert not scene.end(replace(claim, step_id=987654321)).accepted
        assert not scene.end(replace(claim, token=claim.token + 1)).accepted
        assert scene.state(step.id) is State.RUNNING

    def test_one_refusal_does_not_spoil_the_group(self, scene: Scene) -> None:
        """The others of the group are committed."""
        a, b, c = scene.open("run", [NewStep(name, "") for name in "abc"])
        claims = [scene.claim(one.id) for one in (a, b, c)]
        claims[1] = replace(claims[1], token=0)
        group = [AttemptResult(claim, succeeded(claim), (), scene.later(1)) for claim in claims]
        assert [one.accepted for one in scene.store.ledger.commit(group)] == [True, False, True]
        assert scene.states([a, b, c]) == [State.COMPLETED, State.RUNNING, State.COMPLETED]

    def test_two_inputs_in_one_group_release_once(self, scene: Scene) -> None:
        """A counter that reaches zero inside a group releases its step exactly once."""
        steps = [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(0, 1))]
        a, b, c = scene.open("run", steps)
        claims = [scene.claim(a.id), scene.claim(b.id)]
        group = [AttemptResult(claim, succeeded(claim), (), scene.later(1)) for claim in claims]
        released = [step_id for one in scene.store.ledger.commit(group) for step_id in one.released]
        assert released == [c.id]

    def test_the_words_of_a_snooze_decide_nothing(self, scene: Scene) -> None:
        """What an asset says is for people; its step is scheduled whatever the words are."""
        step = scene.one()
        scene.end(scene.claim(step.id), Snoozed(60.0, "waits for a person"))
        assert (scene.state(step.id), scene.step(step.id).reason) == (State.SCHEDULED, "waits for a person")

    def test_a_snooze_gives_the_attempt_back(self, scene: Scene) -> None:
        """However often it is snoozed, the attempt stays the first."""
        step = scene.one(max_attempts=1)
        for _ in range(3):
            claim = scene.claim(step.id, now=scene.later(3600))
            assert claim.attempt == 1
            assert scene.end(claim, snoozed(5, "not yet")).state is State.SCHEDULED
            record = scene.step(step.id)
            assert (record.attempt, record.reason) == (0, "not yet")
            assert not scene.claimable(step.id, now=scene.now)
        assert scene.store.catalog.attempts(step.id) == []
        assert scene.end(scene.claim(step.id, now=scene.later(3600))).state is State.COMPLETED

    def test_release_undoes_the_claim(self, scene: Scene) -> None:
        """A stopping worker gives its work to others without burning an attempt."""
        step = scene.one(max_attempts=2)
        claim = scene.claim(step.id)
        assert scene.store.ledger.release([claim], reason="shutting down") == [step.id]
        record = scene.step(step.id)
        assert (record.state, record.attempt, record.reason) == (State.PENDING, 0, "shutting down")
        assert scene.claim(step.id).attempt == 1

    def test_release_may_delay(self, scene: Scene) -> None:
        """With a delay nobody gets it before that."""
        step = scene.one()
        scene.store.ledger.release([scene.claim(step.id)], delay_seconds=600)
        assert scene.state(step.id) is State.SCHEDULED
        assert not scene.claimable(step.id)
        assert scene.claimable(step.id, now=scene.later(7200))

    @pytest.mark.parametrize(
        ("outcome", "state"),
        [(skipped(), State.SKIPPED), (stopped(), State.CANCELLED), (failed(), State.FAILED)],
        ids=["skipped", "stopped", "failed"],
    )
    def test_other_ends_publish_nothing(self, scene: Scene, outcome: AttemptOutcome, state: State) -> None:
        """No pointer, no output, an attempt row."""
        step = scene.one()
        committed = scene.end(scene.claim(step.id), outcome)
        record = scene.step(step.id)
        assert committed.state is record.state is state
        assert (record.output_step, record.stored) == (None, None)
        assert scene.store.catalog.current([("a", "")]) == {}
        assert [one.state for one in scene.store.catalog.attempts(step.id)] == [state]
        assert scene.run_state("run") is (State.COMPLETED if state is State.SKIPPED else state)

    def test_whatever_one_attempt_says_ends_that_attempt_alone(self, scene: Scene) -> None:
        """Any object in any field of a completion: it is recorded or failed, and the others are committed."""
        spoilt = list(spoilt_completions())
        places = scene.open("run", [NewStep("a", f"i:{number}") for number in range(2 * len(spoilt))])
        claims = scene.store.ledger.claim([one.id for one in places], now=scene.later(0))
        group: list[AttemptResult] = []
        for position, (_, spoil) in enumerate(spoilt):
            mine, other = claims[2 * position], claims[2 * position + 1]
            group.append(spoil(AttemptResult(mine, succeeded(mine), (), scene.later(1))))
            group.append(AttemptResult(other, succeeded(other), (), scene.later(1)))
        committed = scene.store.ledger.commit(group)
        assert {one.state for one in committed[1::2]} == {State.COMPLETED}
        for position, (name, _) in enumerate(spoilt):
            record = scene.step(claims[2 * position].step_id)
            if name.startswith("attempt="):
                assert committed[2 * position] == CommitResult(0, State.NOT_FOUND, accepted=False)
                continue
            assert record.state is not State.RUNNING, name
            assert committed[2 * position].state is record.state, name
            assert record.state is not State.FAILED or record.error, name


class _Hostile:
    """An object that fights whoever looks at it."""

    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__
    __bool__ = __eq__ = __iter__ = __len__ = __float__ = __str__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def _circle() -> list[object]:
    made: list[object] = []
    made.append(made)
    return made


HOSTILE_OBJECTS: tuple[object, ...] = (
    object(),
    _Hostile(),
    float("nan"),
    float("inf"),
    2**70,
    -1,
    True,
    None,
    "a\x00b",
    "\ud800",
    "x" * 200_000,
    b"x",
    {1: 2},
    {"a": {1, 2}},
    {"a": object()},
    {"a": float("nan"), "b": "\x00"},
    _circle(),
    datetime(2024, 1, 1),
    Decimal("1.5"),
    dict,
    ({"a": 1}, "b"),
)

type Spoil = Callable[[AttemptResult], AttemptResult]


def spoilt_completions() -> Iterator[tuple[str, Spoil]]:
    """Yield each field of a completion with each hostile object in it: a name, and what spoils a sound one."""
    outcomes: tuple[AttemptOutcome, ...] = (
        failed(),
        snoozed(0.0),
        skipped(),
        stopped(),
        Suspended("Pay?"),
        Scattered(0, 0),
    )
    for value in HOSTILE_OBJECTS:
        for name in (
            "attempt",
            "outcome",
            "inputs",
            "finished_at",
            "retry_in_seconds",
            "checks",
            "ran",
            "code_version",
        ):
            yield f"{name}={type(value)}", partial(_with, name=name, value=value)
        for name in _fields(StoredOutput("memory", "x")):
            yield f"stored.{name}={type(value)}", partial(_with_stored, name=name, value=value)
        for outcome in outcomes:
            for name in _fields(outcome):
                yield (
                    f"{outcome}.{name}={type(value)}",
                    partial(_with_outcome, outcome=outcome, name=name, value=value),
                )
        for name in _fields(_check(1)):
            yield f"check.{name}={type(value)}", partial(_with_check, name=name, value=value)


def _fields(of: Any) -> list[str]:
    return [one.name for one in fields(of)]


def _with(completion: AttemptResult, *, name: str, value: object) -> AttemptResult:
    return replace(completion, **{name: value})  # type: ignore[arg-type]


def _with_stored(completion: AttemptResult, *, name: str, value: object) -> AttemptResult:
    outcome = completion.outcome
    assert isinstance(outcome, Succeeded)
    stored = replace(outcome.stored, **{name: value})  # type: ignore[arg-type]
    return replace(completion, outcome=Succeeded(stored, None))


def _with_outcome(completion: AttemptResult, *, outcome: Any, name: str, value: object) -> AttemptResult:
    return replace(completion, outcome=replace(outcome, **{name: value}))


def _with_check(completion: AttemptResult, *, name: str, value: object) -> AttemptResult:
    checked = replace(_check(completion.attempt.step_id), **{name: value})  # type: ignore[arg-type]
    return replace(completion, checks=(checked,))


def _check(step_id: int) -> CheckRecord:
    at = datetime.now(UTC)
    return CheckRecord(
        check="c", asset="a", partition_key="", step_id=step_id, attempt=1, passed=True, started_at=at
    )


class CancelTests(StoreCase):
    """What `request_cancel` and `cancel_run` mean."""

    def test_queued_work_never_starts(self, scene: Scene) -> None:
        """Pending, scheduled and retrying steps are over at once."""
        pending = scene.one("pending", run_id="1")
        scheduled = scene.one("scheduled", run_id="2", scheduled_at=scene.later(3600))
        retrying = scene.one("retrying", run_id="3", max_attempts=2)
        scene.end(scene.claim(retrying.id), failed(), retry=60)
        for step in (pending, scheduled, retrying):
            assert scene.store.ledger.request_cancel(step.id) is State.CANCELLED
            assert not scene.claimable(step.id, now=scene.later(7200))
            assert scene.step(step.id).finished_at is not None
        assert [one.state for one in scene.store.catalog.attempts(retrying.id)] == [State.FAILED]

    def test_the_end_is_not_before_the_request(self, scene: Scene) -> None:
        """A cancel ends a step when it is asked for, not at the step's start time."""
        step = scene.one(scheduled_at=scene.later(3600))
        scene.store.ledger.request_cancel(step.id)
        finished = scene.step(step.id).finished_at
        assert finished is not None
        assert scene.now <= finished < scene.later(1800)

    def test_a_cancelled_step_frees_its_target(self, scene: Scene) -> None:
        """The next request starts afresh."""
        step = scene.one()
        scene.store.ledger.request_cancel(step.id)
        assert scene.one(run_id="two").id != step.id

    def test_running_work_is_cancelling_until_it_is_over(self, scene: Scene) -> None:
        """The recorded wish stays until the attempt ends; it is not claimed again."""
        step = scene.one()
        claim = scene.claim(step.id)
        assert scene.store.ledger.request_cancel(step.id) is State.CANCELLING
        assert not scene.claimable(step.id)
        assert scene.run_state("run") is State.CANCELLING
        committed = scene.end(claim, stopped("by its token"))
        assert (committed.accepted, committed.state) == (True, State.CANCELLED)
        assert scene.run_state("run") is State.CANCELLED

    @pytest.mark.parametrize(
        ("outcome", "state"),
        [
            (stopped(), State.CANCELLED),
            (failed(), State.CANCELLED),
            (snoozed(5), State.CANCELLED),
            (skipped(), State.SKIPPED),
            (None, State.COMPLETED),
        ],
        ids=["stopped", "failed", "snoozed", "skipped", "succeeded"],
    )
    def test_an_attempt_reported_to_stop_ends(
        self, scene: Scene, outcome: AttemptOutcome | None, state: State
    ) -> None:
        """A cancel forbids another attempt; finished work is published, never thrown away."""
        step = scene.one(max_attempts=5)
        claim = scene.claim(step.id)
        scene.store.ledger.request_cancel(step.id)
        assert scene.end(claim, outcome or succeeded(claim), retry=1).state is state
        assert scene.state(step.id) is state
        assert not scene.claimable(step.id, now=scene.later(3600))
        assert len(scene.store.catalog.attempts(step.id)) == 1

    def test_release_does_not_lose_a_cancel(self, scene: Scene) -> None:
        """A worker that stops releases cancelled work: that is its end."""
        step = scene.one()
        claim = scene.claim(step.id)
        scene.store.ledger.request_cancel(step.id)
        assert scene.store.ledger.release([claim]) == [step.id]
        assert scene.state(step.id) is State.CANCELLED

    def test_cancelling_twice_says_the_same(self, scene: Scene) -> None:
        """The second request changes nothing."""
        queued, running = scene.one("a", run_id="1"), scene.one("b", run_id="2")
        scene.claim(running.id)
        for _ in range(2):
            assert scene.store.ledger.request_cancel(queued.id) is State.CANCELLED
            assert scene.store.ledger.request_cancel(running.id) is State.CANCELLING

    def test_after_the_end_the_answer_is_the_truth(self, scene: Scene) -> None:
        """What is over stays what it is."""
        done = scene.make("a", run_id="1")
        broken = scene.one("b", run_id="2")
        scene.end(scene.claim(broken.id), failed())
        reused = scene.one("a", run_id="3", reuse=done)
        before = [scene.step(step_id) for step_id in (done, broken.id, reused.id)]
        states = [scene.store.ledger.request_cancel(one.id) for one in before]
        assert states == [State.COMPLETED, State.FAILED, State.REUSED]
        assert [scene.step(one.id) for one in before] == before

    def test_unknown_ids_are_errors(self, scene: Scene) -> None:
        """Nobody believes to have cancelled what does not exist."""
        with pytest.raises(RunNotFoundError):
            scene.store.ledger.request_cancel(987654321)
        with pytest.raises(RunNotFoundError):
            scene.store.ledger.cancel_run("no such run")

    def test_downstream_is_reported(self, scene: Scene) -> None:
        """What waits for a cancelled step will not wait for ever."""
        a, b, c = scene.open(
            "run", [NewStep("a", ""), NewStep("b", "", inputs=(0,)), NewStep("c", "", inputs=(1,))]
        )
        scene.store.ledger.request_cancel(a.id)
        assert scene.states([b, c]) == [State.UPSTREAM_FAILED] * 2

    def test_a_waiting_step_can_be_cancelled_alone(self, scene: Scene) -> None:
        """Its inputs go on; their end does not revive it."""
        a, b, c = scene.open(
            "run", [NewStep("a", ""), NewStep("b", "", inputs=(0,)), NewStep("c", "", inputs=(1,))]
        )
        assert scene.store.ledger.request_cancel(b.id) is State.CANCELLED
        assert scene.states([a, c]) == [State.PENDING, State.UPSTREAM_FAILED]
        assert scene.end(scene.claim(a.id)).released == ()
        assert scene.state(b.id) is State.CANCELLED

    def test_cancel_run_ends_everything(self, scene: Scene) -> None:
        """Every step that is not over is cancelled, whatever it waits for; running ones are named."""
        steps = [
            NewStep("done", ""),
            NewStep("running", ""),
            NewStep("pending", ""),
            NewStep("waiting", "", inputs=(1, 2)),
            NewStep("below", "", inputs=(3,)),
            NewStep("later", "", scheduled_at=scene.later(3600)),
        ]
        placed = scene.open("run", steps)
        scene.end(scene.claim(placed[0].id))
        claim = scene.claim(placed[1].id)
        assert scene.store.ledger.cancel_run("run") == [placed[1].id]
        assert scene.states(placed) == [State.COMPLETED, State.CANCELLING, *[State.CANCELLED] * 4]
        assert scene.run_state("run") is State.CANCELLING
        scene.end(claim, stopped())
        assert scene.run_state("run") is State.CANCELLED
        assert scene.store.ledger.cancel_run("run") == []

    def test_cancel_run_spares_joined_steps(self, scene: Scene) -> None:
        """Work that belongs to another run goes on."""
        a = scene.one("a", run_id="owner")
        _, b = scene.open("guest", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        assert scene.store.ledger.cancel_run("guest") == []
        assert (scene.state(a.id), scene.state(b.id)) == (State.PENDING, State.CANCELLED)
        assert scene.end(scene.claim(a.id)).accepted

    def test_cancelling_an_owner_reports_the_guests(self, scene: Scene) -> None:
        """Steps of other runs that waited for it fail."""
        scene.one("a", run_id="owner")
        _, b = scene.open("guest", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        scene.store.ledger.cancel_run("owner")
        assert scene.state(b.id) is State.UPSTREAM_FAILED

    def test_cancelling_a_run_that_is_over_changes_nothing(self, scene: Scene) -> None:
        """A run that ended well stays so."""
        scene.make("a", run_id="run")
        assert scene.store.ledger.cancel_run("run") == []
        assert scene.run_state("run") is State.COMPLETED

    def test_handing_back_what_was_to_be_cancelled_ends_it(self, scene: Scene) -> None:
        """The attempt counts, because nobody will start the step again."""
        step = scene.one(max_attempts=3)
        claim = scene.claim(step.id)
        scene.store.ledger.request_cancel(step.id)
        assert scene.store.ledger.release([claim], delay_seconds=5.0) == [step.id]
        record = scene.step(step.id)
        assert (record.state, record.attempt) == (State.CANCELLED, 1)
        assert [(one.attempt, one.state) for one in scene.store.catalog.attempts(step.id)] == [
            (1, State.CANCELLED)
        ]

    def test_a_cancelled_run_stays_cancelled(self, scene: Scene) -> None:
        """Neither a step that ends well all the same nor the same request again makes it a success."""
        step = scene.one()
        claim = scene.claim(step.id)
        scene.store.ledger.cancel_run("run")
        assert scene.end(claim).state is State.COMPLETED
        assert scene.run_state("run") is State.CANCELLED
        scene.one()
        assert scene.run_state("run") is State.CANCELLED
        scene.one("b", run_id="other")
        scene.store.ledger.cancel_run("other")
        assert scene.one("b", run_id="other").deduplicated
        assert scene.run_state("other") is State.CANCELLED

    def test_what_is_over_is_not_cancelled_afterwards(self, scene: Scene) -> None:
        """Cancelling a run that completed changes nothing, also when the same request comes again."""
        scene.end(scene.claim(scene.one().id))
        scene.store.ledger.cancel_run("run")
        assert scene.run_state("run") is State.COMPLETED
        scene.one()
        assert scene.run_state("run") is State.COMPLETED
