"""Lists of runs in every store: who, what, how many steps, without anything that is not there."""

from __future__ import annotations

from tests.stores.conformance.case import Scene, StoreCase, failed, skipped

from flowstone.core.run_details import RunDetails
from flowstone.core.state import State
from flowstone.core.step import NewStep, RunRecord


class RunListTests(StoreCase):
    """What a list says of runs is what counting their steps would say."""

    def listed(self, scene: Scene, run_id: str) -> RunRecord:
        return next(run for run in scene.store.catalog.runs() if run.id == run_id)

    def test_counts_are_those_of_the_steps_when_a_run_is_over(self, scene: Scene) -> None:
        placed = scene.open("1", [NewStep(name, "") for name in "abc"] + [NewStep("d", "", inputs=(0,))])
        scene.end(scene.claim(placed[0].id), failed())
        scene.end(scene.claim(placed[1].id), skipped())
        assert self.listed(scene, "1").total == 4
        scene.end(scene.claim(placed[2].id))
        run = self.listed(scene, "1")
        assert run.state is State.FAILED
        assert run.counts == {State.FAILED: 1, State.UPSTREAM_FAILED: 1, State.SKIPPED: 1, State.COMPLETED: 1}
        assert run.counts == scene.store.catalog.run("1").counts  # type: ignore[union-attr]

    def test_counts_of_an_open_run_add_up(self, scene: Scene) -> None:
        placed = scene.open("1", [NewStep(name, "") for name in "abcdef"])
        scene.end(scene.claim(placed[0].id))
        scene.end(scene.claim(placed[1].id), failed())
        scene.store.ledger.request_cancel(placed[2].id)
        scene.claim(placed[3].id)
        expected = {
            State.COMPLETED: 1,
            State.FAILED: 1,
            State.CANCELLED: 1,
            State.RUNNING: 1,
            State.PENDING: 2,
        }
        assert self.listed(scene, "1").counts == expected

    def test_what_was_joined_or_reused_counts_for_both(self, scene: Scene) -> None:
        first = scene.one("a", run_id="1")
        made = scene.make("b", run_id="2")
        joined = scene.open("3", [NewStep("a", ""), NewStep("b", "", reuse=made), NewStep("c", "")])
        assert joined[0].id == first.id
        assert self.listed(scene, "3").total == 3
        scene.end(scene.claim(joined[2].id))
        assert self.listed(scene, "3").state is State.RUNNING
        scene.end(scene.claim(first.id))
        assert self.listed(scene, "3").counts == {State.COMPLETED: 2, State.REUSED: 1}
        assert self.listed(scene, "1").counts == {State.COMPLETED: 1}

    def test_a_run_that_has_nothing_to_do_is_counted(self, scene: Scene) -> None:
        made = scene.make("a", run_id="1")
        scene.open("2", [NewStep("a", "", reuse=made)])
        assert self.listed(scene, "2").counts == {State.REUSED: 1}
        scene.open("2", [NewStep("a", "", reuse=made), NewStep("b", "")])
        again = self.listed(scene, "2")
        assert (again.total, again.done, again.counts[State.PENDING]) == (2, 1, 1)

    def test_a_cancelled_run_is_counted(self, scene: Scene) -> None:
        placed = scene.open("1", [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(1,))])
        scene.end(scene.claim(placed[0].id))
        scene.store.ledger.cancel_run("1")
        run = self.listed(scene, "1")
        assert (run.state, run.counts) == (State.CANCELLED, {State.COMPLETED: 1, State.CANCELLED: 2})

    def test_a_run_says_which_partitions_were_asked_for(self, scene: Scene) -> None:
        scene.open("1", [NewStep("a", key) for key in ("s:x", "s:b", "s:c")], assets=("a",))
        scene.open("2", [NewStep("up", "s:x"), NewStep("b", "", inputs=(0,))], assets=("b",))
        found = {
            run.id: (run.first_partition, run.last_partition, run.partitions) for run in scene.store.catalog.runs()
        }
        assert found == {"1": ("s:x", "s:c", 3), "2": (None, None, None)}

    def test_tags_find_runs(self, scene: Scene) -> None:
        scene.open("1", [NewStep("a", "")], details=RunDetails(tags=("x", "y")))
        scene.open("2", [NewStep("b", "")])
        assert [run.id for run in scene.store.catalog.runs(tag="y")] == ["1"]
