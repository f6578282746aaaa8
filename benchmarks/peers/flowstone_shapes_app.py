"""Shapes of durable work beside `dag`: `fan`, many partitions between two assets, and `wide`, many assets."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from benchmarks.peers.flowstone_dag_app import dag
from flowstone import AllPartitions, DailyPartitions, FlowStone, StaticPartitions, asset, dep
from flowstone.core.asset import Asset

FIRST = date(2024, 1, 1)
LAYERS, WIDTH, DAYS, READS = 10, 30, 30, 3


def shape(name: str, dsn: str, **options: Any) -> FlowStone:
    """Return the app of a shape."""
    if name == "dag":
        return dag(dsn, **options)
    return fan(dsn, **options) if name == "fan" else wide(dsn)


def fan(dsn: str, *, width: int) -> FlowStone:
    """Return the app of `fan_assets`."""
    return FlowStone(fan_assets(width), database_url=dsn)


def fan_assets(width: int) -> list[Asset]:
    """One number, read by each of many partitions, which one sum reads."""

    @asset
    def first() -> int:
        return 1

    @asset(partitions=StaticPartitions([f"p{number:06}" for number in range(width)]))
    def middle(first: int) -> int:
        return first

    @asset(deps=[dep("middle", mapping=AllPartitions())])
    def last(middle: dict[str, int]) -> int:
        return sum(middle.values())

    return [first, middle, last]


def wide(dsn: str) -> FlowStone:
    """300 daily assets in ten layers, each of which reads three of the layer before."""
    partitions = DailyPartitions(FIRST, end=FIRST + timedelta(days=DAYS - 1))
    made = []
    for layer in range(LAYERS):
        for place in range(WIDTH):
            above = [f"a{layer - 1}_{(place + step) % WIDTH}" for step in range(READS)] if layer else []
            names = {f"input_{number}": name for number, name in enumerate(above)}
            function = _three if names else _none
            made.append(asset(name=f"a{layer}_{place}", deps=names, partitions=partitions)(function))
    return FlowStone(made, database_url=dsn)


def _none() -> int:
    return 1


def _three(input_0: int, input_1: int, input_2: int) -> int:
    return max(input_0, input_1, input_2)
