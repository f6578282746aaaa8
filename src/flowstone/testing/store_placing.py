"""Conformance of stores: opening runs, placing steps, joining what is under way."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from flowstone.core.state import State
from flowstone.core.step import NewStep, PlacedStep
from flowstone.testing.store_case import HOSTILE_TEXTS, StoreCase
from flowstone.testing.store_scene import Scene, failed


class PlacingTests(StoreCase):
    """What `open_run` means."""

    def test_steps_without_inputs_are_pending(self, scene: Scene) -> None:
        """A placed step carries everything that was asked for."""
        step = scene.one("a", "s:eu", queue="q", priority=2, max_attempts=5, code_version="v7")
        record = scene.step(step.id)
        assert (step.state, step.deduplicated, step.run_id) == (State.PENDING, False, "run")
        assert (record.asset, record.partition, record.queue, record.priority) == ("a", "s:eu", "q", 2)
        assert (record.attempt, record.max_attempts, record.code_version) == (0, 5, "v7")
        assert (record.state, record.executor, record.created_at) == (State.PENDING, "sync", scene.now)

    @pytest.mark.parametrize("end", ["active", "completed", "failed"])
    @pytest.mark.parametrize("forced", [False, True])
    def test_what_was_placed_lately_answers(self, scene: Scene, end: str, forced: bool) -> None:
        """Over or not, forced or not; a run without that wish computes as ever."""
        first = scene.one(run_id="first")
        if end != "active":
            scene.end(scene.claim(first.id), failed() if end == "failed" else None)
        (again,) = scene.open("second", [NewStep("a", "", forced=forced)], unique_seconds=600.0)
        assert (again.id, again.run_id, again.deduplicated) == (first.id, "first", True)
        assert again.state is scene.state(first.id)
        expected = {"active": State.RUNNING, "completed": State.COMPLETED, "failed": State.FAILED}
        assert scene.run_state("second") is expected[end]
        if end != "active":
            assert not scene.one(run_id="third", forced=True).deduplicated

    def test_what_reads_a_step_placed_lately_goes_on_from_there(self, scene: Scene) -> None:
        """Its readers start when it has a result, and end with it when it failed."""
        first, second = scene.one("a", run_id="a"), scene.one("b", run_id="b")
        scene.end(scene.claim(first.id))
        scene.end(scene.claim(second.id), failed())
        steps = [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(0,)), NewStep("d", "", inputs=(1,))]
        placed = scene.open("all", steps, unique_seconds=600.0)
        assert [one.deduplicated for one in placed] == [True, True, False, False]
        assert [one.state for one in placed[2:]] == [State.PENDING, State.UPSTREAM_FAILED]

    def test_a_run_without_steps_is_over(self, scene: Scene) -> None:
        """Nothing to do is done."""
        assert scene.open("run", []) == []
        assert scene.run_state("run") is State.COMPLETED

    def test_steps_wait_for_their_inputs(self, scene: Scene) -> None:
        """The counter of a waiting step is the number of inputs that are not over."""
        a, b, c = scene.open("run", [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(0, 1))])
        assert [a.state, b.state, c.state] == [State.PENDING, State.PENDING, State.WAITING]
        assert scene.step(c.id).waiting_on == 2
        assert not scene.claimable(c.id)
        assert scene.end(scene.claim(a.id)).released == ()
        assert scene.step(c.id).waiting_on == 1
        assert scene.end(scene.claim(b.id)).released == (c.id,)
        assert (scene.step(c.id).waiting_on, scene.state(c.id)) == (0, State.PENDING)

    def test_a_later_start_is_scheduled(self, scene: Scene) -> None:
        """A step with a start time cannot be claimed before it."""
        due = scene.now + timedelta(hours=1)
        step = scene.one(scheduled_at=due)
        assert step.state is State.SCHEDULED
        assert scene.step(step.id).scheduled_at == due
        assert scene.store.ledger.claim([step.id], now=due - timedelta(seconds=1)) == []
        assert scene.claim(step.id, now=due).step_id == step.id

    def test_a_start_time_outlasts_waiting(self, scene: Scene) -> None:
        """Released early, a step still starts no earlier than asked."""
        due = scene.now + timedelta(hours=1)
        a, b = scene.open("run", [NewStep("a", ""), NewStep("b", "", inputs=(0,), scheduled_at=due)])
        scene.end(scene.claim(a.id))
        assert scene.state(b.id) is State.SCHEDULED
        assert not scene.claimable(b.id)
        assert scene.claim(b.id, now=due).attempt == 1

    def test_joins_what_is_under_way(self, scene: Scene) -> None:
        """One active step per target: a second request gets the first one's step, and the better priority."""
        first = scene.one("a", "s:x", priority=5)
        urgent = scene.one("a", "s:x", run_id="two", priority=1)
        lazy = scene.one("a", "s:x", run_id="three", priority=9)
        other = scene.one("a", "s:y", run_id="four")
        assert urgent == lazy == PlacedStep(first.id, "run", State.PENDING, deduplicated=True)
        assert scene.step(first.id).priority == 1
        assert other.id != first.id
        assert not other.deduplicated

    def test_joins_in_every_active_state(self, scene: Scene) -> None:
        """Waiting, running, retrying and cancelling steps are under way too."""
        _, waiting = scene.open("run", [NewStep("root", ""), NewStep("waiting", "", inputs=(0,))])
        running = scene.one("running", run_id="r")
        scene.claim(running.id)
        retrying = scene.one("retrying", run_id="t", max_attempts=2)
        scene.end(scene.claim(retrying.id), failed(), retry=60)
        cancelling = scene.one("cancelling", run_id="c")
        scene.claim(cancelling.id)
        scene.store.ledger.request_cancel(cancelling.id)
        names = ["waiting", "running", "retrying", "cancelling"]
        joined = scene.open("second", [NewStep(name, "") for name in names])
        assert [one.id for one in joined] == [waiting.id, running.id, retrying.id, cancelling.id]
        assert [one.state.value for one in joined] == names
        assert all(one.deduplicated for one in joined)

    def test_what_is_over_is_not_joined(self, scene: Scene) -> None:
        """After the end, a new request gets a step of its own."""
        first = scene.one()
        scene.end(scene.claim(first.id), failed())
        second = scene.one(run_id="two")
        assert (second.id != first.id, second.state, second.deduplicated) == (True, State.PENDING, False)

    def test_what_was_committed_since_the_plan_serves(self, scene: Scene) -> None:
        """A request planned before another one's commit does not compute again, unless that is forced."""
        made = scene.make("a", run_id="quicker")
        reused, below = scene.open("run", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        assert (reused.state, below.state, reused.deduplicated) == (State.REUSED, State.PENDING, False)
        assert scene.step(reused.id).output_step == made
        assert scene.one("a", run_id="forced", forced=True).state is State.PENDING

    def test_children_wait_for_joined_steps(self, scene: Scene) -> None:
        """A step of one run may wait for a step of another."""
        a = scene.one("a", run_id="first")
        joined, b = scene.open("second", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        assert (joined.id, b.state) == (a.id, State.WAITING)
        assert scene.run_state("second") is State.RUNNING
        assert scene.end(scene.claim(a.id)).released == (b.id,)
        scene.end(scene.claim(b.id))
        assert scene.run_state("second") is State.COMPLETED

    def test_the_same_run_again_answers_with_the_same_steps(self, scene: Scene) -> None:
        """A run id is idempotent, before and after the end."""
        first = scene.one()
        again = scene.one()
        assert (again.id, again.deduplicated) == (first.id, True)
        scene.end(scene.claim(first.id))
        after = scene.one()
        assert (after.id, after.state, after.deduplicated) == (first.id, State.COMPLETED, True)
        assert len(scene.store.catalog.steps("run")) == 1
        assert len(scene.store.catalog.runs()) == 1

    def test_reused_steps_are_over_at_once(self, scene: Scene) -> None:
        """A target that is served by an earlier step needs no attempt."""
        made = scene.make("a", run_id="first")
        reused, b = scene.open("run", [NewStep("a", "", reuse=made), NewStep("b", "", inputs=(0,))])
        record = scene.step(reused.id)
        assert (reused.state, b.state) == (State.REUSED, State.PENDING)
        assert (record.output_step, record.stored) == (made, scene.step(made).stored)
        assert not scene.claimable(reused.id)
        assert scene.store.catalog.current([("a", "")]) == {("a", ""): made}

    def test_a_run_of_reused_steps_is_over(self, scene: Scene) -> None:
        """Such a run has an end as well."""
        made = scene.make("a", run_id="first")
        scene.open("run", [NewStep("a", "", reuse=made)])
        record = scene.store.catalog.run("run")
        assert record is not None
        assert record.state is State.COMPLETED
        assert record.finished_at is not None

    def test_reusing_does_not_join(self, scene: Scene) -> None:
        """A committed version serves although a recomputation is under way."""
        made = scene.make("a", run_id="first")
        scene.one("a", run_id="again", forced=True)
        reused = scene.one("a", run_id="third", reuse=made)
        assert (reused.state, reused.deduplicated) == (State.REUSED, False)

    def test_a_target_twice_in_one_batch_is_one_step(self, scene: Scene) -> None:
        """Uniqueness holds inside a batch."""
        first, second = scene.open("run", [NewStep("a", ""), NewStep("a", "")])
        assert (second.id, second.deduplicated) == (first.id, True)

    def test_a_step_placed_below_a_failed_one_fails_at_once(self, scene: Scene) -> None:
        """Adding to a run whose input has failed for good must not wait, and not run on old data."""
        a = scene.one("a")
        scene.end(scene.claim(a.id), failed())
        _, b = scene.open("run", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        assert scene.state(b.id) is State.UPSTREAM_FAILED
        assert scene.run_state("run") is State.FAILED

    @pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
    def test_hostile_names_are_only_names(self, scene: Scene, text: str) -> None:
        """Assets, partitions and runs may have any text."""
        run_id = text[:200]
        placed, child = scene.open(run_id, [NewStep(text, text), NewStep("b", text, inputs=(0,))], selection=text)
        assert scene.one(text, text, run_id="join").id == placed.id
        scene.end(scene.claim(placed.id))
        record = scene.step(placed.id)
        assert (record.asset, record.partition, record.run_id) == (text, text, run_id)
        assert scene.store.catalog.current([(text, text)]) == {(text, text): placed.id}
        assert [one.id for one in scene.store.catalog.history(text, text)] == [placed.id]
        assert [one.id for one in scene.store.catalog.steps(run_id)] == [placed.id, child.id]

    def test_names_that_look_alike_are_different(self, scene: Scene) -> None:
        """No folding of case, form or space."""
        names = ["a", "A", "a ", "caf\u00e9", "cafe\u0301", ""]
        placed = scene.open("run", [NewStep("x", name) for name in names])
        assert len({one.id for one in placed}) == len(names)

    def test_fifty_requests_at_once_share_one_step(self, scene: Scene) -> None:
        """Uniqueness holds under concurrency; exactly one request owns the step."""
        start = threading.Barrier(10)

        def request(number: int) -> PlacedStep:
            if number < 10:
                start.wait()
            return scene.one(run_id=f"run-{number}")

        with ThreadPoolExecutor(10) as pool:
            placed = list(pool.map(request, range(50)))
        assert len({one.id for one in placed}) == 1
        assert sum(not one.deduplicated for one in placed) == 1
