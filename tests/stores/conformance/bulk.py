"""One action on many runs, in every store: done to all that match, written into the log once."""

from __future__ import annotations

from datetime import timedelta

from tests.stores.conformance.case import Scene, StoreCase

from flowstone.core.actor import Actor, acting
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import NewStep


class BulkTests(StoreCase):
    """Cancel and reprioritize; what matches is what the list of runs shows."""

    def test_all_that_match_are_cancelled(self, scene: Scene) -> None:
        for number in range(5):
            kind = "backfill" if number < 3 else "schedule"
            scene.open(
                f"r{number}", [NewStep("a", f"s:{number}"), NewStep("b", f"s:{number}", inputs=(0,))], kind=kind
            )
        running = next(iter(scene.store.catalog.steps("r1")))
        scene.claim(running.id)
        scene.make("c", run_id="done")
        requested = RunFilter(kind=("backfill",))
        found = scene.store.bulk.matching(requested, scene.later(1), limit=10)
        assert sorted(found) == ["r0", "r1", "r2"]
        assert len(scene.store.bulk.matching(requested, scene.later(1), limit=2)) == 2
        with acting(Actor("ann", "web")):
            assert scene.store.bulk.cancel_runs([*found, "nothing"], {"filter": str(requested)}) == [running.id]
        states = {run.id: run.state for run in scene.store.catalog.runs()}
        assert (states["r0"], states["r2"]) == (State.CANCELLED, State.CANCELLED)
        assert states["r1"] is State.CANCELLING
        assert states["r3"] is State.RUNNING
        (line,) = scene.store.audit.lines()
        assert (line.actor, line.action, line.details) == ("ann", "runs.cancelled", {"filter": "kind:backfill"})
        assert scene.store.bulk.cancel_runs(found, {}) == [running.id], "what runs is asked to stop again"

    def test_some_steps_of_a_run_are_cancelled(self, scene: Scene) -> None:
        placed = scene.open("1", [NewStep(name, key) for name in "ab" for key in ("s:x", "s:y")])
        chosen = scene.store.insights.runs.steps("1", assets=["a"], limit=10)
        assert scene.store.bulk.cancel_steps("1", [one.id for one in chosen], {"assets": ["a"]}) == []
        assert scene.states(placed) == [State.CANCELLED] * 2 + [State.PENDING] * 2
        (line,) = scene.store.audit.lines()
        assert (line.action, line.subject, line.details) == (
            "steps.cancelled",
            "run:1",
            {"steps": 2, "assets": ["a"]},
        )

    def test_runs_get_another_priority(self, scene: Scene) -> None:
        for number in range(3):
            scene.open(f"r{number}", [NewStep("a", f"s:{number}"), NewStep("b", f"s:{number}")])
        done = scene.make("c", run_id="done")
        first = scene.store.catalog.steps("r0")[0].id
        scene.end(scene.claim(first))
        assert scene.store.bulk.set_priority(["r0", "r1", "done"], 1, {"filter": "x"}) == 2
        priorities = {run.id: run.priority for run in scene.store.catalog.runs()}
        assert (priorities["r0"], priorities["r2"], priorities["done"]) == (1, 4, 4)
        assert [step.priority for step in scene.store.catalog.steps("r0")] == [4, 1]
        assert scene.step(done).priority == 4
        (line,) = scene.store.audit.lines()
        assert (line.action, line.details) == ("runs.prioritized", {"priority": 1, "filter": "x"})
        assert scene.store.bulk.set_priority(["r1"], 2, {}) == 1
        assert scene.store.audit.lines()[0].subject == "run:r1"
        assert scene.store.bulk.set_window("r1", 5) is False, "it has none"

    def test_what_matches_is_what_the_list_shows(self, scene: Scene) -> None:
        for number in range(4):
            at = scene.now - timedelta(hours=number)
            scene.open(f"r{number}", [NewStep("a", f"s:{number}")], created_at=at)
        for text in ("", "since:90m", "until:90m", "-state:running", "state:running"):
            requested = RunFilter.parse(text)
            shown = [run.id for run in scene.store.insights.runs.page(requested, limit=10)]
            assert sorted(scene.store.bulk.matching(requested, scene.later(1), limit=10)) == sorted(shown)
