"""A short language for tests of scatters in stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flowstone.core.outcome import Scattered
from flowstone.core.scatter import NewItem, NewScatter, OpenScatter
from flowstone.core.state import State
from flowstone.core.step import Claim
from flowstone.testing.store_scene import Scene, failed

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

    def open(self) -> tuple[Claim, OpenScatter]:
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

    def close(self, claim: Claim, total: int, allowed: int | None = None) -> None:
        """End the attempt that discovered."""
        scattered = Scattered(total, (self.new.max_failures or 0) if allowed is None else allowed)
        self.scene.end(claim, scattered)

    def item(self, key: str) -> int:
        """Return the step of an item."""
        found = [one.id for one in self.scene.store.catalog.steps(self.run_id) if one.partition == key]
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
