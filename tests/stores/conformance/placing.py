"""Placing in every store: runs, joins, decisions about branches, and what an end means downstream."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed, skipped, stopped

from flowstone.core.outcome import AttemptOutcome, Skipped, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.route import ALL_SKIPPED, ROUTE_KEY, RouteDecision, decision_of
from flowstone.core.state import State
from flowstone.core.step import Attempt, NewStep, PlacedStep


class PlacingTests(StoreCase):
    """What `open_run` means."""

    def test_steps_without_inputs_are_pending(self, scene: Scene) -> None:
        """A placed step carries everything that was asked for."""
        step = scene.one("a", "s:eu", queue="q", priority=2, max_attempts=5, code_version="v7")
        record = scene.step(step.id)
        assert (step.state, step.deduplicated, step.run_id) == (State.PENDING, False, "run")
        assert (record.asset, record.partition_key, record.queue, record.priority) == ("a", "s:eu", "q", 2)
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
        assert (record.asset, record.partition_key, record.run_id) == (text, text, run_id)
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


_FORK = [
    NewStep("fork", ""),
    NewStep("left", "", inputs=(0,)),
    NewStep("right", "", inputs=(0,)),
    NewStep("below right", "", inputs=(2,)),
    NewStep("meeting", "", inputs=(1, 3), optional=(1, 3), all_optional=True),
    NewStep("beside", "", inputs=(0,)),
]


def routed(claim: Attempt, *not_chosen: str, chosen: tuple[str, ...] = (), reason: str = "") -> Succeeded:
    """Return a success that chose some branches."""
    decision = RouteDecision(chosen, not_chosen, reason)
    return Succeeded(StoredOutput("memory", f"{claim.step_id}", metadata={ROUTE_KEY: decision.to_json()}), None)


class RouteStoreTests(StoreCase):
    """What is not chosen ends in the transaction of the choice; counters stay exact."""

    def test_what_is_not_chosen_is_skipped_with_what_is_below(self, scene: Scene) -> None:
        """Chosen ones, and those that nobody decides about, are released by the same commit."""
        fork, left, right, below, meeting, beside = scene.open("run", _FORK)
        claim = scene.claim(fork.id)
        committed = scene.end(claim, routed(claim, "right", chosen=("left",), reason="small"))
        assert sorted(committed.released) == [left.id, beside.id]
        assert (scene.state(right.id), scene.step(right.id).reason) == (State.SKIPPED, "not chosen by fork: small")
        assert (scene.state(below.id), scene.step(below.id).reason) == (
            State.SKIPPED,
            "input right ended as skipped",
        )
        assert (scene.state(meeting.id), scene.step(meeting.id).waiting_on) == (State.WAITING, 1)
        scene.end(scene.claim(beside.id))
        assert scene.end(scene.claim(left.id)).released == (meeting.id,)
        assert scene.run_state("run") is State.RUNNING
        scene.end(scene.claim(meeting.id))
        record = scene.store.catalog.run("run")
        assert record is not None
        assert (record.state, record.counts) == (State.COMPLETED, {State.COMPLETED: 4, State.SKIPPED: 2})

    def test_nobody_is_chosen(self, scene: Scene) -> None:
        """A step that can do without each of its inputs cannot do without all of them."""
        fork, left, right, below, meeting, beside = scene.open("run", _FORK)
        claim = scene.claim(fork.id)
        assert scene.end(claim, routed(claim, "left", "right")).released == (beside.id,)
        assert scene.states([left, right, below, meeting]) == [State.SKIPPED] * 4
        assert scene.step(meeting.id).reason == ALL_SKIPPED
        scene.end(scene.claim(beside.id))
        assert scene.run_state("run") is State.COMPLETED

    def test_a_superseded_choice_decides_nothing(self, scene: Scene) -> None:
        """The fencing token guards decisions as well."""
        fork, left, right, *_ = scene.open("run", _FORK)
        old = scene.claim(fork.id)
        scene.store.ledger.release([old])
        new = scene.claim(fork.id)
        assert not scene.end(old, routed(old, "left")).accepted
        assert scene.states([left, right]) == [State.WAITING] * 2
        assert scene.end(new, routed(new, "right", chosen=("left",))).accepted
        assert scene.states([left, right]) == [State.PENDING, State.SKIPPED]

    def test_a_choice_reaches_runs_that_joined(self, scene: Scene) -> None:
        """Their branches hang on the same step."""
        fork = scene.one("fork", run_id="owner")
        _, left, right, *_ = scene.open("guest", _FORK)
        claim = scene.claim(fork.id)
        scene.end(claim, routed(claim, "right", chosen=("left",)))
        assert scene.states([left, right]) == [State.PENDING, State.SKIPPED]

    @pytest.mark.parametrize("first", ["skip", "success"])
    def test_optional_inputs_in_any_order(self, scene: Scene, first: str) -> None:
        """One value is enough; a skip is counted as an input that came."""
        a, b, c = scene.open("run", [NewStep("a", ""), NewStep("b", ""), _both()])
        outcomes = {a.id: skipped(), b.id: None}
        one, other = (a.id, b.id) if first == "skip" else (b.id, a.id)
        assert scene.end(scene.claim(one), outcomes[one]).released == ()
        assert scene.step(c.id).waiting_on == 1
        assert scene.end(scene.claim(other), outcomes[other]).released == (c.id,)
        assert scene.step(c.id).waiting_on == 0

    def test_a_failure_is_no_skip(self, scene: Scene) -> None:
        """What failed is missed, optional or not."""
        a, b, c = scene.open("run", [NewStep("a", ""), NewStep("b", ""), _both()])
        scene.end(scene.claim(a.id), skipped())
        scene.end(scene.claim(b.id), failed())
        assert scene.state(c.id) is State.UPSTREAM_FAILED

    def test_a_required_input_that_was_skipped(self, scene: Scene) -> None:
        """Skips at once, whatever the optional ones do; what still runs changes nothing."""
        steps = [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(0, 1), optional=(0,))]
        a, b, c = scene.open("run", steps)
        running = scene.claim(a.id)
        scene.end(scene.claim(b.id), skipped())
        assert scene.state(c.id) is State.SKIPPED
        assert scene.end(running).released == ()

    def test_skips_walk_through_meetings(self, scene: Scene) -> None:
        """A meeting that is skipped is an input that was skipped, level by level, all in one commit."""
        steps = [NewStep("a", "")]
        for level in range(20):
            at = 3 * level
            steps += [
                NewStep("left", f"i:{level}", inputs=(at,)),
                NewStep("right", f"i:{level}", inputs=(at,)),
                NewStep(
                    "meeting", f"i:{level}", inputs=(at + 1, at + 2), optional=(at + 1, at + 2), all_optional=True
                ),
            ]
        last = NewStep("end", "", inputs=(0, len(steps) - 1), optional=(len(steps) - 1,))
        placed = scene.open("run", [*steps, last])
        scene.end(scene.claim(placed[0].id), skipped())
        assert scene.states(placed) == [State.SKIPPED] * len(placed)
        assert scene.run_state("run") is State.COMPLETED

    def test_steps_that_are_over_when_placed(self, scene: Scene) -> None:
        """What is known not to be chosen is skipped from the start, and what cannot do without it."""
        steps = [
            NewStep("right", "", skip="not chosen by fork"),
            NewStep("below", "", inputs=(0,)),
            NewStep("other", ""),
            NewStep("meeting", "", inputs=(1, 2), optional=(1, 2), all_optional=True),
            NewStep("alone", "", inputs=(0, 1), optional=(0, 1), all_optional=True),
        ]
        right, below, other, meeting, alone = scene.open("run", steps)
        assert [one.state for one in (right, below, alone)] == [State.SKIPPED] * 3
        assert [scene.step(one.id).reason for one in (right, below, alone)] == [
            "not chosen by fork",
            "input right ended as skipped",
            ALL_SKIPPED,
        ]
        assert scene.step(right.id).finished_at is not None
        assert scene.step(meeting.id).waiting_on == 1
        assert scene.end(scene.claim(other.id)).released == (meeting.id,)
        scene.end(scene.claim(meeting.id))
        assert scene.run_state("run") is State.COMPLETED

    def test_a_run_of_nothing_but_skips_is_over(self, scene: Scene) -> None:
        """There is nothing to wait for; and the target is free for whoever forces it."""
        scene.make("right", run_id="before")
        (right,) = scene.open("run", [NewStep("right", "", skip="not chosen")])
        assert (right.state, right.deduplicated) == (State.SKIPPED, False)
        assert scene.run_state("run") is State.COMPLETED
        assert scene.one("right", run_id="other", forced=True).state is State.PENDING

    def test_what_was_skipped_is_reported(self, scene: Scene) -> None:
        """By the run itself, else the latest time that there was a result or a skip."""
        requested = [("run", "a", ""), ("", "a", ""), ("run", "nobody", "")]
        catalog = scene.store.catalog
        assert catalog.skipped(requested) == set()
        placed = scene.one("a", run_id="run")
        scene.end(scene.claim(placed.id), skipped())
        assert catalog.skipped(requested) == {0, 1}
        scene.make("a", run_id="later")
        assert catalog.skipped(requested) == {0}
        scene.open("latest", [NewStep("a", "", skip="not chosen")])
        assert catalog.skipped([("later", "a", ""), *requested[1:]]) == {1}
        assert catalog.skipped([]) == set()

    def test_decisions_are_read(self, scene: Scene) -> None:
        """As they were made, whatever the names look like, with the version."""
        (placed,) = scene.open("run", [NewStep("fork", "")])
        claim = scene.claim(placed.id)
        scene.end(claim, routed(claim, *HOSTILE_TEXTS, chosen=HOSTILE_TEXTS[:2], reason=HOSTILE_TEXTS[1]))
        (version,) = scene.store.catalog.resolve([("", "fork", "")])
        assert version is not None
        assert decision_of(version.stored) == RouteDecision(HOSTILE_TEXTS[:2], HOSTILE_TEXTS, HOSTILE_TEXTS[1])

    def test_hostile_names_are_left_out(self, scene: Scene) -> None:
        """Names are compared as they are."""
        steps = [NewStep("fork", ""), *(NewStep(name, "", inputs=(0,)) for name in HOSTILE_TEXTS)]
        fork, *branches = scene.open("run", steps)
        claim = scene.claim(fork.id)
        scene.end(claim, routed(claim, *HOSTILE_TEXTS[::2], reason=HOSTILE_TEXTS[1]))
        states = scene.states(branches)
        assert states == [State.PENDING if at % 2 else State.SKIPPED for at in range(len(branches))]
        assert scene.step(branches[0].id).reason == f"not chosen by fork: {HOSTILE_TEXTS[1]}"


def _both() -> NewStep:
    return NewStep("c", "", inputs=(0, 1), optional=(0, 1), all_optional=True)


DIAMOND = [
    NewStep("top", ""),
    NewStep("left", "", inputs=(0,)),
    NewStep("right", "", inputs=(0,)),
    NewStep("bottom", "", inputs=(1, 2)),
    NewStep("end", "", inputs=(3,)),
    NewStep("aside", ""),
]
_LONG = 10_000


class CascadeTests(StoreCase):
    """Releases and failures travel through graphs at once."""

    def test_success_walks_through_a_diamond(self, scene: Scene) -> None:
        """Each step is released exactly once, by its last input."""
        placed = scene.open("run", DIAMOND)
        top, left, right, bottom, end, _ = (one.id for one in placed)
        assert sorted(scene.end(scene.claim(top)).released) == [left, right]
        assert scene.end(scene.claim(right)).released == ()
        assert scene.end(scene.claim(left)).released == (bottom,)
        assert scene.end(scene.claim(bottom)).released == (end,)

    def test_failure_falls_through_a_diamond(self, scene: Scene) -> None:
        """Everything below is `upstream_failed` at once and says why; the rest goes on."""
        placed = scene.open("run", DIAMOND)
        assert self._end_top(scene, failed()) == State.FAILED
        assert scene.states(placed)[1:] == [*[State.UPSTREAM_FAILED] * 4, State.PENDING]
        reason = scene.step(placed[1].id).reason
        assert reason is not None
        assert "top" in reason
        assert scene.step(placed[4].id).finished_at is not None
        assert scene.run_state("run") is State.RUNNING
        scene.end(scene.claim(placed[5].id))
        assert scene.run_state("run") is State.FAILED

    def test_skips_fall_through_a_diamond(self, scene: Scene) -> None:
        """What depends on a skipped step is skipped, and the run is no failure."""
        placed = scene.open("run", DIAMOND[:5])
        assert self._end_top(scene, skipped()) == State.SKIPPED
        assert scene.states(placed) == [State.SKIPPED] * 5
        assert scene.run_state("run") is State.COMPLETED

    def test_a_cancelled_attempt_fails_what_follows(self, scene: Scene) -> None:
        """Downstream learns that its input will never come."""
        placed = scene.open("run", DIAMOND[:5])
        assert self._end_top(scene, stopped()) == State.CANCELLED
        assert scene.states(placed)[1:] == [State.UPSTREAM_FAILED] * 4

    def test_one_failed_input_is_enough(self, scene: Scene) -> None:
        """A step fails although another of its inputs still runs, whose end changes nothing."""
        steps = [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(0, 1))]
        a, b, c = scene.open("run", steps)
        running = scene.claim(b.id)
        scene.end(scene.claim(a.id), failed())
        assert scene.state(c.id) is State.UPSTREAM_FAILED
        committed = scene.end(running)
        assert (committed.state, committed.released) == (State.COMPLETED, ())
        assert scene.state(c.id) is State.UPSTREAM_FAILED

    def test_a_retry_keeps_downstream_waiting(self, scene: Scene) -> None:
        """Nothing falls while there is hope."""
        a, b = scene.open("run", [NewStep("a", "", max_attempts=2), NewStep("b", "", inputs=(0,))])
        scene.end(scene.claim(a.id), failed(), retry=0)
        assert scene.state(b.id) is State.WAITING
        scene.end(scene.claim(a.id, now=scene.later(60)))
        assert scene.state(b.id) is State.PENDING

    def test_failures_cross_into_joined_runs(self, scene: Scene) -> None:
        """Runs that joined a step learn of its end like the run that owns it."""
        a = scene.one("a", run_id="owner")
        _, b = scene.open("guest", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        scene.end(scene.claim(a.id), failed())
        assert scene.state(b.id) is State.UPSTREAM_FAILED
        assert scene.run_state("owner") is State.FAILED
        assert scene.run_state("guest") is State.FAILED

    def test_releases_cross_into_joined_runs(self, scene: Scene) -> None:
        """One commit releases the steps of all runs that waited for it."""
        a = scene.one("a", run_id="owner")
        guests = [
            scene.open(f"guest-{name}", [NewStep("a", ""), NewStep(name, "", inputs=(0,))])[1].id for name in "bcd"
        ]
        assert sorted(scene.end(scene.claim(a.id)).released) == sorted(guests)

    def test_a_failure_falls_down_a_long_chain(self, scene: Scene) -> None:
        """Ten thousand steps, without recursion and without seconds per step."""
        placed = scene.open("run", chain(_LONG))
        scene.end(scene.claim(placed[0].id), failed())
        record = scene.store.catalog.run("run")
        assert record is not None
        assert record.counts == {State.FAILED: 1, State.UPSTREAM_FAILED: _LONG - 1}
        assert record.state is State.FAILED
        assert scene.state(placed[-1].id) is State.UPSTREAM_FAILED

    def test_a_long_chain_is_cancelled(self, scene: Scene) -> None:
        """Cancelling is one transaction for any size."""
        scene.open("run", chain(_LONG))
        assert scene.store.ledger.cancel_run("run") == []
        record = scene.store.catalog.run("run")
        assert record is not None
        assert record.counts == {State.CANCELLED: _LONG}

    def test_a_wide_step_releases_all(self, scene: Scene) -> None:
        """One commit may release thousands."""
        width = 2000
        steps = [NewStep("a", ""), *(NewStep("b", f"i:{number}", inputs=(0,)) for number in range(width))]
        a, *rest = scene.open("run", steps)
        assert set(scene.end(scene.claim(a.id)).released) == {one.id for one in rest}

    def test_many_inputs_are_counted(self, scene: Scene) -> None:
        """A skip among many inputs skips the step that reads them all."""
        width = 200
        steps = [NewStep("a", f"i:{number}") for number in range(width)]
        *inputs, last = scene.open("run", [*steps, NewStep("b", "", inputs=tuple(range(width)))])
        assert scene.step(last.id).waiting_on == width
        for one in inputs[1:]:
            scene.end(scene.claim(one.id))
        assert scene.step(last.id).waiting_on == 1
        scene.end(scene.claim(inputs[0].id), Skipped("no"))
        assert scene.state(last.id) is State.SKIPPED

    def _end_top(self, scene: Scene, outcome: AttemptOutcome) -> State:
        top = scene.store.catalog.steps("run")[0]
        return scene.end(scene.claim(top.id), outcome).state


def chain(length: int) -> list[NewStep]:
    """Return steps of which each reads the one before.

    Example:
        >>> [step.inputs for step in chain(3)]
        [(), (0,), (1,)]
    """
    return [NewStep("link", f"i:{at}", inputs=(at - 1,) if at else ()) for at in range(length)]
