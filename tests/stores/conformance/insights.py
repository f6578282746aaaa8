"""What people who watch are answered by every store."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from tests.stores.conformance.case import Scene, StoreCase, failed, succeeded

from flowstone.core.insights.assets import AssetCounts, StaleVersion
from flowstone.core.outcome import Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import CheckRecord, NewStep


class InsightsConformance(StoreCase):
    """The questions of pages mean the same everywhere; override `make_store`."""

    def test_one_snapshot_after_another(self, scene: Scene) -> None:
        """What is committed meanwhile is seen by the next one; nested ones are one."""
        reading = scene.store.reading()
        try:
            with reading.snapshot(), reading.snapshot():
                assert reading.catalog.run("run") is None
            placed = scene.one("a", run_id="run")
            with reading.snapshot():
                found = reading.catalog.step(placed.id)
                assert found is not None
                assert found.asset == "a"
            workers = reading.insights.fleet.workers(limit=1)
            assert len(workers) <= 1
            assert all(one.beat_age_seconds >= 0 for one in workers)
        finally:
            reading.close()

    def test_sums_equal_totals_after_every_step_of_a_history(self, scene: Scene) -> None:
        """Whatever was placed, failed, repeated, invalidated, cancelled: counts are those of the partitions."""
        chance, keys = random.Random(7), ["", "s:it's", "s:/../?#", "s:\u202e<script>", "(s:a|i:1)"]
        open_steps: list[int] = []
        last: dict[tuple[str, str], State] = {}
        pulses = set()
        for number in range(40):
            verb = chance.choice(["place", "succeed", "fail", "succeed", "fail", "invalidate", "cancel"])
            if verb == "place" or not open_steps:
                target = (chance.choice("ab"), chance.choice(keys))
                if target in {self._target(scene, one) for one in open_steps}:
                    continue
                open_steps.append(scene.one(*target, run_id=f"run {number}", forced=True).id)
            elif verb == "invalidate":
                scene.store.ledger.invalidate([chance.choice(sorted(last))] if last else [])
            else:
                step = open_steps.pop(chance.randrange(len(open_steps)))
                if verb == "cancel":
                    scene.store.ledger.request_cancel(step)
                else:
                    scene.end(scene.claim(step), failed() if verb == "fail" else None)
                last[self._target(scene, step)] = scene.state(step)
            self._check_sums(scene)
            pulses.add(scene.store.insights.pulse())
        assert len(pulses) > 25

    def _target(self, scene: Scene, step_id: int) -> tuple[str, str]:
        step = scene.step(step_id)
        return step.asset, step.partition_key

    def _check_sums(self, scene: Scene) -> None:
        insights = scene.store.insights.assets
        counted = {one.asset: one for one in insights.counts()}
        for name in "ab":
            targets, counts = insights.targets(name), counted.get(name, AssetCounts(name))
            assert counts.committed == len(targets.committed)
            assert counts.failed == len(targets.failed)
            assert counts.active == len(targets.active)
            assert (counts.committed_at is None) == (not targets.committed)
            current = scene.store.catalog.current([(name, key) for key in targets.committed])
            assert len(current) == len(targets.committed)
            newest: dict[str, State] = {}
            for step in scene.store.catalog.history(name, None):
                if step.state not in (State.CANCELLED, State.REUSED) and step.state.is_terminal:
                    newest.setdefault(step.partition_key, step.state)
            assert targets.failed == {key for key, state in newest.items() if state is State.FAILED}
        failures = insights.failures(["a", "b", "c"], limit=100)
        of_each = Counter(one.asset for one in failures)
        assert of_each == {name: one.failed for name, one in counted.items() if one.failed}
        assert [one.step_id for one in failures] == sorted((one.step_id for one in failures), reverse=True)
        assert len(insights.failures(["a", "b"], limit=1)) <= 2

    def test_stale_versions(self, scene: Scene) -> None:
        """An input with other content, or none; other code. The same content again is not."""
        insights = scene.store.insights.assets
        first = self._make(scene, "up", "h1")
        self._make(scene, "down", "h2", inputs=[first], code_version="1")
        assert insights.stale("down", "1", limit=10) == []
        assert insights.stale("down", None, limit=10) == []
        assert insights.stale("down", "2", limit=10) == [StaleVersion("")]
        self._make(scene, "up", "h1")
        assert insights.stale("down", "1", limit=10) == []
        self._make(scene, "up", "h3")
        assert insights.stale("down", "1", limit=10) == [StaleVersion("", "up", "")]
        scene.store.ledger.invalidate([("up", "")])
        assert insights.stale("down", "1", limit=10) == [StaleVersion("", "up", "")]
        assert insights.stale("down", "2", limit=0) == []

    def _make(
        self,
        scene: Scene,
        name: str,
        content: str,
        inputs: list[int] | None = None,
        code_version: str | None = None,
    ) -> int:
        run_id = f"{name} {content} {random.random()}"
        (placed,) = scene.open(run_id, [NewStep(name, "", forced=True, code_version=code_version)])
        claim = scene.claim(placed.id)
        done = succeeded(claim)
        assert isinstance(done.stored, StoredOutput)
        stored = replace(done.stored, content_hash=content)
        scene.end(claim, Succeeded(stored, None), inputs=inputs or ())
        return placed.id

    def test_usual_durations_and_failed_checks(self, scene: Scene) -> None:
        """Of each asset: the median of its versions, and checks whose newest result is a failure."""
        assert [one.usual_seconds for one in scene.store.insights.assets.health(["a", "gone"])] == [None, None]
        for key in ("s:x", "s:y"):
            scene.end(scene.claim(scene.one("a", key, run_id=f"run {key}").id))
        scene.end(scene.claim(scene.one("b", run_id="run b").id), failed())
        found = scene.store.insights.assets.health(["b", "a", "gone"])
        assert [one.asset for one in found] == ["b", "a", "gone"]
        assert [one.usual_seconds is not None for one in found] == [False, True, False]
        assert all(one.usual_seconds is None or one.usual_seconds >= 0 for one in found)
        assert scene.store.insights.assets.health([]) == []
        step = scene.store.catalog.current([("a", "s:x")])["a", "s:x"]
        for passed, expected in ((False, 1), (True, 0), (False, 1)):
            scene.store.checks.record([self._checked(step, passed=passed)])
            assert [one.failed_checks for one in scene.store.insights.assets.health(["a"])] == [expected]

    def _checked(self, step_id: int, *, passed: bool) -> CheckRecord:
        return CheckRecord(
            check="c",
            asset="a",
            partition_key=PartitionKey("s:x"),
            step_id=step_id,
            attempt=1,
            passed=passed,
            started_at=datetime.now(UTC),
        )
