"""Conformance of stores: items that a step discovers, and the step that rests until they are over."""

from __future__ import annotations

import pytest

from flowstone.core.outcome import Scattered
from flowstone.core.scatter import WITH_VALUE, NewItem
from flowstone.core.state import State
from flowstone.core.step import InputVersion
from flowstone.testing.store_case import HOSTILE_TEXTS, StoreCase
from flowstone.testing.store_scattering import NEW, Scattering, items
from flowstone.testing.store_scene import Scene, failed


class ScatterStoreTests(StoreCase):
    """Items are steps of a run of their own; its end lets the step that scattered them go on, once."""

    def test_the_step_rests_until_its_items_are_over(self, scene: Scene) -> None:
        """Items may run while others are still discovered; their end alone does not end their run."""
        one = Scattering(scene)
        claim, opened = one.open()
        assert one.store.add(opened, items("x"))
        one.end("x")
        assert (one.state, scene.run_state(one.run_id)) == (State.RUNNING, State.RUNNING)
        assert one.store.add(opened, items("y", "z", start=1))
        one.close(claim, 3)
        assert (one.state, scene.step(one.step).attempt) == (State.WAITING, 0)
        assert "3 items" in (scene.step(one.step).reason or "")
        one.end("y")
        assert one.state is State.WAITING
        one.end("z")
        assert (one.state, scene.run_state(one.run_id)) == (State.PENDING, State.COMPLETED)
        record = one.store.of_steps([one.step])[one.step]
        assert (record.total, record.is_open, record.is_over) == (3, False, True)
        scene.end(scene.claim(one.step))
        assert (one.state, scene.run_state("run")) == (State.COMPLETED, State.COMPLETED)

    def test_a_run_of_items(self, scene: Scene) -> None:
        """It knows where it belongs; its items move no pointer."""
        one = Scattering(scene)
        one.discover("x")
        one.end("x")
        (run,) = scene.store.catalog.runs(parent="run")
        assert (run.id, run.kind, run.parent, run.max_concurrency) == (one.run_id, "scatter", "run", 3)
        assert scene.store.catalog.current([("a.item", "x")]) == {}
        assert scene.step(one.item("x")).max_attempts == 3

    def test_without_items(self, scene: Scene) -> None:
        """The step goes on at once."""
        one = Scattering(scene)
        one.discover()
        assert (one.state, scene.run_state(one.run_id)) == (State.PENDING, State.COMPLETED)

    def test_texts_come_back(self, scene: Scene) -> None:
        """Whatever items and keys consist of."""
        one = Scattering(scene)
        one.discover(*HOSTILE_TEXTS)
        texts = one.store.items([one.item(key) for key in HOSTILE_TEXTS])
        assert list(texts.values()) == [f'"{key}"' for key in HOSTILE_TEXTS]
        one.end(*HOSTILE_TEXTS)
        rows = one.store.page(one.run_id, after=-1, limit=100, states=WITH_VALUE)
        assert [row.partition for row in rows] == list(HOSTILE_TEXTS)
        assert all(row.stored is not None and row.state is State.COMPLETED for row in rows)

    def test_pages(self, scene: Scene) -> None:
        """In the order of discovery, only the states that are asked for."""
        one = Scattering(scene)
        one.discover(*"abcde")
        one.end(*"ecb")
        one.fail("d")
        first = one.store.page(one.run_id, after=-1, limit=2, states=WITH_VALUE)
        rest = one.store.page(one.run_id, after=first[-1].position, limit=2, states=WITH_VALUE)
        assert [row.partition for row in (*first, *rest)] == ["b", "c", "e"]
        (lost,) = one.store.page(one.run_id, after=-1, limit=9, states=(State.FAILED,))
        assert (lost.partition, lost.position, lost.error, lost.attempt) == ("d", 3, "boom", 1)
        counts = one.store.counts(one.run_id)
        assert (counts.total, counts.succeeded, counts.failed) == (5, 3, 1)

    def test_a_repeated_attempt_finds_its_items_again(self, scene: Scene) -> None:
        """In their new order; what it does not find any more is let go."""
        one = Scattering(scene)
        claim, opened = one.open()
        assert one.store.add(opened, items("x", "y", "gone", "lost"))
        one.end("x")
        one.fail("lost")
        scene.end(claim, failed(), retry=0.0)
        again, opened = one.open()
        assert one.store.add(opened, items("y", "x", "z"))
        one.close(again, 3)
        assert one.states(["x", "y", "gone", "z"]) == [
            State.COMPLETED,
            State.PENDING,
            State.CANCELLED,
            State.PENDING,
        ]
        one.end("y", "z")
        assert one.state is State.PENDING
        rows = one.store.page(one.run_id, after=-1, limit=9, states=tuple(State))
        assert [row.partition for row in rows] == ["y", "x", "z"]
        assert one.store.counts(one.run_id).by_state == {State.COMPLETED: 3}

    def test_a_superseded_attempt_adds_nothing(self, scene: Scene) -> None:
        """Only the newest attempt may, and none that is asked to stop."""
        one = Scattering(scene)
        claim, opened = one.open()
        scene.end(claim, failed(), retry=0.0)
        _, newer = one.open()
        assert one.store.add(opened, items("x")) is None
        assert one.store.begin(one.step, claim.token, NEW) is None
        assert one.store.add(newer, items("x"))
        scene.store.ledger.request_cancel(one.step)
        assert one.store.add(newer, items("y", start=1)) is None
        assert len(scene.store.catalog.steps(one.run_id)) == 1

    @pytest.mark.parametrize("chunks", [[["x", "y", "x"]], [["x"], ["y", "x"]]])
    def test_keys_are_unique(self, scene: Scene, chunks: list[list[str]]) -> None:
        """In a chunk and over all of them; nothing of the chunk is added."""
        one = Scattering(scene)
        _, opened = one.open()
        for chunk in chunks[:-1]:
            assert one.store.add(opened, items(*chunk))
        with pytest.raises(LookupError) as raised:
            one.store.add(opened, items(*chunks[-1], start=3 - len(chunks[-1])))
        assert raised.value.args == (2,)
        assert len(scene.store.catalog.steps(one.run_id)) == len(chunks) - 1

    def test_a_retry_keeps_what_succeeded(self, scene: Scene) -> None:
        """What is the same item with a value is reused, with the versions that it was discovered from."""
        one = Scattering(scene)
        one.discover(*"abc")
        one.end("a", "b")
        one.fail("c")
        scene.end(scene.claim(one.step), failed())
        scene.open("retry", [], retry_of="run")
        two = Scattering(scene, "retry")
        claim, opened = two.open()
        assert opened.previous is not None
        assert (opened.previous.run_id, opened.previous.total) == (one.run_id, 3)
        changed = [NewItem(1, "b", '"other"')]
        assert two.store.add(opened, [*items("a"), *changed, *items("c", start=2)])
        two.close(claim, 3)
        assert two.states("abc") == [State.REUSED, State.PENDING, State.PENDING]
        reused, original = scene.step(two.item("a")), scene.step(one.item("a"))
        assert (reused.output_step, reused.stored) == (original.id, original.stored)
        two.end("b", "c")
        assert two.state is State.PENDING

    def test_what_the_discovery_read(self, scene: Scene) -> None:
        """Is kept for the lineage of the value that is gathered."""
        source = scene.make("source", run_id="before")
        one = Scattering(scene)
        claim, _ = one.open()
        scene.end(claim, Scattered(0, 0), inputs=[source])
        record = one.store.of_steps([one.step])[one.step]
        assert record.inputs == (InputVersion("source", "source", "", source),)

    def test_resting_twice(self, scene: Scene) -> None:
        """A step that was started although its items are not over goes back to rest."""
        one = Scattering(scene)
        one.discover()
        one.close(scene.claim(one.step), 0)
        assert scene.state(one.step) is State.PENDING
        scene.end(scene.claim(one.step))
        assert scene.state(one.step) is State.COMPLETED
