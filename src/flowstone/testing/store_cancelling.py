"""Conformance of stores: cancelling steps and runs in every state."""

from __future__ import annotations

import pytest

from flowstone.core.outcome import AttemptOutcome
from flowstone.core.state import State
from flowstone.core.step import NewStep
from flowstone.errors import RunNotFoundError
from flowstone.testing.store_case import StoreCase
from flowstone.testing.store_scene import Scene, failed, skipped, snoozed, stopped, succeeded


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
