"""Conformance of stores: reading what is committed and what happened."""

from __future__ import annotations

import threading
import time

from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import NewStep
from flowstone.testing.store_case import StoreCase
from flowstone.testing.store_scene import Scene, failed, skipped


class CatalogTests(StoreCase):
    """What the reading side of a store means."""

    def test_unknown_ids_have_no_answer(self, scene: Scene) -> None:
        """Asking for what is not there is no error."""
        catalog = scene.store.catalog
        assert catalog.step(987654321) is None
        assert catalog.run("nope") is None
        assert (catalog.steps("nope"), catalog.runs(), catalog.attempts(987654321)) == ([], [], [])
        assert catalog.history("nope", None) == catalog.history("nope", "s:x") == []
        assert (catalog.current([("nope", "")]), catalog.current([])) == ({}, {})
        assert (catalog.inputs([]), catalog.readers([])) == ({}, {})
        assert not catalog.inputs([987654321]).get(987654321)
        assert not catalog.readers([987654321]).get(987654321)
        assert catalog.resolve([("nope", "nope", "")]) == [None]
        assert catalog.resolve([]) == []

    def test_counts_and_state_of_a_run(self, scene: Scene) -> None:
        """A run is what its steps are."""
        steps = [NewStep("good", ""), NewStep("bad", ""), NewStep("below", "", inputs=(1,)), NewStep("skip", "")]
        placed = scene.open("run", steps, kind="backfill", selection="*", priority=8, max_concurrency=7)
        record = scene.store.catalog.run("run")
        assert record is not None
        assert (record.kind, record.selection, record.executor) == ("backfill", "*", "sync")
        assert (record.priority, record.max_concurrency, record.created_at) == (8, 7, scene.now)
        assert (record.state, record.finished_at, record.total, record.done) == (State.RUNNING, None, 4, 0)
        assert record.counts == {State.PENDING: 3, State.WAITING: 1}
        scene.end(scene.claim(placed[0].id))
        scene.end(scene.claim(placed[1].id), failed())
        scene.end(scene.claim(placed[3].id), skipped())
        record = scene.store.catalog.run("run")
        assert record is not None
        assert record.counts == {
            State.COMPLETED: 1,
            State.FAILED: 1,
            State.UPSTREAM_FAILED: 1,
            State.SKIPPED: 1,
        }
        assert (record.state, record.total, record.done) == (State.FAILED, 4, 4)
        assert record.finished_at is not None

    def test_a_run_counts_joined_steps(self, scene: Scene) -> None:
        """What was asked for is what is counted, whoever runs it; a run without own steps ends too."""
        a = scene.one("a", run_id="owner")
        scene.one("a", run_id="guest")
        record = scene.store.catalog.run("guest")
        assert record is not None
        assert (record.state, record.counts) == (State.RUNNING, {State.PENDING: 1})
        assert [step.id for step in scene.store.catalog.steps("guest")] == [a.id]
        scene.end(scene.claim(a.id))
        record = scene.store.catalog.run("guest")
        assert record is not None
        assert (record.state, record.counts) == (State.COMPLETED, {State.COMPLETED: 1})
        assert record.finished_at is not None

    def test_the_newest_runs_come_first(self, scene: Scene) -> None:
        """And only as many as asked for."""
        for number in range(5):
            scene.one("a", f"i:{number}", run_id=f"run-{number}")
        ids = [one.id for one in scene.store.catalog.runs(limit=3)]
        assert ids == ["run-4", "run-3", "run-2"]

    def test_steps_come_in_the_order_of_planning(self, scene: Scene) -> None:
        """All, or those in one state, at most `limit`."""
        placed = scene.open("run", [NewStep(name, "") for name in "dbca"])
        catalog = scene.store.catalog
        assert [step.asset for step in catalog.steps("run")] == ["d", "b", "c", "a"]
        scene.end(scene.claim(placed[1].id))
        assert [step.asset for step in catalog.steps("run", state=State.PENDING)] == ["d", "c", "a"]
        assert [step.asset for step in catalog.steps("run", state=State.COMPLETED)] == ["b"]
        assert [step.asset for step in catalog.steps("run", limit=2)] == ["d", "b"]

    def test_history_is_newest_first(self, scene: Scene) -> None:
        """Of an asset, of one partition, in one state."""
        first = scene.make("a", "s:x", run_id="1")
        second = scene.make("a", "s:y", run_id="2")
        third = scene.make("a", "s:x", run_id="3")
        broken = scene.one("a", "s:x", run_id="4", forced=True)
        scene.end(scene.claim(broken.id), failed())
        scene.make("b", "s:x", run_id="5")
        catalog = scene.store.catalog
        assert [one.id for one in catalog.history("a", None)] == [broken.id, third, second, first]
        assert [one.id for one in catalog.history("a", "s:x")] == [broken.id, third, first]
        assert [one.id for one in catalog.history("a", "s:x", state=State.COMPLETED)] == [third, first]
        assert [one.id for one in catalog.history("a", None, limit=2)] == [broken.id, third]
        assert catalog.history("a", "") == []

    def test_resolve_prefers_the_own_run(self, scene: Scene) -> None:
        """Inside a run its own result wins, even when another run committed later."""
        own, child = scene.open("mine", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        scene.end(scene.claim(own.id))
        newer = scene.make("a", run_id="other")
        mine, theirs = scene.store.catalog.resolve([("mine", "a", ""), ("third", "a", "")])
        assert mine is not None
        assert theirs is not None
        assert (mine.step_id, theirs.step_id) == (own.id, newer)
        assert mine.stored == scene.step(own.id).stored
        assert scene.state(child.id) is State.PENDING

    def test_resolve_follows_reuse(self, scene: Scene) -> None:
        """A reused step names the step whose output serves, also after a newer one was committed."""
        made = scene.make("a", run_id="1")
        scene.open("run", [NewStep("a", "", reuse=made)])
        scene.make("a", run_id="2")
        (found,) = scene.store.catalog.resolve([("run", "a", "")])
        assert found is not None
        assert found.step_id == made
        assert found.stored == scene.step(made).stored

    def test_resolve_reads_only_what_is_committed(self, scene: Scene) -> None:
        """A step under way, or failed, is no version; answers come in the order of the questions."""
        made = scene.make("a", "s:1", run_id="1")
        scene.claim(scene.one("a", "s:2", run_id="2").id)
        broken = scene.one("a", "s:3", run_id="3")
        scene.end(scene.claim(broken.id), failed())
        requested = [("2", "a", "s:2"), ("x", "a", "s:1"), ("3", "a", "s:3"), ("x", "a", "s:1")]
        found = [one.step_id if one else None for one in scene.store.catalog.resolve(requested)]
        assert found == [None, made, None, made]

    def test_lineage_names_exact_steps(self, scene: Scene) -> None:
        """A reader of an old version stays a reader of the old version."""
        old = scene.make("a", run_id="1")
        first = scene.make("b", run_id="2", inputs=[old])
        new = scene.make("a", run_id="3")
        second = scene.make("b", run_id="4", inputs=[new])
        catalog = scene.store.catalog
        assert {key: tuple(read) for key, read in catalog.readers([old, new]).items()} == {
            old: (first,),
            new: (second,),
        }
        inputs = catalog.inputs([first, second])
        assert [one.step_id for one in inputs[first]] == [old]
        assert [one.step_id for one in inputs[second]] == [new]

    def test_when_the_version_in_use_was_started(self, scene: Scene) -> None:
        """A version is distinguished from one that was started earlier; the run's own result is marked as such."""
        made = scene.make("a", run_id="one")
        started = scene.step(made).started_at
        catalog = scene.store.catalog
        assert catalog.started([("a", ""), ("nobody", "")]) == {("a", ""): started}
        assert catalog.started([]) == {}
        (own,), (other,) = catalog.resolve([("one", "a", "")]), catalog.resolve([("other", "a", "")])
        assert own is not None
        assert other is not None
        assert (own.started_at, own.own) == (started, True)
        assert (other.started_at, other.own) == (started, False)
        committed = scene.store.target_statuses.status([("a", "")])["a", ""].committed
        assert committed is not None
        assert committed.started_at == started

    def test_what_is_invalidated_is_not_current(self, scene: Scene) -> None:
        """An invalidated version is out of use at once; its record stays."""
        made = scene.make("a", run_id="one")
        assert scene.store.ledger.invalidate([("a", ""), ("nobody", "")]) == 1
        assert scene.store.catalog.current([("a", "")]) == {}
        assert scene.store.catalog.resolve([("other", "a", "")]) == [None]
        assert scene.state(made) is State.COMPLETED
        assert scene.store.ledger.invalidate([("a", "")]) == 0

    def test_failed_attempts_are_no_readers(self, scene: Scene) -> None:
        """Only what was published counts as made from something."""
        read = scene.make("a", run_id="1")
        broken = scene.one("b", run_id="2")
        scene.end(scene.claim(broken.id), failed(), inputs=[read])
        assert not scene.store.catalog.readers([read]).get(read)

    def test_wait_is_over_at_once(self, scene: Scene) -> None:
        """When the steps, and the run, are over."""
        made = scene.make("a", run_id="run")
        assert scene.store.catalog.wait([made], timeout_seconds=0)
        assert scene.store.catalog.wait([], run_id="run", timeout_seconds=0)
        assert scene.store.catalog.wait([made], run_id="run", timeout_seconds=30)

    def test_wait_gives_up(self, scene: Scene) -> None:
        """False when the time is up; no sooner."""
        step = scene.one()
        started = time.monotonic()
        assert not scene.store.catalog.wait([step.id], timeout_seconds=0.05)
        assert not scene.store.catalog.wait([], run_id="run", timeout_seconds=0.05)
        assert time.monotonic() - started >= 0.09
        assert not scene.store.catalog.wait([step.id], timeout_seconds=0)

    def test_wait_wakes_up(self, scene: Scene) -> None:
        """Threads that wait for a step or a run learn of the end long before their time is up."""
        step = scene.open("run", [NewStep("a", "")], watched=True)[0]
        claim = scene.claim(step.id)
        answers: list[bool] = []
        waiting = [
            threading.Thread(
                target=lambda: answers.append(scene.store.catalog.wait([step.id], timeout_seconds=30))
            ),
            threading.Thread(
                target=lambda: answers.append(scene.store.catalog.wait([], run_id="run", timeout_seconds=30))
            ),
        ]
        started = time.monotonic()
        for thread in waiting:
            thread.start()
        scene.end(claim)
        for thread in waiting:
            thread.join(30)
        assert answers == [True, True]
        assert time.monotonic() - started < 20

    def test_waiting_ends_with_a_cancel(self, scene: Scene) -> None:
        """A cancel is an end too."""
        step = scene.open("run", [NewStep("a", "")], watched=True)[0]
        answers: list[bool] = []
        thread = threading.Thread(
            target=lambda: answers.append(scene.store.catalog.wait([step.id], timeout_seconds=30))
        )
        thread.start()
        scene.store.ledger.request_cancel(step.id)
        thread.join(30)
        assert answers == [True]

    def test_an_asset_is_forgotten_as_a_whole(self, scene: Scene) -> None:
        """Its steps, its current versions and their values; what read it stays."""
        first, again = scene.make("a", run_id="one"), scene.make("a", run_id="two")
        reader = scene.one("b", run_id="three")
        scene.end(scene.claim(reader.id), inputs=[again])
        retention = scene.store.retention
        counts, unfinished = retention.recorded_of("a")
        assert (counts.steps, counts.values, unfinished) == (2, 2, 0)
        discarded: list[StoredOutput] = []
        assert retention.prune_asset("a", discard=discarded.extend) == counts
        assert len(discarded) == 2
        assert [scene.store.catalog.step(one) for one in (first, again)] == [None, None]
        assert scene.store.catalog.current([("a", ""), ("b", "")]) == {("b", ""): reader.id}
        assert scene.store.catalog.history("a", None) == []
        assert retention.recorded_of("a")[0].steps == 0
