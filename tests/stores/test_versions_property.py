"""Which version was in use when: any history of commits, restores, invalidations and erasures against a model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stores.conformance.case import Scene

from flowstone.core.partitions import PartitionKey
from flowstone.core.version import ChangeKind, CommittedAt, OutputChange, RestoreVersion, which_at
from flowstone.stores.memory import MemoryStore

TARGET = ("a", PartitionKey(""))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["commit", "restore", "invalidate", "erase"]), st.integers(0, 9))))
def test_as_of_agrees_with_what_was_in_use(history: list[tuple[str, int]]) -> None:
    """After each step the version in use is what `at` says of that moment, then and at the end."""
    scene = Scene(MemoryStore())
    store, kept, expected = scene.store, list[int](), list[tuple[datetime, int | None]]()
    for number, (what, which) in enumerate(history):
        scene.now += timedelta(seconds=1)
        if what == "commit":
            kept.append(scene.make(run_id=str(number)))
        elif what == "restore" and kept:
            store.versions.restore([RestoreVersion(TARGET, kept[which % len(kept)])])
        elif what == "invalidate":
            store.ledger.invalidate([TARGET])
        elif what == "erase" and kept:
            store.versions.erase([TARGET])
            kept.clear()
        current = store.catalog.current([TARGET]).get(TARGET)
        moments = [change.at for change in store.versions.changes([TARGET])]
        moments += [one.finished_at for one in store.versions.page(TARGET) if one.finished_at is not None]
        if moments:
            expected.append((max(moments), current))
        for at, was in expected:
            assert store.versions.at([TARGET], at)[TARGET].step_id == was
    assert store.versions.at([TARGET], datetime(2000, 1, 1, tzinfo=UTC))[TARGET].step_id is None


@settings(max_examples=100, deadline=None)
@given(st.integers(-3600, 3600), st.integers(-3600, 3600))
def test_clocks_that_differ_turn_nothing_around(first: int, second: int) -> None:
    """Workers may be an hour off: what a restore replaced, and what is in use, is known by one clock."""
    start = datetime(2026, 1, 1, 12, tzinfo=UTC)
    commits = [
        CommittedAt(1, start - timedelta(days=1)),
        CommittedAt(2, start + timedelta(seconds=first)),
        CommittedAt(3, start + timedelta(minutes=20, seconds=second)),
    ]
    restored = OutputChange(
        asset="a",
        partition_key=PartitionKey(""),
        kind=ChangeKind.RESTORED,
        at=start + timedelta(minutes=10),
        step_id=1,
        before=2,
        before_since=start,
    )
    now = CommittedAt(3, start + timedelta(minutes=20))
    minutes = {5: 2, 15: 1, 25: 3}
    for minute, version in minutes.items():
        assert which_at(start + timedelta(minutes=minute), commits, [restored], now).step_id == version
