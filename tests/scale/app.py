"""The app of the scale profiles: a few hundred assets in layers, one of them with very many partitions.

`Scale` says how much there is, `graph` draws the assets of a scale from a fixed seed, and `make_flow` declares
them with automations, checks and limits. `tests.scale.history` writes the history of two years of such an app.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

from flowstone import (
    AwaitApproval,
    Breaker,
    DailyPartitions,
    DynamicPartitions,
    FlowStone,
    HourlyPartitions,
    MultiPartitions,
    RetryPolicy,
    Schedule,
    Sensor,
    StaticPartitions,
    asset,
    check,
    eager,
)
from flowstone.config import Settings
from flowstone.core.asset import Asset

FIRST_HOUR = datetime(2015, 1, 1, tzinfo=UTC)
DOMAINS = (
    "ads",
    "billing",
    "catalog",
    "finance",
    "fraud",
    "growth",
    "logistics",
    "ml",
    "ops",
    "risk",
    "search",
    "web",
)
REGIONS = tuple(f"region-{number:02}" for number in range(20))
LARGE = "events"
"""The asset with very many partitions."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much there is.

    Args:
        name: of the profile.
        layers: of plain assets.
        width: plain assets in each layer.
        hours: partitions of the large asset.
        full: ended backfills over all of them whose steps are all recorded.
        pruned: older ones, of which retention has left what later steps had read.
        kept_days: days of such a backfill that are left.
        begun: partitions that the backfill at work has started.
        nights: runs of the whole graph.
        days: partitions of daily assets.
        sensed: runs of each sensor.
        sensors: number of sensors.
        conditioned: runs of each condition.
        customers: keys of the dynamic partitions.
        pending: requests for approval that are open.
        backlog: steps on a queue that no worker serves.
    """

    name: str
    layers: int
    width: int
    hours: int
    full: int
    pruned: int
    kept_days: int
    begun: int
    nights: int
    days: int
    sensed: int
    sensors: int
    conditioned: int
    customers: int
    pending: int
    backlog: int

    @property
    def plain(self) -> int:
        """Number of assets in layers."""
        return self.layers * self.width

    @property
    def end(self) -> datetime:
        """The last hour of the large asset."""
        return FIRST_HOUR + timedelta(hours=self.hours - 1)


M = Scale("m", 8, 37, 100_000, 7, 43, 20, 40_000, 600, 365, 8_600, 10, 300, 400, 12, 3_000)
"""300 assets, 100,000 partitions, a million steps, 50 ended backfills of 100,000."""
L = replace(M, name="l", full=97)
"""The same with ten million steps: 97 backfills of which every step is recorded; a quarter of an hour to write."""
S = Scale("s", 3, 12, 1_200, 2, 3, 4, 500, 12, 20, 20, 2, 5, 8, 3, 30)
"""The same in a second: 40 assets, 1,200 partitions, some 4,000 steps."""


@dataclass(frozen=True, slots=True)
class Node:
    """One plain asset.

    Args:
        number: its place; inputs have lower ones.
        name: its name.
        group: its group.
        layer: its layer.
        parents: numbers of its inputs.
        daily: whether it has a partition for each day.
        kind: `sensor` (source that a sensor feeds), `condition` (made by its condition), else `nightly`.
    """

    number: int
    name: str
    group: str
    layer: int
    parents: tuple[int, ...]
    daily: bool
    kind: str


@cache
def graph(scale: Scale) -> tuple[Node, ...]:
    """Return the plain assets: most read one to three of the layer before, a sixth is partitioned by day."""
    drawn = random.Random(1)
    nodes: list[Node] = []
    for number in range(scale.plain):
        layer, daily = number // scale.width, number % 6 == 5
        above = [n for n in nodes if n.layer == layer - 1 and n.daily == daily]
        parents = tuple(sorted(n.number for n in drawn.sample(above, min(len(above), drawn.choice((1, 1, 2, 3))))))
        kind = "nightly"
        if not daily and layer == 0 and number < scale.sensors * 2:
            kind = "sensor"
        elif not daily and layer == scale.layers - 1:
            kind = "condition"
        group = DOMAINS[(number % scale.width) * len(DOMAINS) // scale.width]
        nodes.append(Node(number, f"{group}_{number:03}", group, layer, parents, daily, kind))
    return tuple(nodes)


def queue_of(node: Node) -> str:
    """Return the queue of an asset: some need a GPU."""
    return "gpu" if node.group == "ml" and node.layer % 2 else "assets"


def limits_of(node: Node) -> dict[str, Any]:
    """Return the fleet-wide limits of an asset."""
    if node.group == "finance":
        return {"warehouse": 4}
    return {"payments": Breaker(5, 600)} if node.group == "billing" else {}


def make_flow(scale: Scale, dsn: str, storage: str = ".flowstone") -> FlowStone:
    """Return the app on a database."""
    assets = [*_large(scale), *_others(scale), *(_plain(scale, node) for node in graph(scale))]
    settings = Settings(database_url=dsn, storage=storage)
    return FlowStone(
        assets, checks=_checks(scale), schedules=_schedules(), sensors=_sensors(scale), settings=settings
    )


def _large(scale: Scale) -> list[Asset[..., Any]]:
    @asset(partitions=HourlyPartitions(FIRST_HOUR, end=scale.end), group="raw", tags=["large"], code_version="7")
    def events(context):
        """Every event of an hour."""
        return [str(context.partition)]

    @asset(partitions=DailyPartitions(FIRST_HOUR.date(), end=scale.end.date()), group="raw")
    def events_daily(events):
        """The events of a day."""
        return len(events)

    return [events, events_daily]


def _others(scale: Scale) -> list[Asset[..., Any]]:
    grid = MultiPartitions(day=DailyPartitions(_since(scale)), region=StaticPartitions(REGIONS))

    @asset(partitions=grid, group="finance", concurrency={"warehouse": 4})
    def sales(context):
        """Sales of a day in a region."""
        return str(context.partition)

    @asset(partitions=DynamicPartitions("customers"), group="billing")
    def invoices(context):
        """Asks before it sends."""
        if context.approval is None:
            return AwaitApproval("Send the invoice?", data={"customer": str(context.partition)})
        return "sent"

    return [sales, invoices]


def _plain(scale: Scale, node: Node) -> Asset[..., Any]:
    names = {f"input_{place}": graph(scale)[parent].name for place, parent in enumerate(node.parents)}
    return asset(
        name=node.name,
        deps=names,
        group=node.group,
        partitions=DailyPartitions(_since(scale)) if node.daily else None,
        queue=queue_of(node),
        concurrency=limits_of(node),
        retry=RetryPolicy(max_attempts=3),
        code_version=str(1 + node.number % 4),
        automation=eager() if node.kind == "condition" else None,
        tags=["nightly"] if node.kind == "nightly" else [],
        description=f"Number {node.number} of layer {node.layer}.",
    )(_FUNCTIONS[len(names)])


def _none() -> int:
    return 1


def _one(input_0: int) -> int:
    return input_0


def _two(input_0: int, input_1: int) -> int:
    return input_0 + input_1


def _three(input_0: int, input_1: int, input_2: int) -> int:
    return input_0 + input_1 + input_2


_FUNCTIONS: tuple[Callable[..., int], ...] = (_none, _one, _two, _three)


def checked(scale: Scale) -> list[Node]:
    """Return the plain assets that have checks."""
    return [node for node in graph(scale) if node.kind == "nightly" and not node.daily and node.number % 5 == 1]


def _checks(scale: Scale) -> list[Any]:
    @check(LARGE)
    def not_empty(events):
        """There are events."""
        return bool(events)

    made: list[Any] = [not_empty]
    for node in checked(scale):
        made.append(check(node.name, name="positive")(_positive()))
        made.append(check(node.name, name="usual", severity="warning")(_positive()))
    return made


def _positive() -> Callable[..., bool]:
    def positive(value):
        """The number is positive."""
        return value > 0

    return positive


SCHEDULES = (
    ("nightly", "tag:nightly", "30 2 * * *", "Europe/Berlin"),
    ("daily", "sales", "15 4 * * *", "UTC"),
    ("hourly-ads", "group:ads", "5 * * * *", "America/St_Johns"),
    ("weekdays", "group:search", "0 7 * * 1-5", "Asia/Kathmandu"),
    ("monthly", "group:risk", "0 6 1 * *", "UTC"),
)


def _schedules() -> list[Schedule]:
    return [
        Schedule(text, cron, name=name, timezone=zone, partition=_newest_sales if text == "sales" else None)
        for name, text, cron, zone in SCHEDULES
    ]


def _newest_sales(instant: datetime) -> Any:
    return (instant - timedelta(days=1)).date(), REGIONS[0]


def sensor_names(scale: Scale) -> list[str]:
    """Return the names of the sensors."""
    return [f"inbox-{number}" for number in range(scale.sensors)]


def _sensors(scale: Scale) -> list[Sensor]:
    fed = [node for node in graph(scale) if node.kind == "sensor"]

    def nothing() -> None:
        """Watches an inbox."""

    return [
        Sensor(nothing, name=name, every=60, selection=fed[place].name)
        for place, name in enumerate(sensor_names(scale))
    ]


def _since(scale: Scale) -> date:
    return (datetime.now(UTC) - timedelta(days=scale.days)).date()
