"""Scatters in every store: items that a step discovers, and the step that rests until they are over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed

from flowstone.core.outcome import Scattered
from flowstone.core.scatter import WITH_VALUE, NewItem, NewScatter, OpenScatter
from flowstone.core.state import State
from flowstone.core.step import Attempt, InputVersion

NEW = NewScatter(
    asset="a.item",
    selection="items of a",
    max_concurrency=3,
    max_failures=1,
    max_attempts=3,
    repeats=True,
    queue="assets",
    follows_queue=True,
    priority=None,
    limits={},
)


def items(*keys: str, start: int = 0) -> list[NewItem]:
    """Return items with these partitions, numbered from `start`."""
    return [NewItem(position, key, f'"{key}"') for position, key in enumerate(keys, start)]


class Scattering:
    """A step that scatters, and its items, in the words of a test."""

    def __init__(self, scene: Scene, run_id: str = "run", **options: object) -> None:
        self.scene, self.store = scene, scene.store.scatters
        self.new = replace(NEW, **options)  # type: ignore[arg-type]  # the test gives what fits
        self.step = scene.one("a", run_id=run_id, forced=True, max_attempts=3).id

    def open(self) -> tuple[Attempt, OpenScatter]:
        """Start an attempt of the step that discovers."""
        claim = self.scene.claim(self.step, now=self.scene.later(5))
        opened = self.store.begin(self.step, claim.token, self.new)
        assert opened is not None
        return claim, opened

    def discover(self, *keys: str) -> OpenScatter:
        """Discover items in one attempt."""
        claim, opened = self.open()
        if keys:
            assert self.store.add(opened, items(*keys))
        self.close(claim, len(keys))
        return opened

    def close(self, claim: Attempt, total: int, allowed: int | None = None) -> None:
        """End the attempt that discovered."""
        scattered = Scattered(total, (self.new.max_failures or 0) if allowed is None else allowed)
        self.scene.end(claim, scattered)

    def item(self, key: str) -> int:
        """Return the step of an item."""
        found = [one.id for one in self.scene.store.catalog.steps(self.run_id) if one.partition_key == key]
        return found[-1]

    def end(self, *keys: str) -> None:
        """Let items succeed."""
        for key in keys:
            self.scene.end(self.scene.claim(self.item(key)))

    def fail(self, *keys: str) -> None:
        """Let items fail for good."""
        for key in keys:
            self.scene.end(self.scene.claim(self.item(key)), failed())

    @property
    def run_id(self) -> str:
        """The run of the items."""
        return f"scatter-{self.step}"

    @property
    def state(self) -> State:
        """State of the step that scattered."""
        return self.scene.state(self.step)

    def states(self, keys: Sequence[str]) -> list[State]:
        """States of items."""
        return [self.scene.state(self.item(key)) for key in keys]


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
        assert [row.partition_key for row in rows] == list(HOSTILE_TEXTS)
        assert all(row.stored is not None and row.state is State.COMPLETED for row in rows)

    def test_pages(self, scene: Scene) -> None:
        """In the order of discovery, only the states that are asked for."""
        one = Scattering(scene)
        one.discover(*"abcde")
        one.end(*"ecb")
        one.fail("d")
        first = one.store.page(one.run_id, after=-1, limit=2, states=WITH_VALUE)
        rest = one.store.page(one.run_id, after=first[-1].position, limit=2, states=WITH_VALUE)
        assert [row.partition_key for row in (*first, *rest)] == ["b", "c", "e"]
        (lost,) = one.store.page(one.run_id, after=-1, limit=9, states=(State.FAILED,))
        assert (lost.partition_key, lost.position, lost.error, lost.attempt) == ("d", 3, "boom", 1)
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
        assert [row.partition_key for row in rows] == ["y", "x", "z"]
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
