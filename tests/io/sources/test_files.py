"""New files: none lost, none taken twice, none half-written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import DailyPartitions, DynamicPartitions, FlowStone, asset
from flowstone.core.automation.record import PartitionChange
from flowstone.core.automation.sensor import Sensed, Sensor, SensorContext, sense
from flowstone.errors import DefinitionError
from flowstone.io.sources.files import FoundFile, LocalListing, ObjectListing, new_files

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def poll(sensor: Sensor, cursor: str | None = None, now: datetime = LATER) -> Sensed:
    context = SensorContext(sensor.name, now=now, cursor=cursor, selection=sensor.selection)
    return sense(context, sensor(context))


def watch(source: Any, **options: Any) -> Sensor:
    options = {"settle": 0, "partition": lambda file: file.path} | options
    return new_files(source, name="inbox", selection="orders", **options)


def paths(sensed: Sensed) -> list[object]:
    return [request.partition for request in sensed.requests]


@dataclass
class Shelf:
    """A listing whose files and clock a test sets."""

    there: dict[str, FoundFile] = field(default_factory=dict)
    clock: int = 1_000_000_000

    def put(self, path: str, size: int = 1) -> None:
        self.there[path] = FoundFile(path=path, size=size, modified_ns=self.clock, changed_ns=self.clock)

    def files(self, *, recursive: bool) -> Iterable[FoundFile]:
        return list(self.there.values())

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.clock // 1000)


def test_files_are_found_once_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("1")
    first = poll(watch(tmp_path))
    assert paths(first) == ["b"]
    assert first.skip_reason is None
    (tmp_path / "a").write_text("22")
    second = poll(watch(tmp_path), first.cursor)
    assert paths(second) == ["a"]
    nothing = poll(watch(tmp_path), second.cursor)
    assert (paths(nothing), nothing.skip_reason, nothing.cursor) == ([], "nothing new", second.cursor)


def test_a_changed_file_is_a_new_one_and_has_another_run_key(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = poll(watch(tmp_path))
    (tmp_path / "a").write_text("22")
    second = poll(watch(tmp_path), first.cursor)
    assert paths(second) == ["a"]
    assert first.requests[0].run_key != second.requests[0].run_key
    stat = (tmp_path / "a").stat()
    assert second.requests[0].run_key == f"a {stat.st_mtime_ns} 2"


def test_a_file_that_is_only_touched_by_chmod_keeps_its_run_key(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = poll(watch(tmp_path))
    (tmp_path / "a").chmod(0o600)
    second = poll(watch(tmp_path), first.cursor)
    assert [one.run_key for one in second.requests] in ([], [first.requests[0].run_key])


def test_a_file_moved_in_with_an_old_time_is_new(tmp_path: Path) -> None:
    inbox, outside = tmp_path / "inbox", tmp_path / "old"
    inbox.mkdir()
    (inbox / "new").write_text("1")
    outside.write_text("2")
    os.utime(outside, (1, 1))
    first = poll(watch(inbox))
    outside.rename(inbox / "old")
    second = poll(watch(inbox), first.cursor)
    assert paths(second) == ["old"]
    assert second.requests[0].run_key == "old 1000000000 1"


def test_files_that_may_be_half_written_are_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    young = watch(tmp_path, settle=3600)
    assert poll(young).requests == ()
    assert poll(young).cursor is None


def test_what_counts_is_chosen_by_pattern_and_depth(tmp_path: Path) -> None:
    below = tmp_path / "below" / "deeper"
    below.mkdir(parents=True)
    for path in (tmp_path / "a.csv", tmp_path / "a.txt", tmp_path / ".hidden.csv", below / "b.csv"):
        path.write_text("1")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert set(paths(poll(watch(tmp_path, pattern="*.csv")))) == {"a.csv"}
    found = poll(watch(tmp_path, pattern="*.csv", recursive=True))
    assert set(paths(found)) == {"a.csv", "below/deeper/b.csv"}
    assert paths(poll(watch(tmp_path, pattern=".*"))) == [".hidden.csv"]


def test_a_link_that_is_new_leads_to_a_new_file(tmp_path: Path) -> None:
    inbox, outside = tmp_path / "inbox", tmp_path / "outside"
    inbox.mkdir()
    outside.write_text("1")
    (inbox / "a").write_text("1")
    first = poll(watch(inbox))
    (inbox / "link").symlink_to(outside)
    assert paths(poll(watch(inbox), first.cursor)) == ["link"]


def test_a_directory_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        poll(watch(tmp_path / "unmounted"))


def test_any_file_name_gives_a_run_key_of_its_own(tmp_path: Path) -> None:
    names = [b"\xff\x01\n", b"\\udcff\\x01\\n", "é".encode(), b"x" * 250]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_text("1")
    deep = tmp_path.joinpath(*["é" * 100] * 6)
    deep.mkdir(parents=True)
    (deep / "long").write_text("1")
    found = poll(watch(tmp_path, recursive=True, partition=lambda file: str(hash(file.path))))
    keys = [request.run_key or "" for request in found.requests]
    assert len(set(keys)) == len(names) + 1
    assert any(key.startswith("sha256 ") for key in keys)


def test_files_are_taken_in_portions() -> None:
    shelf = Shelf()
    for number in range(7):
        shelf.put(f"{number}")
    sensor, cursor, found = watch(shelf, limit=3), None, []
    for _ in range(4):
        sensed = poll(sensor, cursor, shelf.now)
        cursor = sensed.cursor
        found.append(len(sensed.requests))
    assert found == [3, 3, 1, 0]


def test_without_partitions_one_run_is_for_all_of_them() -> None:
    shelf = Shelf()
    shelf.put("a")
    shelf.clock += 1000
    shelf.put("b", size=7)
    sensed = poll(watch(shelf, partition=None), now=shelf.now)
    assert [(one.partition, one.run_key) for one in sensed.requests] == [(None, "b 1000001000 7")]


def test_partitions_may_be_shared_left_out_and_added() -> None:
    shelf = Shelf()
    for path in ("eu-1", "eu-2", "us-1", "README"):
        shelf.clock += 1000
        shelf.put(path)

    def region(file: FoundFile) -> str | None:
        return file.name.partition("-")[0] if "-" in file.name else None

    sensor = watch(shelf, partition=region, add_to="regions")
    sensed = poll(sensor, now=shelf.now)
    assert [(one.partition, one.run_key) for one in sensed.requests] == [
        ("eu", "eu-2 1000002000 1"),
        ("us", "us-1 1000003000 1"),
    ]
    assert sensed.partitions == (PartitionChange("regions", "s:eu"), PartitionChange("regions", "s:us"))
    assert poll(sensor, sensed.cursor, shelf.now).requests == ()


def test_a_function_that_gives_no_partition_is_named() -> None:
    shelf = Shelf()
    shelf.put("a")
    sensed = poll(watch(shelf, partition=lambda file: 1.5), now=shelf.now)
    assert sensed.requests == ()
    assert "'a 1000000000 1' is no partition" in (sensed.skip_reason or "")


def test_one_bad_file_does_not_hold_up_the_others(tmp_path: Path) -> None:
    days = DailyPartitions("2024-01-01", end="2024-01-31")

    @asset(partitions=days)
    def orders(context) -> str:  # type: ignore[no-untyped-def]
        return str(context.partition)

    inbox = new_files(
        tmp_path,
        name="inbox",
        selection="orders",
        settle=0,
        partition=lambda file: date.fromisoformat(file.name[:10]),
    )
    flow = FlowStone.for_testing([orders], sensors=[inbox])
    for name in ("2024-01-02.csv", "readme.txt", "2023-12-31.csv", "2024-01-03.csv"):
        (tmp_path / name).write_text("x")
    tick = flow.sensors.evaluate("inbox")
    assert tick.state.value == "requested"
    assert len(tick.run_ids) == 2
    assert [flow.exists("orders", partition=date(2024, 1, day)) for day in (2, 3)] == [True, True]
    for bad in ("readme.txt", "2023-12-31.csv"):
        assert f"left out: {bad}" in (tick.reason or "")
    # they are looked at again until they can be used, and others go on meanwhile
    (tmp_path / "2024-01-04.csv").write_text("x")
    tick = flow.sensors.evaluate("inbox")
    assert len(tick.run_ids) == 1
    assert "readme.txt" in (tick.reason or "")
    (tmp_path / "readme.txt").unlink()
    (tmp_path / "2023-12-31.csv").rename(tmp_path / "2024-01-05.csv")
    tick = flow.sensors.evaluate("inbox")
    assert flow.exists("orders", partition=date(2024, 1, 5))
    assert "left out" not in (tick.reason or "")
    assert flow.sensors.evaluate("inbox").reason == "nothing new"


def test_a_file_whose_partition_comes_later_is_not_lost(tmp_path: Path) -> None:
    customers = DynamicPartitions("customers")

    @asset(partitions=customers)
    def orders(context) -> str:  # type: ignore[no-untyped-def]
        return str(context.partition)

    inbox = new_files(
        tmp_path, name="inbox", selection="orders", settle=0, partition=lambda file: file.name.removesuffix(".csv")
    )
    flow = FlowStone.for_testing([orders], sensors=[inbox])
    (tmp_path / "acme.csv").write_text("x")
    assert "'acme' is not a partition" in (flow.sensors.evaluate("inbox").reason or "")
    flow.partitions.add("customers", ["acme"])
    flow.sensors.evaluate("inbox")
    assert flow.load("orders", partition="acme") == "acme"


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 2)),
        st.tuples(st.just("tick"), st.booleans(), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.none(), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(EVENTS)
def test_every_version_that_settles_triggers_exactly_once_through_crashes_and_replays(events: list[Any]) -> None:
    """A crashed evaluation leaves cursor and keys as they were; committed ones move both."""
    shelf, cursor, kept = Shelf(), None, [None]
    versions: dict[str, int] = {}
    ran: list[str] = []
    for kind, what, number in [*events, *[("wait", None, 9), ("tick", True, 3)] * 5]:
        if kind == "put":
            shelf.clock += 1000 if number else 0
            shelf.put(what, size=shelf.clock % 97 + number)
        elif kind == "wait":
            shelf.clock += number * 10**9
        else:
            sensed = poll(watch(shelf, settle=2, limit=number), cursor, shelf.now)
            if what:  # the conclusion is committed: new keys run, known ones do not
                ran += [one.run_key or "" for one in sensed.requests if one.run_key not in ran]
                cursor = sensed.cursor
                kept.append(cursor)
            elif number == 3:  # a person sets an old cursor
                cursor = kept[len(kept) // 2]
    for file in shelf.there.values():
        versions[f"{file.path} {file.modified_ns} {file.size}"] = 1
    assert len(ran) == len(set(ran))
    assert set(versions) <= set(ran)


class Bucket:
    """What an fsspec filesystem looks like, with its habit of remembering listings."""

    def __init__(self, objects: Mapping[str, Mapping[str, object]]) -> None:
        self.objects = objects
        self.forgot = 0

    def invalidate_cache(self) -> None:
        self.forgot += 1

    def find(self, path: str, maxdepth: int | None = None, *, detail: bool = False) -> Mapping[str, object]:
        assert detail
        depth = path.rstrip("/").count("/") + (maxdepth or 99)
        return {name: about for name, about in self.objects.items() if name.count("/") <= depth}


def test_objects_are_listed_through_a_filesystem() -> None:
    moment = datetime(2024, 1, 1, 0, 0, 0, 5, tzinfo=UTC)
    bucket = Bucket(
        {
            "b/in/one": {"size": 1, "LastModified": moment, "ETag": '"e1"', "type": "file"},
            "b/in/two": {"size": 2, "mtime": 1.5, "type": "file"},
            "b/in/three": {"size": 3, "updated": "2024-01-01T00:00:01Z"},
            "b/in/sub": {"size": 0, "type": "directory"},
            "b/in/sub/four": {"size": 4, "mtime": 2},
        }
    )
    found = poll(watch("s3://b/in/", filesystem=bucket, recursive=True))
    assert [one.run_key for one in found.requests] == [
        "two 1500000000 2",
        "sub/four 2000000000 4",
        'one 1704067200000005000 1 "e1"',
        "three 1704067201000000000 3",
    ]
    assert paths(poll(watch("b/in", filesystem=bucket))) == ["two", "one", "three"]
    assert bucket.forgot == 2


def test_objects_without_a_time_are_refused() -> None:
    with pytest.raises(ValueError, match="when 'one' was modified"):
        list(ObjectListing(Bucket({"b/one": {"size": 1}}), "b").files(recursive=False))


def test_the_local_listing_reports_times_in_nanoseconds(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("12")
    os.utime(tmp_path / "a", ns=(5, 1_700_000_000_123_456_789))
    (file,) = LocalListing(tmp_path).files(recursive=False)
    assert (file.path, file.name, file.size, file.modified_ns) == ("a", "a", 2, 1_700_000_000_123_456_789)
    assert file.changed_ns == (tmp_path / "a").stat().st_ctime_ns


@pytest.mark.parametrize(
    "options",
    [
        {"pattern": ""},
        {"pattern": "*/x"},
        {"settle": -1},
        {"settle": 1e9},
        {"limit": 0},
        {"limit": 10_001},
        {"limit": True},
        {"partition": None, "add_to": "x"},
        {"every": 0},
        {"colour": "red"},
        {"setle": 3},
        {"source": 7},
        {"source": Shelf(), "filesystem": Bucket({})},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        watch(options.pop("source", "x"), **options)
