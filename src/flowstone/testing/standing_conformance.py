"""What every store must answer about how targets stand, as tests to run on yours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from flowstone.core.automation.facts import DataVersion, TargetStatus
from flowstone.core.automation.record import AutomationId, AutomationKind, Conclusion
from flowstone.core.outcome import AttemptOutcome, Stopped, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import NewStep, Target
from flowstone.testing.store_case import HOSTILE_TEXTS, StoreCase
from flowstone.testing.store_scene import Scene, failed, skipped


class TargetStatusConformance(StoreCase):
    """Tests of `Store.target_statuses`; make a subclass whose name starts with `Test`.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(TargetStatusConformance):
        ...     def make_store(self):
        ...         return MemoryStore()
    """

    def test_nothing_is_known_of_what_nobody_asked_for(self, scene: Scene) -> None:
        """Unknown targets, steps and assets are left out."""
        target_statuses = scene.store.target_statuses
        assert (target_statuses.status([]), target_statuses.reads([]), target_statuses.active([])) == ({}, {}, {})
        assert target_statuses.status([("nope", ""), ("nope", "s:x")]) == {}
        assert (target_statuses.reads([987654321]), target_statuses.active(["nope"])) == ({}, {})

    def test_the_version_in_use(self, scene: Scene) -> None:
        """The newest committed step, its hash, its code, its time."""
        first = _make(scene, "a", "s:x", content="one", code="1")
        again = _make(scene, "a", "s:x", content="two", code="2")
        found = _of(scene, "a", "s:x")
        assert found.committed is not None
        assert (found.committed.data, found.committed.code_version) == (DataVersion(again, "two"), "2")
        assert found.newest is not None
        assert (found.newest.step_id, found.newest.state, found.active) == (again, State.COMPLETED, None)
        assert found.without_result is None
        assert found.newest.requested_at <= found.committed.committed_at
        assert first < again

    def test_what_is_active(self, scene: Scene) -> None:
        """A step that is not over, beside the version in use; a reused step is not in the way."""
        made = _make(scene, "a", "", content="one")
        step = scene.one("a", "", run_id="forced", forced=True)
        reused = scene.open("lazy", [NewStep("a", "", reuse=made)])
        found = _of(scene, "a")
        assert scene.state(reused[0].id) is State.REUSED
        assert found.active is not None
        assert (found.active.step_id, found.active.state, found.active.run_id) == (
            step.id,
            State.PENDING,
            "forced",
        )
        scene.claim(step.id)
        running = _of(scene, "a").active
        assert running is not None
        assert (running.state, running.started_at is not None) == (State.RUNNING, True)

    def test_what_ended_without_a_result(self, scene: Scene) -> None:
        """Failed, skipped or cancelled, with what it had read; the version before stays in use."""
        old, new = _make(scene, "up", "", content="1"), _make(scene, "up", "", content="2")
        made = _make(scene, "a", "", content="one", inputs=[old])
        outcomes: list[AttemptOutcome] = [failed(), skipped(), Stopped("asked to")]
        for number, outcome in enumerate(outcomes):
            step = _end(scene, f"try-{number}", "a", outcome, inputs=[new])
            found = _of(scene, "a")
            assert found.committed is not None
            assert found.committed.data.step_id == made
            assert found.without_result is not None
            assert found.without_result.step_id == step
            assert found.without_result.finished_at is not None
            reads = scene.store.target_statuses.reads([made, step])
            assert reads == {
                made: {("up", ""): DataVersion(old, "1")},
                step: {("up", ""): DataVersion(new, "2")},
            }
        assert tuple(scene.store.catalog.readers([new]).get(new, ())) == (), "a failed try is no reader"

    def test_a_try_between_is_not_over(self, scene: Scene) -> None:
        """An attempt that is followed by another one leaves the step active."""
        step = scene.one("a", "", run_id="retried", max_attempts=2)
        scene.end(scene.claim(step.id), failed(), retry=60.0)
        found = _of(scene, "a")
        assert found.without_result is None
        assert found.active is not None
        assert found.active.state is State.RETRYING

    def test_cancelled_before_it_started(self, scene: Scene) -> None:
        """It ended without a result and had read nothing."""
        step = scene.one("a", "", run_id="cancelled")
        scene.store.ledger.request_cancel(step.id)
        found = _of(scene, "a").without_result
        assert found is not None
        assert (found.step_id, found.state, found.started_at) == (step.id, State.CANCELLED, None)
        assert scene.store.target_statuses.reads([step.id]) == {}

    def test_what_is_invalidated_is_not_in_use(self, scene: Scene) -> None:
        """The newest step stays known."""
        made = _make(scene, "a", "", content="one")
        scene.store.ledger.invalidate([("a", "")])
        found = _of(scene, "a")
        assert found.committed is None
        assert found.newest is not None
        assert (found.newest.step_id, found.newest.is_without_result) == (made, False)

    def test_many_targets_at_once(self, scene: Scene) -> None:
        """Each answer belongs to its own target, whatever the names are."""
        made: dict[Target, int] = {}
        for number, text in enumerate(HOSTILE_TEXTS):
            for target in ((text, ""), ("a", text)):
                made[target] = _make(scene, *target, content=f"{number}{target == ('a', text)}")
        found = scene.store.target_statuses.status([*made, ("nobody", "")])
        assert {t: one.committed.data.step_id for t, one in found.items() if one.committed} == made

    def test_active_steps_are_counted_by_asset(self, scene: Scene) -> None:
        """Of all partitions, in every state that is not over."""
        steps = scene.open("run", [NewStep("a", f"i:{number}") for number in range(3)] + [NewStep("b", "")])
        scene.end(scene.claim(steps[0].id))
        scene.claim(steps[1].id)
        assert scene.store.target_statuses.active(["a", "b", "c"]) == {"a": 2, "b": 1}
        assert scene.store.target_statuses.active(["b"]) == {"b": 1}

    def test_a_conclusion_wakes_others(self, scene: Scene) -> None:
        """What is due later is due now; what waits for a person goes on waiting; unknown ones do not matter."""
        automations = scene.store.automations
        first, later, never, nobody = (AutomationId(AutomationKind.CONDITION, name) for name in "abcd")
        automations.declare([first, later, never])
        far = datetime.now(UTC) + timedelta(days=1)
        for one in automations.take([later, never], lease_seconds=60, limit=2):
            automations.conclude(one, Conclusion(cursor=None, due_at=far if one.record.id == later else None))
        assert automations.take([later, never], lease_seconds=60, limit=2) == []
        (taken,) = automations.take([first], lease_seconds=60)
        automations.conclude(taken, Conclusion(cursor=None, due_at=far, wakes=[later, never, nobody]))
        woken = automations.take([first, later, never], lease_seconds=60, limit=3)
        assert [one.record.id for one in woken] == [later]


def _of(scene: Scene, asset: str, partition: str = "") -> TargetStatus:
    return scene.store.target_statuses.status([(asset, partition)])[asset, partition]


def _make(
    scene: Scene, asset: str, partition: str, *, content: str, code: str | None = None, inputs: Sequence[int] = ()
) -> int:
    """Commit a version with this content hash; return its step."""
    run_id = f"{asset[:40]}-{partition[:40]}-{content}"
    placed = scene.one(asset, partition, run_id=run_id, forced=True, code_version=code)
    stored = StoredOutput("memory", f"{placed.id}-1", content_hash=content)
    scene.end(scene.claim(placed.id), Succeeded(stored, None), inputs=inputs)
    return placed.id


def _end(scene: Scene, run_id: str, asset: str, outcome: AttemptOutcome, *, inputs: Sequence[int]) -> int:
    placed = scene.one(asset, "", run_id=run_id, forced=True)
    claim = scene.claim(placed.id)
    if isinstance(outcome, Stopped):
        scene.store.ledger.request_cancel(placed.id)
    scene.end(claim, outcome, inputs=inputs)
    return placed.id
