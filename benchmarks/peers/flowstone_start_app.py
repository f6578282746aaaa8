"""The app of the figures about starting: two assets, and the database of the environment."""

from __future__ import annotations

from flowstone import FlowStone, asset


@asset
def numbers() -> list[int]:
    """Return a few numbers."""
    return [1, 2, 3]


@asset
def doubled(numbers: list[int]) -> list[int]:
    """Return twice as much."""
    return [2 * number for number in numbers]


flow = FlowStone([numbers, doubled])
