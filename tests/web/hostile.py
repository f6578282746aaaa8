"""A small app whose names are what people type, and what attackers do; with something of everything recorded."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from flowstone import (
    AwaitApproval,
    CheckResult,
    DynamicPartitions,
    Fatal,
    FlowStone,
    RetryPolicy,
    Schedule,
    Sensor,
    StaticPartitions,
    asset,
    check,
    eager,
)
from flowstone.config import Settings
from flowstone.core.actor import Actor, acting

SCRIPT = "<script>alert('x')</script>"
NAMES = (
    "a/b",
    "..",
    "a?b=c&d",
    "a#b",
    "100% & more",
    "x" * 200,
    "שלום עולם",
    "🚀 rocket 🚀",
    SCRIPT,
    "health",
    "{{ 7777 * 7777 }}",
    "\"quoted' `name`",
)
"""Names of assets, groups, partitions, tags, queues."""
PERSON = "ann <b>bold</b>"


def make_flow(database_url: str | None = None) -> FlowStone:
    """Return the app."""
    keys = StaticPartitions(NAMES)
    assets: list[Any] = []
    for place, name in enumerate(NAMES):
        inputs = {"value": NAMES[place - 1]} if place % 3 == 2 else {}
        function = _fed if inputs else _source
        options: dict[str, Any] = {"deps": inputs, "group": name, "tags": [name], "description": SCRIPT}
        assets.append(
            asset(name=name, automation=eager() if inputs else None, retry=RetryPolicy(max_attempts=1), **options)(
                function
            )
        )

    @asset(partitions=keys, retry=RetryPolicy(max_attempts=1))
    def parted(context):
        if context.partition in NAMES[:2]:
            raise Fatal(f"{SCRIPT}\nno {context.partition}", data={"why": SCRIPT})
        return context.partition

    @asset(partitions=DynamicPartitions(SCRIPT))
    def dynamic(context):
        return context.partition

    @asset
    def asks(context):
        if context.approval is None:
            return AwaitApproval(f"Pay {SCRIPT}?", data={SCRIPT: [SCRIPT, 1, None]}, gate=SCRIPT)
        return 1

    @check(NAMES[0], name=SCRIPT)
    def empty_check(value):
        return CheckResult(False, description=SCRIPT, metadata={SCRIPT: SCRIPT})

    def inbox():
        """Finds nothing."""

    return FlowStone(
        [*assets, parted, dynamic, asks],
        checks=[empty_check],
        schedules=[
            Schedule(assets[3], "*/5 * * * *", name=name[:120], timezone="America/St_Johns", description=SCRIPT)
            for name in NAMES
        ],
        sensors=[Sensor(inbox, name=name, selection=assets[0]) for name in NAMES],
        settings=Settings(executor="sync", database_url=database_url),
    )


def _source() -> str:
    """Says its name."""
    return SCRIPT


def _fed(value: str) -> str:
    return value + "!"


def _ask(flow: FlowStone) -> None:
    """Compute what asks: it waits until `settle`."""
    with contextlib.suppress(Exception):
        flow.materialize("asks", executor="sync")


def settle(flow: FlowStone) -> None:
    """End what waits for a person."""
    for one in flow.approvals.list():
        flow.approvals.reject(one.id, by=PERSON)


def fill(flow: FlowStone) -> None:
    """Record something of everything."""
    with acting(Actor(PERSON, "test")):
        flow.materialize_all(
            [flow.graph[name] for name in NAMES], executor="sync", tags=[SCRIPT], metadata={SCRIPT: SCRIPT}
        )
        flow.backfill("parted", executor="sync")
        flow.partitions.add(SCRIPT, NAMES, by=PERSON, reason=SCRIPT)
        flow.partitions.remove(SCRIPT, NAMES[:1], by=PERSON, reason=SCRIPT)
        flow.materialize("dynamic", partition=NAMES[4], executor="sync")
        waiting = threading.Thread(target=_ask, args=[flow], daemon=True)
        waiting.start()
        while waiting.is_alive() and not flow.approvals.list():
            time.sleep(0.01)
        for name in NAMES[:3]:
            flow.schedules.pause(name)
            flow.sensors.set_cursor(name, SCRIPT)
        flow.conditions.list()
