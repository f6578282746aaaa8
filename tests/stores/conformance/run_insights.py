"""What people see of runs, in every store: filters, pages, groups; sums equal totals whatever happened."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed, skipped

from flowstone.core.asset import Asset
from flowstone.core.graph import AssetGraph
from flowstone.core.run_details import RunDetails
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import NewStep
from flowstone.engine.insights.runs import RunView, run_lines, run_view, step_lines
from flowstone.errors import OptionsError, RunNotFoundError

_FILTERS = [
    ("", "123"),
    ("state:running", "1"),
    ("state:failed state:cancelled", "23"),
    ("-state:failed", "13"),
    ("state:paused", ""),
    ("kind:backfill", "1"),
    ("-kind:backfill", "23"),
    ("asset:c", "23"),
    ("asset:a asset:b", "12"),
    ("-asset:c", "1"),
    ("by:ann", "1"),
    ("by:*", "1"),
    ("-by:ann", "23"),
    ("-by:*", "23"),
    ("automation:nightly", "2"),
    ("automation:*", "2"),
    ("-automation:nightly", "13"),
    ("-automation:*", "13"),
    ('tag:"month end"', "3"),
    ("-tag:x", "12"),
    ("since:24h", "12"),
    ("until:1h", "23"),
    ("-since:24h", "3"),
    ("state:failed automation:nightly asset:b -kind:backfill since:24h", "2"),
    ("state:failed by:ann", ""),
    ("items_of:1", ""),
]
GRAPH = AssetGraph(list[Asset[..., object]]())


class RunInsightsTests(StoreCase):
    """The questions of the pages of runs."""

    def ids(self, scene: Scene, text: str, **options: object) -> list[str]:
        page = run_lines(scene.store, RunFilter.parse(text), now=scene.now, **options)  # type: ignore[arg-type]
        return [run.id for run in page.items]

    def view(self, scene: Scene, run_id: str) -> RunView:
        return run_view(scene.store, GRAPH, run_id, now=scene.later(5))

    @pytest.fixture
    def some(self, scene: Scene) -> Scene:
        """Runs of several kinds, people, automations, tags, states."""
        ann = {"requested_by": "ann", "requested_via": "cli"}
        nightly = {"requested_by": "nightly", "requested_via": "automation"}
        scene.open("1", [NewStep("a", "")], kind="backfill", assets=("a",), created_at=scene.now, **ann)
        old = scene.now - timedelta(hours=5)
        made = scene.open("2", [NewStep("b", "")], kind="schedule", assets=("b", "c"), created_at=old, **nightly)
        scene.end(scene.claim(made[0].id), failed())
        older = scene.now - timedelta(days=3)
        details = RunDetails(tags=("month end", "x"))
        scene.open("3", [NewStep("c", "")], assets=("c",), created_at=older, details=details)
        scene.store.ledger.cancel_run("3")
        return scene

    def test_filters(self, some: Scene) -> None:
        for text, expected in _FILTERS:
            assert self.ids(some, text) == list(expected), text
            requested = RunFilter.parse(text)
            assert some.store.insights.runs.count(requested, limit=10) == len(expected)
            assert some.store.insights.runs.count(requested, limit=1) == min(1, len(expected))

    def test_any_text_is_a_value(self, some: Scene) -> None:
        for number, text in enumerate(HOSTILE_TEXTS):
            details = RunDetails(tags=(text,))
            fields = {"assets": (text,), "requested_by": text, "requested_via": "web", "details": details}
            some.open(f"h{number}", [NewStep(text, "")], kind=text[:50], **fields)
            requested = RunFilter(asset=(text,), by=(text,), tag=(text,), kind=(text[:50],))
            assert RunFilter.parse(str(requested)) == requested
            assert self.ids(some, str(requested)) == [f"h{number}"]

    def test_pages_neither_repeat_nor_hide(self, scene: Scene) -> None:
        """Also where many runs were asked for in the same moment (airflow#66933)."""
        for number in range(23):
            scene.open(f"r{number:02}", [NewStep("a", f"s:{number}")], created_at=scene.now)
        found: list[str] = []
        cursor = None
        while True:
            page = run_lines(scene.store, RunFilter(), cursor=cursor, limit=5, now=scene.now)
            found += [run.id for run in page.items]
            scene.open(
                f"z{len(found)}", [NewStep("a", f"s:z{len(found)}")], created_at=scene.now + timedelta(days=1)
            )
            cursor = page.next
            if cursor is None or len(found) > 30:
                break
            assert page.total is not None
            assert page.total >= 23
        assert [one for one in found if one[0] == "r"] == [f"r{number:02}" for number in reversed(range(23))]

    def test_a_cursor_of_nobody_is_refused(self, scene: Scene) -> None:
        for cursor in ("x", "e30", "WyJhIl0", "WzEsMl0", "WyJhIiwiYiJd"):
            with pytest.raises(OptionsError):
                run_lines(scene.store, RunFilter(), cursor=cursor, now=scene.now)

    def test_failures_are_grouped_by_what_they_say(self, scene: Scene) -> None:
        """By class and line, numbers aside, the most frequent first (dagster#12741)."""
        placed = scene.open("1", [NewStep("a", f"s:{number}") for number in range(5)] + [NewStep("b", "")])
        for number, one in enumerate(placed[:4]):
            scene.end(scene.claim(one.id), failed(f"Row {number} of file 17 is bad"))
        scene.end(scene.claim(placed[4].id), failed("no disk", error_type="builtins.OSError"))
        scene.end(scene.claim(placed[5].id))
        view = self.view(scene, "1")
        first, second = view.errors
        assert (first.number, first.line, first.assets) == (4, "Row 3 of file 17 is bad", ("a",))
        assert [one.partition for one in first.examples] == ["3", "2", "1"]
        assert (second.number, second.error_type) == (1, "builtins.OSError")
        assert view.assets[0].asset == "a", "what broke comes first"
        lines = step_lines(scene.store, "1", error_type="builtins.OSError").items
        assert [one.step.partition for one in lines] == ["4"]
        assert len(step_lines(scene.store, "1", states=(State.COMPLETED,), assets=("b",)).items) == 1

    def test_the_critical_path_is_the_chain_that_took_longest(self, scene: Scene) -> None:
        steps = [NewStep("a", ""), NewStep("b", ""), NewStep("c", "", inputs=(0, 1))]
        a, b, c = scene.open("1", steps)
        slow, quick = scene.claim(a.id, now=scene.now), scene.claim(b.id)
        scene.end(quick)
        scene.end(slow)
        scene.end(scene.claim(c.id), inputs=(a.id, b.id))
        view = self.view(scene, "1")
        assert {bar.asset for bar in view.bars if bar.is_critical} == {"a", "c"}
        assert view.critical_seconds is not None
        assert view.critical_seconds > 0

    def test_sums_of_runs_equal_totals_after_every_step_of_a_history(self, scene: Scene) -> None:
        chance = random.Random(5)
        runs: list[str] = []
        for number in range(60):
            verb = chance.choice(
                ["open", "claim", "claim", "end", "end", "fail", "skip", "retry", "cancel", "cancel run"]
            )
            active = [one for run in runs for one in scene.store.catalog.steps(run) if not one.state.is_terminal]
            if verb == "open" or not active:
                run_id = f"run {number}"
                names = chance.sample("abcd", 3)
                steps = [NewStep(name, chance.choice(["", "s:x"])) for name in names]
                steps[2].inputs = (0, 1)
                scene.open(run_id, steps, assets=tuple(names))
                runs.append(run_id)
            elif verb == "cancel run":
                scene.store.ledger.cancel_run(chance.choice(runs))
            else:
                step = chance.choice(active)
                if verb == "cancel":
                    scene.store.ledger.request_cancel(step.id)
                elif claims := scene.store.ledger.claim([step.id], now=scene.later(100)):
                    outcome = {"fail": failed(), "retry": failed(), "skip": skipped()}.get(verb)
                    if verb != "claim":
                        scene.end(claims[0], outcome, retry=1 if verb == "retry" else None)
            self.check_sums(scene, runs)

    def check_sums(self, scene: Scene, runs: list[str]) -> None:
        page = run_lines(scene.store, RunFilter(), limit=500, now=scene.later(200))
        assert sorted(run.id for run in page.items) == sorted(runs)
        assert page.total == len(runs)
        for run in page.items:
            steps = scene.store.catalog.steps(run.id)
            counts = run.counts
            assert counts.total == len(steps)
            assert counts.done + counts.running + counts.waiting == counts.total
            assert counts.done == sum(step.state.is_terminal for step in steps)
            assert counts.running == sum(step.state in (State.RUNNING, State.CANCELLING) for step in steps)
            assert counts.failed == sum(step.state in (State.FAILED, State.UPSTREAM_FAILED) for step in steps)
            assert counts.cancelled == sum(step.state is State.CANCELLED for step in steps)
            assert (run.finished_at is None) == (run.state in ("running", "cancelling"))
            assert run.took_seconds >= 0
            view = self.view(scene, run.id)
            assert sum(one.total for one in view.assets) == counts.total
            own_failures = sum(step.state is State.FAILED and step.run_id == run.id for step in steps)
            assert sum(one.number for one in view.errors) == own_failures

    def test_a_large_run_is_what_its_counters_say(self, scene: Scene) -> None:
        placed = scene.open("1", [NewStep("a", f"s:{number}") for number in range(3)], assets=("a",))
        runs = scene.store.insights.runs
        assert runs.groups("1", from_counters=True) is None
        for one in placed:
            scene.end(scene.claim(one.id))
        (group,) = runs.groups("1", from_counters=True) or []
        assert (group.asset, group.counts) == ("a", {State.COMPLETED: 3})
        (strip,) = runs.strips("1", limit=5)
        assert (strip.asset, strip.codes) == ("a", "ccc")
        (stretch,) = self.view(scene, "1").strips[0].stretches
        assert (stretch.state, stretch.number) == ("completed", 3)

    def test_time_left_comes_from_runs_like_it(self, scene: Scene) -> None:
        for number in range(3):
            at = scene.now - timedelta(seconds=100 * (number + 1))
            (placed,) = scene.open(f"old{number}", [NewStep("a", "", forced=True)], created_at=at)
            scene.end(scene.claim(placed.id))
        scene.open("new", [NewStep("a", "", forced=True)], created_at=scene.now + timedelta(seconds=1))
        usual = scene.store.insights.runs.usual_seconds(["new", "nothing"])
        assert list(usual) == ["new"]
        assert usual["new"] > 50

    def test_what_is_not_there_is_an_error(self, scene: Scene) -> None:
        with pytest.raises(RunNotFoundError):
            self.view(scene, "nothing")
        assert step_lines(scene.store, "nothing").items == ()
