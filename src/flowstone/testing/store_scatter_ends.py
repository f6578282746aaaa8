"""Conformance of stores: items that fail too often, and items whose step ends without them."""

from __future__ import annotations

import pytest

from flowstone.core.state import State
from flowstone.testing.store_case import StoreCase
from flowstone.testing.store_scattering import NEW, Scattering, items
from flowstone.testing.store_scene import Scene, failed


class ScatterEndTests(StoreCase):
    """Items without a purpose are cancelled."""

    def test_too_many_failures_stop_the_rest(self, scene: Scene) -> None:
        """What has not started is cancelled, what runs is signalled; then the step goes on."""
        one = Scattering(scene)
        one.discover(*"abcdef")
        running = scene.claim(one.item("f"))
        one.fail("a")
        assert one.states("cde") == [State.PENDING] * 3
        one.fail("b")
        assert one.states("cdef") == [State.CANCELLED] * 3 + [State.CANCELLING]
        assert one.state is State.WAITING
        scene.end(running)
        assert (one.state, scene.run_state(one.run_id)) == (State.PENDING, State.FAILED)
        assert one.store.counts(one.run_id).by_state == {
            State.COMPLETED: 1,
            State.FAILED: 2,
            State.CANCELLED: 3,
        }

    def test_too_many_failures_end_the_discovery(self, scene: Scene) -> None:
        """No more items are taken then."""
        one = Scattering(scene)
        claim, opened = one.open()
        assert one.store.add(opened, items(*"abc"))
        one.fail("a", "b")
        assert one.states("c") == [State.CANCELLED]
        assert one.store.add(opened, items("d", start=3)) is False
        one.close(claim, 3)
        assert one.state is State.PENDING

    def test_a_share_is_judged_when_all_are_discovered(self, scene: Scene) -> None:
        """Before that nobody knows of how many."""
        one = Scattering(scene, max_failures=None)
        claim, opened = one.open()
        assert one.store.add(opened, items(*"abcd"))
        one.fail("a", "b")
        assert one.states("cd") == [State.PENDING] * 2
        one.close(claim, 4, allowed=1)
        assert one.states("cd") == [State.CANCELLED] * 2
        assert one.state is State.PENDING

    @pytest.mark.parametrize("when", ["discovering", "resting"])
    def test_items_of_a_cancelled_step(self, scene: Scene, when: str) -> None:
        """They have no purpose any more."""
        one = Scattering(scene)
        claim, opened = one.open()
        assert one.store.add(opened, items(*"abc"))
        running = scene.claim(one.item("a"))
        if when == "resting":
            one.close(claim, 3)
        scene.store.ledger.cancel_run("run")
        if when == "discovering":
            assert one.state is State.CANCELLING
            one.close(claim, 3)
        assert (one.state, one.states("abc")) == (
            State.CANCELLED,
            [State.CANCELLING, State.CANCELLED, State.CANCELLED],
        )
        blocked = Scattering(scene, "another")
        other = blocked.open()
        assert other[1].is_blocked
        scene.end(running)
        assert scene.run_state(one.run_id) is State.CANCELLED
        assert one.state is State.CANCELLED
        assert not blocked.store.begin(blocked.step, other[0].token, NEW).is_blocked  # type: ignore[union-attr]

    def test_items_of_a_failed_discovery(self, scene: Scene) -> None:
        """They are cancelled with it."""
        one = Scattering(scene)
        claim, opened = one.open()
        assert one.store.add(opened, items(*"ab"))
        scene.end(claim, failed())
        assert (one.state, one.states("ab")) == (State.FAILED, [State.CANCELLED] * 2)
        assert scene.run_state(one.run_id) is State.CANCELLED
