"""Conformance of stores: decisions about branches, inputs that may be skipped, steps that are over when placed."""

from __future__ import annotations

import pytest

from flowstone.core.outcome import Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.route import ALL_SKIPPED, ROUTE_KEY, RouteDecision, decision_of
from flowstone.core.state import State
from flowstone.core.step import Claim, NewStep
from flowstone.testing.store_case import HOSTILE_TEXTS, StoreCase
from flowstone.testing.store_scene import Scene, failed, skipped

_FORK = [
    NewStep("fork", ""),
    NewStep("left", "", inputs=(0,)),
    NewStep("right", "", inputs=(0,)),
    NewStep("below right", "", inputs=(2,)),
    NewStep("meeting", "", inputs=(1, 3), optional=(1, 3), all_optional=True),
    NewStep("beside", "", inputs=(0,)),
]


def routed(claim: Claim, *not_chosen: str, chosen: tuple[str, ...] = (), reason: str = "") -> Succeeded:
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
