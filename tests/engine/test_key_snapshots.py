from __future__ import annotations

import pytest

from flowstone.core.automation.record import PartitionChange
from flowstone.core.partitions import KeyState
from flowstone.engine.planner import KeySnapshots
from flowstone.stores.memory import MemoryStore
from flowstone.stores.memory.catalog import MemoryPartitionKeys
from flowstone.stores.memory.tables import Tables


class CountedKeys(MemoryPartitionKeys):
    """Counts the questions and what they were answered."""

    def __init__(self) -> None:
        super().__init__(Tables())
        self.requested: list[int] = []

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        answer = super().changed(name, after=after)
        self.requested.append(len(answer))
        return answer


def listed(snapshots: KeySnapshots, *, fresh: bool = False) -> list[str]:
    return list(snapshots.known("customers", fresh=fresh).active)


def test_a_snapshot_serves_for_a_while() -> None:
    store = CountedKeys()
    snapshots = KeySnapshots(store, short_seconds=3600.0)
    store.add("customers", ["i:1"])
    assert all(listed(snapshots) == ["i:1"] for _ in range(1000))
    store.add("customers", ["i:2"])
    assert listed(snapshots) == ["i:1"]
    assert listed(snapshots, fresh=True) == listed(snapshots) == ["i:1", "i:2"]
    assert store.requested == [1, 1]


def test_a_snapshot_grows_old_and_only_changes_are_read() -> None:
    store = CountedKeys()
    snapshots = KeySnapshots(store, short_seconds=0.0)
    store.add("customers", [f"i:{number}" for number in range(1000)])
    assert len(listed(snapshots)) == 1000
    store.remove("customers", ["i:5", "i:6"])
    assert len(listed(snapshots, fresh=True)) == 998
    known = snapshots.known("customers", fresh=True)
    assert store.requested[:3] == [1000, 2, 0]
    assert known is snapshots.known("customers", fresh=True)  # nothing new: labels are not made again


def test_what_is_about_to_be_committed_is_seen_by_those_who_plan_it() -> None:
    store = MemoryStore().partition_keys
    store.add("customers", ["i:1", "i:2"])
    snapshots = KeySnapshots(store)
    changes = [
        PartitionChange("customers", "i:3"),
        PartitionChange("customers", "i:1", remove=True),
        PartitionChange("customers", "i:1", remove=True),
        PartitionChange("customers", "i:2"),
        PartitionChange("customers", "i:1"),
        PartitionChange("products", "i:9"),
    ]
    with snapshots.assuming(changes):
        assert listed(snapshots) == ["i:2", "i:3", "i:1"]
        with snapshots.assuming([PartitionChange("customers", "i:3", remove=True)]):
            assert listed(snapshots) == ["i:2", "i:1"]
        with pytest.raises(ZeroDivisionError), snapshots.assuming([PartitionChange("customers", "i:4")]):
            1 / 0  # noqa: B018
        assert listed(snapshots, fresh=True) == ["i:2", "i:3", "i:1"]
    assert listed(snapshots) == listed(snapshots, fresh=True) == ["i:1", "i:2"]
