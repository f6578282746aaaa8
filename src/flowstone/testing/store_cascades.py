"""Conformance of stores: what an end means for everything downstream."""

from __future__ import annotations

from flowstone.core.outcome import AttemptOutcome, Skipped
from flowstone.core.state import State
from flowstone.core.step import NewStep
from flowstone.testing.store_case import StoreCase
from flowstone.testing.store_scene import Scene, failed, skipped, stopped

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
